"""Momentum (EMA) copies of networks: the target branch of BYOL and its relatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_momentum(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Average parameters in place: target <- tau * target + (1 - tau) * online.

    Buffers are left alone: the target runs in training mode and keeps BatchNorm statistics of its own,
    as the reference implementations have it.

    Example:
        >>> online, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(online.weight), nn.init.zeros_(target.weight)
        >>> update_momentum(target, online, tau=0.75)
        >>> round(target.weight.item(), 4)
        0.25
    """
    ours: list[Tensor] = list(target.parameters())
    theirs: list[Tensor] = list(online.parameters())
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
