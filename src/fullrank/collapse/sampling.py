"""Which rows a bounded sample keeps: a choice that depends on the rows alone.

`Reservoir` draws a key for each place in a stream, so its sample changes with the order. Here the key is made
of the row itself: the same rows give the same sample in any order, any chunks and any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["row_keys", "smallest"]


def smallest(keys: Tensor, capacity: int) -> Tensor:
    """Places of the smallest keys, sorted by key."""
    return torch.argsort(keys, stable=True)[:capacity]


def row_keys(inputs: Sequence[Tensor]) -> Tensor:
    """Keys [n] of rows that belong together, int64: equal rows have equal keys, all others scatter.

    Args:
        inputs: tensors [n, ...] of numbers, on one device.

    Example:
        >>> z = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
        >>> keys = row_keys([z])
        >>> bool(keys[0] == keys[2] != keys[1]), torch.equal(row_keys([z.flip(0)]), keys.flip(0))
        (True, True)
    """
    key = torch.zeros(len(inputs[0]), dtype=torch.int64, device=inputs[0].device)
    for z in inputs:
        width = z[:1].numel() if len(z) else 0
        bits = (z.double().reshape(len(z), width) + 0.0).view(torch.int64)  # + 0.0 makes -0.0 and 0.0 one
        columns = _scramble(torch.arange(width, device=z.device)) | 1
        # The upper half is folded onto the lower one, which is all zeros for numbers of few digits.
        key = _scramble(key + ((bits ^ _shifted(bits, 32)) * columns).sum(1))
    return key


def _scramble(x: Tensor) -> Tensor:
    """A one-to-one scrambling of 64-bit numbers (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    x = x - 0x61C8864680B583EB  # + 0x9E3779B97F4A7C15 modulo 2^64, and so below
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, places: int) -> Tensor:
    """The bits moved to the right, zeros coming in."""
    return (x >> places) & ((1 << (64 - places)) - 1)
