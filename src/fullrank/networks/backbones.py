"""Backbones: any timm name, the CIFAR stem of the literature, and He et al.'s narrow CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.registry import Registry

__all__ = ["CIFAR_RESNETS", "Backbone", "Stem", "backbone_names", "build_backbone", "default_backbone"]

Stem = Literal["auto", "imagenet", "cifar", "cifar-pad2"]
CIFAR_RESNETS: Registry[Callable[..., nn.Module]] = Registry("backbone")


@dataclass(frozen=True)
class Backbone:
    """A network that maps images [n, 3, S, S] to pooled features [n, feature_dim]."""

    name: str
    network: nn.Module
    feature_dim: int
    stem: str


class CifarResNet(nn.Module):
    """The ResNet of depth 6m+2 for small images (He et al. 1512.03385, section 4.2).

    Three stages of m basic blocks each, at full, half and quarter resolution, with widths w, 2w and 4w;
    a 3x3 stem; global average pooling. Features [n, 4w].

    Args:
        depth: 8, 14, 20, 32, ... (6m + 2).
        width: channels of the first stage; 16 in the paper.
        zero_init_residual: last BN gain of every block starts at 0.

    Example:
        >>> CifarResNet(8, 16)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 64])
    """

    def __init__(self, depth: int, width: int, zero_init_residual: bool = False) -> None:
        super().__init__()
        from timm.models.resnet import BasicBlock

        blocks, remainder = divmod(depth - 2, 6)
        if remainder or blocks < 1:
            raise UsageError(f"a CIFAR ResNet has depth 6m + 2 (8, 14, 20, ...), not {depth}")
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        channels = width
        for stage in range(3):
            out = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = None
                if stride != 1 or channels != out:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
                    )
                stages.append(BasicBlock(channels, out, stride=stride, downsample=shortcut))
                channels = out
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in stages:
                nn.init.zeros_(module.bn2.weight)  # type: ignore[union-attr, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] to features [n, 4w]."""
        x = torch.relu(self.bn1(self.conv1(x)))
        features: Tensor = self.blocks(x).mean(dim=(2, 3))
        return features


def _register_cifar_resnets() -> None:
    def maker(depth: int, width: int) -> Callable[..., nn.Module]:
        return lambda **options: CifarResNet(depth, width, **options)

    for depth in (8, 14, 20):
        for width in (16, 32, 64):
            CIFAR_RESNETS.register(f"resnet{depth}-w{width}")(maker(depth, width))


_register_cifar_resnets()


def default_backbone(image_size: int) -> str:
    """The backbone where none is named: a narrow ResNet-8 for tiny images, else ResNet-18.

    Example:
        >>> default_backbone(16), default_backbone(32)
        ('resnet8-w32', 'resnet18')
    """
    return "resnet8-w32" if image_size <= 24 else "resnet18"


def backbone_names() -> list[str]:
    """Every name that `build_backbone` takes: ours first, then timm's."""
    import timm

    return [*CIFAR_RESNETS, *timm.list_models()]


def build_backbone(
    name: str,
    image_size: int,
    *,
    stem: Stem = "auto",
    zero_init_residual: bool = False,
) -> Backbone:
    """Builds a randomly initialised backbone without its classifier.

    Args:
        name: one of `CIFAR_RESNETS` or any timm model name.
        image_size: side of the square input in pixels.
        stem: what a timm ResNet begins with. `imagenet`: 7x7 stride 2 and max-pooling. `cifar`: 3x3 stride 1,
            padding 1, no pooling. `cifar-pad2`: the same with padding 2, which solo-learn and its forks use
            (32 pixels become 34, 26 % more arithmetic; for parity with their numbers). `auto`: `cifar` up to
            48 pixels, else `imagenet`.
        zero_init_residual: last BN gain of every residual block starts at 0 (SimSiam's reference: on).

    Raises:
        UnknownNameError: no such backbone.
        UsageError: the backbone cannot take such images or such a stem.

    Example:
        >>> build_backbone("resnet8-w16", 32).feature_dim
        64
    """
    if name in CIFAR_RESNETS:
        if stem == "imagenet":
            raise UsageError(f"{name} has a CIFAR stem only; drop --stem imagenet or take a timm ResNet")
        network = CIFAR_RESNETS[name](zero_init_residual=zero_init_residual)
        return Backbone(name, network, _feature_dim(network, image_size, name), "cifar")
    import timm

    if not timm.is_model(name):
        raise UnknownNameError(
            "backbone", name, backbone_names(), "`fullrank list backbones` names all of them"
        )
    options: dict[str, Any] = {}
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        options["zero_init_last"] = zero_init_residual
    elif zero_init_residual:
        raise UsageError(f"zero_init_residual is for ResNets; {name} has no such blocks")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"timm cannot build {name} for {image_size}-pixel images: {error}") from error
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None) or (1,)
    if any(image_size % side for side in patch):
        raise UsageError(
            f"{name} cuts patches of {patch[0]} pixels: {image_size} is no multiple; take --image-size "
            f"{max(image_size // patch[0], 1) * patch[0]}"
        )
    if stem == "auto":
        stem = "cifar" if image_size <= 48 and _has_imagenet_stem(network) else "imagenet"
    if stem != "imagenet":
        _to_cifar_stem(network, name, padding=2 if stem == "cifar-pad2" else 1)
    return Backbone(name, network, _feature_dim(network, image_size, name), stem)


def _has_imagenet_stem(network: nn.Module) -> bool:
    first = getattr(network, "conv1", None)
    return isinstance(first, nn.Conv2d) and first.kernel_size == (7, 7) and hasattr(network, "maxpool")


def _to_cifar_stem(network: nn.Module, name: str, padding: int) -> None:
    if not _has_imagenet_stem(network):
        raise UsageError(f"the CIFAR stem is for ResNets with a 7x7 stem; {name} has none: drop --stem")
    old = network.conv1
    assert isinstance(old, nn.Conv2d)
    # a fresh layer with PyTorch's own init, as in the references
    network.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=padding, bias=False)
    network.maxpool = nn.Identity()


@torch.no_grad()
def _feature_dim(network: nn.Module, image_size: int, name: str) -> int:
    was_training = network.training
    try:
        features = network.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(f"{name} cannot take {image_size}-pixel images: {error}") from error
    finally:
        network.train(was_training)
    if features.ndim != 2:
        raise UsageError(f"{name} returns features of shape {tuple(features.shape)}, not [n, d]")
    return int(features.shape[1])
