"""Forward hooks that pool the outputs of a network's modules to rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder, tap_module
from fullrank.errors import UsageError
from fullrank.networks.capacity import RankBounds

FEATURES = "features"
"""The tap of what the whole network puts out."""

Tokens: TypeAlias = Literal["mean", "class"]


def which_taps(model: Encoder, wanted: Sequence[str] | None) -> dict[str, nn.Module]:
    """Modules whose outputs are taken, by tap; `features` is the network.

    `all` is every one of `model.taps` and the features; any other module of the network can be named, as
    `layer3.1`; None is the features alone. Raises UnknownNameError where there is no such module.

    Example:
        >>> from fullrank.encoders.opening import open_encoder
        >>> model = open_encoder("timm:resnet18", pretrained=False)
        >>> list(which_taps(model, None)), list(which_taps(model, ["layer4", "layer3.1"]))
        (['features'], ['layer4', 'layer3.1'])
    """
    chosen: dict[str, nn.Module] = {}
    for name in [FEATURES] if wanted is None else wanted:
        if name == "all":
            chosen |= model.taps
        if name in ("all", FEATURES):
            chosen[FEATURES] = model.network
        elif name in model.taps:
            chosen[name] = model.taps[name]
        else:
            chosen[name] = tap_module(model.network, name)
    if not chosen:
        raise UsageError(f"no tap is named; take {FEATURES}, all, or some of {', '.join(model.taps)}")
    return chosen


@contextmanager
def take_taps(
    modules: Mapping[str, nn.Module],
    tokens: Tokens = "mean",
    prefix_tokens: int = 0,
    channels_last: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Record outputs of modules, pooled to rows, while the context lasts.

    Args:
        modules: by the names of their taps. A module that runs several times leaves what it put out last.
        tokens: what becomes of a sequence [n, t, c]: its mean, or its first token.
        prefix_tokens: tokens before the patches (class, registers), which the mean leaves out.
        channels_last: maps are [n, h, w, c]; only asked where their shape does not tell.

    Returns:
        A context; its value is a mapping that every forward pass fills anew: tap to rows [n, c].

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> with take_taps({"conv": network[0]}) as rows:
        ...     _ = network(torch.zeros(2, 3, 5, 5))
        >>> rows["conv"].shape
        torch.Size([2, 8])
    """
    rows: dict[str, Tensor] = {}

    def record(name: str, _: nn.Module, __: Any, output: Any) -> None:
        rows[name] = pool(output, name, tokens, prefix_tokens, channels_last)

    handles = [module.register_forward_hook(partial(record, name)) for name, module in modules.items()]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def pool(
    output: Any, name: str = "", tokens: Tokens = "mean", prefix_tokens: int = 0, channels_last: bool = False
) -> Tensor:
    """The output of a module as rows [n, c], else a UsageError; see `take_taps`."""
    while isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    while isinstance(output, tuple | list):
        output = output[0] if output else None
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    if isinstance(output, Tensor) and output.ndim == 3:
        if tokens == "class":
            return output[:, 0]
        return output[:, prefix_tokens:].mean(1) if output.shape[1] > prefix_tokens else output.mean(1)
    if isinstance(output, Tensor) and output.ndim == 4:
        _, first, second, third = output.shape
        if (second == third) != (first == second):  # square maps tell which axes they are
            channels_last = first == second
        return output.mean((1, 2) if channels_last else (2, 3))
    what = f"the shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise UsageError(f"layer {name!r} puts out {what}, which has no rows: take another layer")


@torch.no_grad()
def capacities(model: Encoder, modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Most directions that the rows of each tap can span, of images.

    Runs the network once on two images. Taps of a network that cannot be followed are left out.

    Example:
        >>> from fullrank.encoders.encoder import make_encoder
        >>> from fullrank.networks.architecture import Built
        >>> body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> built = Built("squeezed", nn.Sequential(body, nn.Linear(8, 64)), image_size=16)
        >>> model = make_encoder(built, origin="memory")
        >>> capacities(model, which_taps(model, None))
        {'features': 8}
    """
    size, weight = model.image_size, next(model.network.parameters(), torch.zeros(0))
    images = torch.zeros(2, 3, size, size, device=weight.device, dtype=weight.dtype)
    inner = {name: module for name, module in modules.items() if name != FEATURES}
    try:
        with RankBounds() as bounds, take_taps(inner) as rows:
            bounds.start(images)
            rows[FEATURES] = model.network(images)
            return {name: bounds.of(rows[name]) for name in modules if name in rows}
    except (RuntimeError, AssertionError, ValueError, TypeError):  # an operation that a mode cannot follow
        return {}
