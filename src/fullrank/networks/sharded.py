"""Tensors of which each process holds a part (FSDP2): parts, norms, whole ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fullrank.networks.processes import world


def is_sharded(value: Tensor) -> bool:
    """Whether this process holds only a part of a tensor.

    Example:
        >>> is_sharded(torch.ones(2))
        False
    """
    return hasattr(value, "device_mesh")


def local_part(value: Tensor) -> Tensor:
    """The part that this process holds, in the same memory; all of a plain tensor.

    Example:
        >>> local_part(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    if not is_sharded(value):
        return value
    sharded: Any = value
    part: Tensor = sharded.to_local()
    return part


def local_parts(values: Iterable[Tensor]) -> list[Tensor]:
    """The parts of several tensors that this process holds."""
    return [local_part(value) for value in values]


@torch.no_grad()
def norms(parts: Sequence[Tensor], like: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each whole tensor, [k]; of sharded ones by one all-reduce.

    Args:
        parts: what this process holds of each.
        like: tensors that are sharded as these are.

    Example:
        >>> values = [torch.tensor([3.0, 4.0]), torch.zeros(2)]
        >>> norms(values, like=values).tolist()
        [5.0, 0.0]
    """
    of_parts = torch.stack(torch._foreach_norm(list(parts)))
    sharded = [k for k, value in enumerate(like) if is_sharded(value)]
    if not sharded:
        return of_parts
    squares = of_parts[sharded].square()
    dist.all_reduce(squares)
    of_parts[sharded] = squares.sqrt()
    return of_parts


def chunk_of(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, sharded by rows as `like` is."""
    rank, size = world()
    rows = -(-whole.shape[0] // size)
    part = whole[min(rank * rows, len(whole)) : min((rank + 1) * rows, len(whole))]
    if part.shape != local_part(like).shape:
        raise ValueError(f"a part has the shape {tuple(part.shape)}, not {tuple(local_part(like).shape)}")
    return part


def sharded_like(whole: Tensor, like: Any) -> Tensor:
    """Shard a whole tensor as `like`, whose shape it has, is sharded."""
    from torch.distributed.tensor import DTensor

    whole = whole.contiguous()  # buffers of convolutions in channels_last are not
    part = chunk_of(whole, like).to(device=local_part(like).device, copy=True)
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def whole_tensor(value: Tensor, keep: bool = True) -> Tensor:
    """All of a sharded tensor, on the CPU; all processes call it.

    Args:
        value: sharded or not.
        keep: False gives an empty tensor, to a process that only takes part.
    """
    if not is_sharded(value):
        return value
    sharded: Any = value
    found: Tensor = sharded.detach().full_tensor()
    return found.cpu() if keep else found.new_empty(0)
