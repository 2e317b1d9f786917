"""Losses in full precision inside mixed-precision training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from fullrank.errors import FullrankError

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss: half-precision arguments become float32, autocast is off.

    Sums over a batch, softmaxes and decompositions need more than eight or eleven bits. Sequences of tensors
    are converted element by element; everything else passes as it is.

    Example:
        >>> total = in_full_precision(lambda z: z.sum())
        >>> total(torch.ones(3, dtype=torch.bfloat16)).dtype
        torch.float32
    """

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as off:
            for kind in {"cpu", *(t.device.type for t in _tensors((*args, *kwargs.values())))}:
                if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                    off.enter_context(torch.autocast(kind, enabled=False))
            return function(*map(_full, args), **{k: _full(v) for k, v in kwargs.items()})

    return exact


@contextmanager
def or_diverged() -> Iterator[None]:
    """Raise FullrankError where a decomposition fails: training has diverged.

    Example:
        >>> with or_diverged():
        ...     torch.linalg.svd(torch.full((2, 2), torch.nan))
        Traceback (most recent call last):
            ...
        fullrank.errors.FullrankError: training has diverged: lower --lr, or clip with --clip-grad
    """
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise FullrankError("training has diverged: lower --lr, or clip with --clip-grad") from error


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _full(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return [_full(item) for item in value]
    return value
