"""The same network in another library, proven by equal features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder
from fullrank.errors import UsageError
from fullrank.networks.architecture import Built, load_strictly, without_head
from fullrank.networks.backbones import split_options

SAME = 1e-4  # of the features' size: the arithmetic of another library may order its sums otherwise


@dataclass(frozen=True)
class Rebuilt:
    """A network as timm or torchvision builds it, with the encoder's weights.

    Attributes:
        options: of the library's maker, besides the name.
        cifar_padding: of a 3x3 stem without pooling, which the library's own network has not; else None.
    """

    library: str
    architecture: str
    network: nn.Module
    options: dict[str, Any] = field(default_factory=dict)
    cifar_padding: int | None = None


def probe_images(model: Encoder, n: int = 3) -> Tensor:
    """Random images [n, 3, S, S] that tell networks apart; always the same ones."""
    size = model.image_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def difference(network: nn.Module, model: Encoder) -> float:
    """The largest difference of features, as a share of the largest feature."""
    images = probe_images(model)
    expected, other = model.network(images), network(images)
    if not isinstance(other, Tensor) or other.shape != expected.shape:
        return float("inf")
    return float((other - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def in_timm(model: Encoder) -> Rebuilt | None:
    """The encoder as timm builds it, or None where timm has no such network.

    Example:
        >>> from fullrank.encoders.opening import open_encoder
        >>> in_timm(open_encoder("torchvision:resnet18", pretrained=False, image_size=64)).architecture
        'resnet18'
    """
    import timm

    create: Any = timm.create_model
    known: Any = getattr(model.network, "pretrained_cfg", None) or {}
    base, own = split_options(model.name.partition(" (")[0])
    own.pop("layer_norm_eps", None)  # timm has no such option; features tell whether it matters
    names = (str(known.get("architecture") or ""), base.split(".")[0])
    pooled = getattr(model.network, "global_pool", None)
    pooling = {"global_pool": pooled} if isinstance(pooled, str) else {}
    sized = {"img_size": model.image_size}
    for name in dict.fromkeys(name for name in names if name and timm.is_model(name)):
        for more in ({}, sized, pooling, sized | pooling):
            options = own | more
            try:
                network = create(name, num_classes=0, **options)
            except (TypeError, ValueError, AssertionError, RuntimeError):
                continue  # an option that this network does not have
            if _takes_over(network, model):
                return Rebuilt("timm", name, network, options)
    return None


def in_torchvision(model: Encoder) -> Rebuilt | None:
    """The encoder as torchvision builds it, or None; a CIFAR stem is put in.

    Example:
        >>> from fullrank.encoders.opening import open_encoder
        >>> in_torchvision(open_encoder("timm:resnet18", pretrained=False, image_size=64)).architecture
        'resnet18'
    """
    import torchvision

    known: Any = getattr(model.network, "pretrained_cfg", None) or {}
    name = str(known.get("architecture") or model.name.partition(" (")[0])
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    network: Any = without_head(torchvision.models.get_model(name, weights=None), name)
    first, padding = getattr(model.network, "conv1", None), None
    if isinstance(first, nn.Conv2d) and first.kernel_size == (3, 3) and hasattr(network, "maxpool"):
        padding = int(first.padding[0])
        network.conv1 = nn.Conv2d(3, first.out_channels, 3, padding=padding, bias=False)
        network.maxpool = nn.Identity()
    return (
        Rebuilt("torchvision", name, network, cifar_padding=padding) if _takes_over(network, model) else None
    )


def _takes_over(network: nn.Module, model: Encoder) -> bool:
    """Load the encoder's weights; tell whether the features are the same then."""
    try:
        load_strictly(Built("", network), model.network.state_dict(), "")
        return difference(network.eval().requires_grad_(False), model) < SAME
    except (UsageError, RuntimeError, AssertionError):
        return False
