"""Where a network can be looked into over its depth: the modules whose output is measured."""

from __future__ import annotations

from typing import Any

from torch import nn

from fullrank.errors import UnknownNameError

__all__ = ["find_taps", "tap_module"]


def find_taps(network: nn.Module) -> dict[str, nn.Module]:
    """The stages or blocks of a network in the order of their depth, by their names.

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
    """The module called `name` within a network; raises UnknownNameError with the nearest names.

    Example:
        >>> tap_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1")
        ReLU()
    """
    modules = {key: module for key, module in network.named_modules() if key}
    if name not in modules:
        taps = ", ".join(find_taps(network))
        raise UnknownNameError("layer", name, modules, f"usual ones here are {taps}" if taps else "")
    module: nn.Module = modules[name]
    return module
