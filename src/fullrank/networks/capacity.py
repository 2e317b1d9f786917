"""Capacity: how many directions the outputs of a network can span at most."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fullrank.eval_mode import eval_mode


class Bound(NamedTuple):
    """Bound of a tensor's rank.

    Attributes:
        rank: most directions that its channels span, once their mean is subtracted.
        axis: of the channels: the last one, or 1 for maps [n, c, h, w].
        by_row: whether all channels of a row are equal, as a row's length is.
    """

    rank: int
    axis: int
    by_row: bool = False


class RankBounds(TorchDispatchMode):
    """Follow how many directions tensors can span, operation by operation.

    Products with matrices and convolutions narrow, sums add up, shifts and scales of channels change nothing;
    what is not known (every nonlinearity) is taken to fill its width. So a bound is never too low.

    Example:
        >>> x, narrow, wide = torch.zeros(2, 8), nn.Linear(8, 3), nn.Linear(3, 64)
        >>> with torch.no_grad(), RankBounds() as bounds:
        ...     bounds.start(x)
        ...     plain, lifted = wide(narrow(x)), wide(narrow(x).relu())
        >>> bounds.of(plain), bounds.of(narrow(x))
        (3, 3)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bounds: dict[
            int, tuple[Tensor, Bound]
        ] = {}  # the tensor stays alive, so that its id is its own

    def start(self, x: Tensor) -> None:
        """Take `x` as the input, of full rank."""
        self._set(x, Bound(x.shape[_axis(x)], _axis(x)))

    def of(self, x: Tensor) -> int:
        """Most directions that a tensor's rows span; its width where no input matters."""
        bound = self._get(x)
        return bound.rank if bound else int(x.shape[_axis(x)])

    def _get(self, x: Any) -> Bound | None:
        return self._bounds[id(x)][1] if id(x) in self._bounds else None

    def _set(self, x: Tensor, bound: Bound) -> None:
        self._bounds[id(x)] = x, bound._replace(rank=max(0, min(bound.rank, x.shape[bound.axis])))

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        flat = [arg for group in args for arg in (group if isinstance(group, list | tuple) else [group])]
        if not any(self._get(arg) for arg in flat):
            return out
        rule, bounds = RULES.get(op.overloadpacket.__name__.rstrip("_")), [self._get(arg) for arg in args]
        for made in out if isinstance(out, list | tuple) else [out]:
            if isinstance(made, Tensor) and made.ndim >= 2 and made.is_floating_point():
                bound = rule(args, made, bounds) if rule else None
                self._set(made, bound or Bound(made.shape[_axis(made)], _axis(made)))
        return out


Bounds = list[Bound | None]
Rule = Callable[[Any, Tensor, Bounds], Bound | None]
"""Of arguments, output and the arguments' bounds to the output's bound; None where nothing is known."""


def _axis(x: Tensor) -> int:
    return 1 if x.ndim == 4 else x.ndim - 1


def _same(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    return bounds[0]


def _view(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    """Keep the bound where the view keeps the channels, last or first."""
    x, bound = args[0], bounds[0]
    if bound is None:
        return None
    if bound.axis == x.ndim - 1 and x.shape[-1] == out.shape[-1]:
        return bound._replace(axis=out.ndim - 1)
    channels_first = bound.axis == 1 and out.shape[:2] == x.shape[:2]
    return bound._replace(axis=1) if channels_first else None


def _part(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    """Some channels of a row, or some rows: an axis other than the channels' may go."""
    x, bound = args[0], bounds[0]
    if bound is None or bound.axis != x.ndim - 1:
        return bound if bound and out.ndim == x.ndim else None
    return bound._replace(axis=out.ndim - 1)


def _mean(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    x, bound = args[0], bounds[0]
    over = {axis % x.ndim for axis in (args[1] if len(args) > 1 and args[1] else range(x.ndim))}
    if bound is None or bound.axis in over or 0 in over:
        return None
    kept = out.ndim == x.ndim
    return bound._replace(axis=bound.axis if kept else bound.axis - sum(axis < bound.axis for axis in over))


def _transposed(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    x, bound = args[0], bounds[0]
    if bound is None:
        return None
    a, b = (axis % x.ndim for axis in (args[1:3] if len(args) > 2 else (0, 1)))
    return bound._replace(axis={a: b, b: a}.get(bound.axis, bound.axis))


def _product(rows: Bound | None, matrix: Any, matrix_bound: Bound | None, out: Tensor) -> Bound | None:
    if rows is None or matrix_bound is not None or rows.axis != out.ndim - 1:
        return None
    return Bound(min(rows.rank, *matrix.shape[-2:]), out.ndim - 1)


def _mm(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    return _product(bounds[0], args[1], bounds[1], out)


def _addmm(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    return _product(bounds[1], args[2], bounds[2], out) if bounds[0] is None else None


def _convolution(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    weight, groups, bound = args[1], args[8], bounds[0]
    if bound is None or groups > 1 or bounds[1] is not None:
        return None
    return Bound(bound.rank * prod(weight.shape[2:]), 1)


def _layer_norm(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    bound = bounds[0]
    return bound._replace(rank=bound.rank + 1) if bound and len(args[1]) == 1 else None


def _sum(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    """A residual sum adds ranks; a constant row shifts."""
    first, second = bounds[:2]
    if first and second:
        alike = first.axis == second.axis and args[0].shape == args[1].shape
        return Bound(first.rank + second.rank, first.axis) if alike else None
    return _by_channel(args, out, bounds)


def _scaled(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    """Rows times a number each; or channels times constants."""
    first, second = bounds[:2]
    if first and second:
        return first._replace(rank=first.rank + 1) if second.by_row else None
    return _by_channel(args, out, bounds)


def _by_channel(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    """Channels shifted or scaled by constants that are the same in every row."""
    bound, other = (bounds[0], args[1]) if bounds[0] else (bounds[1], args[0])
    if bound is None or not isinstance(other, Tensor):
        return bound
    shape = (1,) * (out.ndim - other.ndim) + tuple(other.shape)
    return bound if all(size == 1 for axis, size in enumerate(shape) if axis != bound.axis) else None


def _length(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    return Bound(1, out.ndim - 1, by_row=True) if out.shape[-1] == 1 else None


def _kept_by_row(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    bound = bounds[0]
    return bound if bound and (bound.by_row or out.shape == args[0].shape) else None


def _row_numbers(args: Any, out: Tensor, bounds: Bounds) -> Bound | None:
    return bounds[0] if bounds[0] and bounds[0].by_row else None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("clone", "detach", "alias", "_to_copy", "contiguous", "native_batch_norm"), _same),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_native_batch_norm_legit"), _same),
    **dict.fromkeys(("_adaptive_avg_pool2d", "avg_pool2d"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"), _view),
    **dict.fromkeys(("select", "slice", "split", "split_with_sizes"), _part),
    **dict.fromkeys(("transpose", "t"), _transposed),
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("mul", "div"), _scaled),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _length),
    **dict.fromkeys(("clamp_min", "rsqrt", "reciprocal", "sqrt"), _row_numbers),
    "mean": _mean,
    "mm": _mm,
    "addmm": _addmm,
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "expand": _kept_by_row,
}


def capacity(module: nn.Module, in_width: int) -> int:
    """Most directions that outputs [n, d] of a head can span, of inputs [n, in_width].

    The narrowest layer after the last nonlinearity decides; residual sums do not narrow. Runs the module
    once, in evaluation mode, on two rows.

    Example:
        >>> from fullrank.networks.heads import mlp
        >>> capacity(mlp([64, 64, 2048]), 64), capacity(mlp([64, 512, 2048]), 64)
        (64, 512)
    """
    first = next(module.parameters(), torch.zeros(0))
    rows = torch.zeros(2, in_width, device=first.device, dtype=first.dtype)
    try:
        with eval_mode(module), RankBounds() as bounds:
            bounds.start(rows)
            out = module(rows)
    except (RuntimeError, AssertionError, ValueError) as error:  # it takes other inputs
        raise TypeError(f"{type(module).__name__} does not map rows to rows") from error
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise TypeError(f"{type(module).__name__} does not map rows to rows")
    return int(bounds.of(out))
