"""Distributions as targets: cross-entropy, Sinkhorn's iteration, centre."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import mean_over_processes


@in_full_precision
def cross_entropy(scores: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over rows of -sum_k q_k log softmax(s / T)_k, in nats.

    Of scores s and targets q [n, K], whose rows sum to one; detach them where they are constants.

    Example:
        >>> round(cross_entropy(torch.zeros(3, 4), torch.eye(4)[:3]).item(), 4)  # log 4
        1.3863
    """
    return -(targets * torch.log_softmax(scores / temperature, dim=1)).sum(dim=1).mean()


@in_full_precision
def sharpen(scores: Tensor, temperature: float, centre: Tensor | None = None) -> Tensor:
    """softmax((s - c) / T), row by row: DINO's (2104.14294) teacher distribution.

    Of scores s [n, K] and a centre c [1, K], or none; a temperature T below 1 sharpens.

    Example:
        >>> sharpen(torch.tensor([[0.0, 2.0]]), 1.0, centre=torch.tensor([[0.0, 2.0]])).tolist()
        [[0.5, 0.5]]
    """
    return torch.softmax((scores if centre is None else scores - centre) / temperature, dim=1)


@torch.no_grad()
def move_centre(centre: Tensor, scores: Iterable[Tensor], momentum: float) -> None:
    """Average in place: c [1, K] <- m c + (1 - m) mean of all views' rows [n, K].

    Example:
        >>> centre = torch.zeros(1, 2)
        >>> move_centre(centre, [torch.ones(4, 2)], momentum=0.75)
        >>> centre.tolist()
        [[0.25, 0.25]]
    """
    rows = torch.cat([view.detach() for view in scores]).to(centre.dtype)
    centre.lerp_(mean_over_processes(rows.mean(dim=0, keepdim=True)), 1.0 - momentum)


@torch.no_grad()
@in_full_precision
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Balanced assignments by Sinkhorn's iteration (2006.09882, eq. 3; 1306.0895).

    Starts from exp(s / epsilon) and in turn makes all columns weigh the same, then all rows sum to one, in
    logarithms, so that nothing overflows or is divided by zero. Columns are balanced up to what few
    iterations leave.

    Args:
        scores: s [n, K], of the global batch.
        epsilon: entropy of the assignments [n, K]: small ones are hard.
        iterations: at least 1.

    Example:
        >>> sinkhorn(torch.tensor([[9.0, 1.0], [9.0, 0.0]])).round().tolist()  # both prefer the first column
        [[0.0, 1.0], [1.0, 0.0]]
    """
    log = scores / epsilon
    for _ in range(iterations):
        log = log - log.logsumexp(dim=0, keepdim=True)
        log = log - log.logsumexp(dim=1, keepdim=True)
    return log.exp()
