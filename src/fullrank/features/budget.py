"""Memory that the rows of one file may take at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from fullrank.errors import DataError, UsageError
from fullrank.training.machine import free_memory

SHARE = 0.5
"""Of the free memory, where nothing else is said."""
_MOST: ContextVar[int] = ContextVar("most", default=0)


@contextmanager
def memory_budget(max_bytes: int) -> Iterator[None]:
    """Let a file's rows take at most so many bytes at once within; 0 keeps what holds.

    Raises:
        UsageError: a negative number.

    Example:
        >>> with memory_budget(1_000):
        ...     require_memory("z.npz", 2_000_000)
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: z.npz asks for 2.00 MB of memory at once; --max-bytes allows 1.00 kB
    """
    if max_bytes < 0:
        raise UsageError(f"--max-bytes must not be negative, and is {max_bytes}")
    token = _MOST.set(max_bytes or _MOST.get())
    try:
        yield
    finally:
        _MOST.reset(token)


def require_memory(where: str, nbytes: int) -> None:
    """Raise DataError where a file asks for more bytes at once than are allowed."""
    if nbytes < 1 << 20 and not _MOST.get():
        return
    if most := _MOST.get():
        rule = f"--max-bytes allows {_sized(most)}"
    else:
        free = free_memory(torch.device("cpu"))
        most = int(SHARE * free.bytes)
        rule = f"{_sized(most)} are allowed, half of what is {free.limit}: --max-bytes sets another limit"
    if nbytes > most:
        raise DataError(f"{where} asks for {_sized(nbytes)} of memory at once; {rule}")


def _sized(nbytes: int) -> str:
    """Bytes in the unit that makes them short.

    Example:
        >>> _sized(512), _sized(2_000_000_000), _sized(10**24)
        ('512 bytes', '2.00 GB', '1e+12 TB')
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}" if nbytes >= 1000 * size else f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} bytes"
