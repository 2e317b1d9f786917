"""CPLearn's loss of given scores, and its plain form, which holds many matrices of rows by codes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.networks.codes import SignDictionary


class ScoresThemselves(SignDictionary):
    """The identity in a dictionary's place: embeddings are the scores."""

    def __init__(self, count: int) -> None:
        super().__init__(1, 1, seed=0)
        self.shape = count, count

    def blocks(self, like: Tensor, width: int = 4096) -> Iterator[tuple[slice, Tensor]]:
        yield slice(0, self.shape[1]), torch.eye(self.shape[1], dtype=like.dtype)


def loss_of_scores(z: Sequence[Tensor], beta: float = 1.0, prior: str = "reverse") -> dict[str, Tensor]:
    return cplearn_loss(z, ScoresThemselves(z[0].shape[1]), 1.0, beta, prior)


def plain_loss(z: Sequence[Tensor], beta: float = 1.0, prior: str = "reverse") -> dict[str, Tensor]:
    log_p = [F.log_softmax(view, dim=1) for view in z]
    means = torch.stack([view.logsumexp(dim=0) - math.log(len(view)) for view in log_p])
    log_c = math.log(means.shape[1])
    reverse = (means.exp() * (log_c + means)).sum(dim=1).mean()
    of_prior = reverse if prior == "reverse" else -(log_c + means).mean()
    pairs = [-(log_p[b].exp() * log_p[a]).sum(dim=1).mean() for a, b in permutations(range(len(z)), 2)]
    invariance = beta * torch.stack(pairs).mean()
    return {"loss": of_prior + invariance, "prior": of_prior, "invariance": invariance}
