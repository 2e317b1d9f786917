"""Rows that are worked on at a time, while they are in the caches of the cores."""

from __future__ import annotations

import torch
from torch import Tensor

CACHED = 1 << 16  # numbers in double precision that a core's cache holds


def rows_of_a_block(rows: Tensor) -> int:
    """Rows of [n, d] at a time: on a CPU as many as the caches of all threads hold.

    In smaller blocks threads would wait for each other after every few numbers. Other devices take all rows
    at once.

    Example:
        >>> threads = torch.get_num_threads()
        >>> rows_of_a_block(torch.zeros(100_000, 64)) == 1024 * threads
        True
    """
    if rows.device.type != "cpu":
        return max(1, len(rows))
    return max(1, CACHED * torch.get_num_threads() // max(rows.shape[1], 1))
