"""Losses in full precision inside mixed-precision training."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["in_full_precision"]

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a loss: half-precision arguments become float32, and autocast is off inside.

    Sums over a batch, softmaxes and decompositions lose what a loss is about in eight or eleven bits. Single
    and double precision pass as they are; so do arguments that are not tensors. Sequences of tensors are
    converted element by element.

    Example:
        >>> total = in_full_precision(lambda z: z.sum())
        >>> total(torch.ones(3, dtype=torch.bfloat16)).dtype
        torch.float32
    """

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        for kind in {device, "cpu"}:
            if torch.is_autocast_enabled(kind):
                with torch.autocast(kind, enabled=False):
                    return function(*map(_full, args), **{k: _full(v) for k, v in kwargs.items()})
        return function(*map(_full, args), **{k: _full(v) for k, v in kwargs.items()})

    return exact


def _full(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return [_full(item) for item in value]
    return value
