"""Sums, means and rows over all processes, with the gradients of one process.

Distributed wrappers average gradients over processes. A loss that is the same function of the global batch on
every process therefore needs collectives whose backward pass sums over processes: then the average of all is
the gradient of one. Without a process group everything here is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """This process's rank and the number of processes.

    Example:
        >>> world()
        (0, 1)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


class _Sum(torch.autograd.Function):
    """All-reduce forward and backward: all losses depend on all rows."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of `value`, of one shape everywhere, over processes; differentiable.

    Example:
        >>> sum_over_processes(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    if world()[1] == 1:
        return value
    total: Tensor = _Sum.apply(value)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of `value`, of one shape everywhere, over processes; differentiable."""
    return sum_over_processes(value) / world()[1]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes by rank, [b, ...] to [world * b, ...]; differentiable.

    Every process must hold as many rows. The gradient of each row is summed over the losses of all processes.

    Example:
        >>> gather_rows(torch.zeros(4, 2)).shape
        torch.Size([4, 2])
    """
    rank, size = world()
    if size == 1:
        return rows
    # a sum of disjoint parts: one collective that every backend has, and whose backward is known
    whole = rows.new_zeros(size, *rows.shape)
    whole[rank] = rows
    return sum_over_processes(whole).flatten(0, 1)


def own_rows(rows: Tensor) -> Tensor:
    """This process's part [b, ...] of gathered rows [world * b, ...]."""
    rank, size = world()
    return rows.chunk(size)[rank]


@torch.no_grad()
def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value` on all of them: random numbers that all share."""
    if world()[1] == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value
