"""Prototypes: the weight-normalised scoring layer of SwAV and DINO."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.networks.precision import in_full_precision


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
