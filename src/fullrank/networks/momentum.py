"""Momentum (EMA) copies of networks, and a queue of recent embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fullrank.networks.processes import gather_rows
from fullrank.networks.sharded import local_parts


@torch.no_grad()
def update_momentum(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Average parameters in place: target <- tau * target + (1 - tau) * online.

    Buffers are left alone: the target runs in training mode and keeps BatchNorm statistics of its own,
    as the reference implementations have it. Frozen parameters are left alone as well.

    Example:
        >>> online, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(online.weight), nn.init.zeros_(target.weight)
        >>> update_momentum(target, online, tau=0.75)
        >>> round(target.weight.item(), 4)
        0.25
    """
    pairs = zip(target.parameters(), online.parameters(), strict=True)
    trained = [(own, other) for own, other in pairs if other.requires_grad]
    ours = local_parts(own for own, _ in trained)  # of sharded ones, which are sharded alike
    theirs = local_parts(other for _, other in trained)
    if ours:  # a part may have none
        torch._foreach_mul_(ours, tau)
        torch._foreach_add_(ours, theirs, alpha=1.0 - tau)


def cosine_tau(base: float, final: float, progress: float) -> float:
    """Averaging coefficient after a share `progress` of a run (2006.07733, 3.2).

    tau = final - (final - base) * (cos(pi * progress) + 1) / 2: `base` at the start, `final` at the end.

    Example:
        >>> cosine_tau(0.99, 1.0, 0.0), cosine_tau(0.99, 1.0, 1.0)
        (0.99, 1.0)
    """
    return final - (final - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


class Queue(nn.Module):
    """The last `size` rows of all processes, newest first, in the buffer `rows`.

    Args:
        size: rows kept.
        dim: d.
        random: start with random unit rows instead of zeros.

    Example:
        >>> queue = Queue(4, 2)
        >>> queue.push(torch.ones(3, 2))
        >>> queue.rows.sum(dim=1).tolist()
        [2.0, 2.0, 2.0, 0.0]
    """

    rows: Tensor

    def __init__(self, size: int, dim: int, random: bool = False) -> None:
        super().__init__()
        rows = nn.functional.normalize(torch.randn(size, dim), dim=1) if random else torch.zeros(size, dim)
        self.register_buffer("rows", rows)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put the rows [n, d] of all processes in front, and drop as many at the end."""
        new = gather_rows(rows.detach()).to(self.rows.dtype)
        self.rows = torch.cat([new, self.rows])[: len(self.rows)]
