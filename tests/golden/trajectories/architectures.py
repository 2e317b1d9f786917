"""Networks listed layer by layer: build the backbone, and hold ours against the listed heads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.networks.soft_targets import Prototypes
from golden.settings import Refused, Settings

SHORT_NAMES = {"inp": ("in_features", "in_channels"), "out": ("out_features", "out_channels")} | {
    "features": ("num_features",), "kernel": ("kernel_size",), "size": ("output_size",),
    "output": ("output_size",),
}  # fmt: skip


def options_of(layer: Settings, cls: type[nn.Module]) -> dict[str, Any]:
    """Arguments of torch's layer from a listed one; an entry that it does not have is refused."""
    known = inspect.signature(cls.__init__).parameters
    options = {}
    for key in layer:
        if key in ("name", "type"):
            continue
        if key == "weight_norm":
            layer.expect("weight_norm", False)
            continue
        full = next((name for name in SHORT_NAMES.get(key, (key,)) if name in known), None)
        if full is None:
            raise Refused(f"settings.{layer.path}{key}: a {cls.__name__} has no such option")
        value = layer[key]
        options[full] = tuple(value) if isinstance(value, list) else value
    return options


def built(layer: Settings) -> nn.Module:
    """Torch's layer of a listed one."""
    cls = getattr(nn, str(layer["type"]), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise Refused(f"settings.{layer.path}type is {layer['type']!r}, no layer of torch")
    return cls(**options_of(layer, cls))


class ListedBackbone(nn.Module):
    """A backbone that settings list layer by layer, in the order of its forward pass.

    Maps that a linear layer takes, here or first in the head, are flattened, or averaged over space where
    only that fits its width: lists have no entry for what happens between layers.
    """

    def __init__(self, layers: Sequence[Settings], width: int | None) -> None:
        super().__init__()
        self.order, self.width = [str(layer["name"]) for layer in layers], width
        for layer in layers:
            *parents, name = str(layer["name"]).split(".")
            module: nn.Module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.add_module(name, built(layer))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            layer = self.get_submodule(name)
            if isinstance(layer, nn.Linear):
                x = _rows(x, layer.in_features)
            x = layer(x)
        return _rows(x, self.width)


def _rows(x: Tensor, width: int | None) -> Tensor:
    if x.ndim == 2:
        return x
    flat = x.flatten(1)
    if width in (None, flat.shape[1]):
        return flat
    if x.shape[1] == width:
        return x.flatten(2).mean(dim=2)
    raise Refused(f"settings.architecture: maps {list(x.shape[1:])} do not fit a layer of {width} inputs")


def listed_backbone(architecture: Settings) -> ListedBackbone:
    """The backbone; its width is that of the projector's first layer."""
    first = architecture.get("projector") or [{}]
    return ListedBackbone(architecture["backbone"], first[0].get("inp", first[0].get("in_features")))


def derived_options(architecture: Settings, fields: set[str]) -> dict[str, Any]:
    """Options of a method, of those that it has, that its listed heads decide."""
    options: dict[str, Any] = {}
    for part, prefix in (("projector", "proj"), ("predictor", "pred")):
        layers = architecture.get(part)
        if not layers:
            continue
        linear = [layer for layer in layers if layer["type"] == "Linear"]
        has_bn = [layer["type"].startswith("BatchNorm") for layer in layers]
        options |= {f"{prefix}_layers": len(linear), f"{prefix}_output_dim": linear[-1].get("out")}
        options |= {"hidden_bn": any(has_bn[:-1])} if len(linear) > 1 else {}
        options |= {"output_bn" if prefix == "proj" else "pred_output_bn": has_bn[-1]}
        options |= {f"{prefix}_hidden_dim": linear[0].get("out")} if len(linear) > 1 else {}
        options |= {"bias": any(layer.get("bias", True) for layer in linear)}
    return {key: value for key, value in options.items() if key in fields and value is not None}


def check_heads(architecture: Settings, method: nn.Module) -> None:
    """Refuse a listed head that is another than the method's, by its first entry that differs."""
    for part in architecture:
        if part == "backbone":
            continue
        ours = getattr(method, part, None)
        if not isinstance(ours, nn.Module):
            raise Refused(f"settings.architecture.{part}: our method has no {part}")
        layers, listed = list(ours.children()) or [ours], architecture[part]
        if len(layers) != len(listed):
            shown = ", ".join(type(layer).__name__ for layer in layers)
            raise Refused(f"settings.architecture.{part} lists {len(listed)} layers, ours has {shown}")
        for layer, module in zip(listed, layers, strict=True):
            for key, value in _differences(layer, module):
                raise Refused(f"settings.{layer.path}{key} is {layer[key]!r}, ours is {value!r}")


def _differences(layer: Settings, module: nn.Module) -> Iterator[tuple[str, Any]]:
    if isinstance(module, Prototypes):
        count, dim = module.v.shape
        ours: dict[str, Any] = {
            "type": "Linear",
            "inp": dim,
            "out": count,
            "bias": False,
            "weight_norm": True,
        }
    else:
        ours = {"type": type(module).__name__, "weight_norm": False}
        for key in layer:
            names = [name for name in SHORT_NAMES.get(key, (key,)) if hasattr(module, name)]
            if key not in ("name", "type", "weight_norm"):
                ours[key] = getattr(module, names[0]) if names else None
                if isinstance(ours[key], (Tensor, nn.Parameter)) or (key == "bias" and ours[key] is None):
                    ours[key] = ours[key] is not None
    layer.get("name")
    for key in layer:
        if key == "name" or (key == "type" and layer[key] != ours["type"]):
            if key == "type":
                yield key, ours["type"]
            continue
        if layer[key] != ours.get(key):
            yield key, ours.get(key)


def feature_width(backbone: nn.Module, views: Tensor) -> int:
    """Width of what the backbone makes of recorded views [step, view, n, ...]."""
    with torch.no_grad():
        return int(backbone.eval()(views[0, 0, :2].to(next(backbone.parameters()))).shape[1])
