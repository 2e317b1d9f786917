"""An encoder: the network, its input, and the layers that can be measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fullrank.errors import DataError, UnknownNameError, UsageError, first_line
from fullrank.networks.architecture import Built
from fullrank.networks.finite import first_not_finite

Channels: TypeAlias = tuple[float, float, float]
ASSUMED = "taken to see"  # begins the note on what is not on record
IMAGENET: tuple[Channels, Channels] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Encoder:
    """An encoder and how it is used.

    Attributes:
        name: of the architecture.
        network: in eval mode; images [n, 3, S, S] to features [n, d].
        feature_dim: d.
        image_size: S in pixels.
        mean: per channel, of pixels in [0, 1], subtracted from them; None where it is not on record, which
            means that of the images at hand.
        std: per channel, likewise; what they are divided by.
        crop_ratio: share of the resized image that the centre crop keeps per side: 0.875 is 256 to 224.
        taps: modules by name in the order of their depth, for a profile.
        origin: where its weights are from, for a report.
        notes: one line each: what was assumed, and what else is in the file.
        size_known: whether S is on record or fixed by the weights, and not only usual.
    """

    name: str
    network: nn.Module
    feature_dim: int
    image_size: int
    mean: Channels | None = None
    std: Channels | None = None
    crop_ratio: float = 1.0
    taps: dict[str, nn.Module] = field(default_factory=dict)
    origin: str = ""
    notes: tuple[str, ...] = ()
    size_known: bool = False

    def __repr__(self) -> str:
        sizes = f"{self.image_size} pixels to {self.feature_dim} features"
        return f"Encoder({self.name}, {sizes}, {self.origin})"


def make_encoder(
    built: Built,
    *,
    origin: str,
    image_size: int | None = None,
    mean: Any = None,
    std: Any = None,
    crop_ratio: float | None = None,
    recorded: bool = False,
) -> Encoder:
    """Try a built network on one image and describe it as an `Encoder`.

    Args:
        built: with its weights loaded.
        origin: where they are from.
        image_size: side in pixels; None is the network's own, else 32 with a CIFAR stem and 224 without.
        mean, std: to normalise with; None means ImageNet's, or with a CIFAR stem those of the images.
        crop_ratio: None is 0.875 for images of more than 96 pixels, else 1.
        recorded: mean, std and size are on record, so that nothing is assumed.

    Raises:
        DataError: a weight is not finite.
        UsageError: the network does not take such images.
    """
    network = built.network.eval().requires_grad_(False)
    check_finite(network, origin)
    size = image_size or built.image_size or (32 if built.small else 224)
    notes = list(built.notes)
    if mean is None and not built.small:
        mean, std = IMAGENET
    if not recorded:
        normalised = "ImageNet's mean and std" if mean is not None else "the images' own mean and std"
        notes.append(f"{ASSUMED} {size} pixels normalised with {normalised}, which weights do not tell")
    try:
        with torch.no_grad():
            features: Tensor = network(torch.zeros(1, 3, size, size))
    except Exception as error:  # whatever a network of another library trips over
        raise UsageError(f"{built.name} cannot take {size}-pixel images: {first_line(error, 160)}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UsageError(f"{built.name} gives {shape} for one image, not features [n, d]")
    return Encoder(
        built.name,
        network,
        features.shape[1],
        size,
        _channels(mean),
        _channels(std),
        crop_ratio or (0.875 if size > 96 else 1.0),
        find_taps(network),
        origin,
        tuple(notes),
        recorded or built.image_size is not None,
    )


def check_finite(network: nn.Module, origin: str) -> None:
    """Raise DataError with the first weight or statistic that is not finite."""
    if name := first_not_finite(network.state_dict()):
        raise DataError(
            f"{origin}: {name} holds numbers that are not finite (NaN or infinite): the training has "
            f"diverged, or the file is damaged; take an earlier checkpoint"
        )


def _channels(values: Any) -> Channels | None:
    if values is None:
        return None
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def find_taps(network: nn.Module) -> dict[str, nn.Module]:
    """Find the stages or blocks of a network, by name in the order of their depth.

    For timm what it calls the network's features (stages of a convolutional network, blocks of a
    transformer); else the children of the largest sequence of modules that the network has.

    Example:
        >>> import timm
        >>> list(find_taps(timm.create_model("resnet18")))
        ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    modules = dict(network.named_modules())
    info: Any = getattr(network, "feature_info", None)
    if isinstance(info, list):
        names = [part.get("module", "") for part in info if isinstance(part, dict)]
        if len(names) > 1 and all(name in modules for name in names):
            return {name: modules[name] for name in names}
    if hasattr(network, "layer1"):
        names = ["relu", *(f"layer{k}" for k in range(1, 6))]
        return {name: modules[name] for name in names if name in modules}

    def size(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    sequences = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Sequential | nn.ModuleList) and sum(size(part) > 0 for part in module) > 1
    }
    if not sequences:
        return {}
    largest = max(sequences, key=lambda name: (size(sequences[name]), len(sequences[name])))
    parts = sequences[largest].named_children()
    return {f"{largest}.{name}".lstrip("."): part for name, part in parts if size(part)}


def tap_module(network: nn.Module, name: str) -> nn.Module:
    """The module of a name in a network; an unknown one names the nearest."""
    modules = {key: module for key, module in network.named_modules() if key}
    if name not in modules:
        taps = ", ".join(find_taps(network))
        raise UnknownNameError("layer", name, modules, f"usual ones here are {taps}" if taps else "")
    module: nn.Module = modules[name]
    return module
