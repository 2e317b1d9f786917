"""Prototypes, and distributions over them as targets: Sinkhorn's, sharpened."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import mean_over_processes


class Prototypes(nn.Module):
    """Scores of rows against K directions: x @ (g v / |v|)^T, without bias.

    Args:
        dim: width d of the rows.
        count: K.
        train_gain: whether the gains g, which start at 1, are trained; the references fix them.

    Example:
        >>> Prototypes(8, 20)(torch.zeros(4, 8)).shape
        torch.Size([4, 20])
    """

    def __init__(self, dim: int, count: int, train_gain: bool = False) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.empty(count, dim))
        nn.init.kaiming_uniform_(self.v, a=5**0.5)
        self.g = nn.Parameter(torch.ones(count, 1), requires_grad=train_gain)

    @property
    def directions(self) -> Tensor:
        """Rows [K, d] of length g."""
        length: Tensor = self.v.norm(dim=1, keepdim=True)
        return self.g * self.v / length

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, d] to scores [n, K]."""
        return F.linear(x, self.directions)


@in_full_precision
def prototype_scores(prototypes: nn.Module, unit: Tensor) -> Tensor:
    """Scores [n, K] of rows [n, d] in full precision: low temperatures divide them."""
    scores: Tensor = prototypes(unit)
    return scores


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
