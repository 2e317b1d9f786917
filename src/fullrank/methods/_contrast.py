"""Contrastive losses: NT-Xent over all rows, InfoNCE from view to view.

Under torch.distributed both take this process's rows and contrast them with the rows of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import gather_rows, world

__all__ = ["info_nce", "nt_xent"]


@in_full_precision
def nt_xent(z: Tensor, index: Tensor, temperature: float = 0.2) -> Tensor:
    """NT-Xent (2002.05709, equation 1): find a row's positives among all others.

    mean_i [ log sum_{k != i} exp(s_ik) - log sum_{j in P(i)} exp(s_ij) ], where s is the cosine over the
    temperature and P(i) the other rows with i's index. At least 0; 0 for a row without negatives. Sums are
    taken relative to their largest term, so that any temperature is safe.

    Args:
        z: rows of all views [m, d]; normalised here.
        index: [m], which image a row shows, the same number in no two processes; each occurs at least twice.
        temperature: positive.

    Example:
        >>> z = torch.eye(2).repeat(2, 1)
        >>> round(nt_xent(z, torch.tensor([0, 1, 0, 1]), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    z, index = gather_rows(F.normalize(z, dim=1)), gather_rows(index)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similar = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    other_image = index[:, None] != index[None]
    positives = similar.masked_fill(other_image, -torch.inf).logsumexp(dim=1)
    return (similar.logsumexp(dim=1) - positives).mean()


@in_full_precision
def info_nce(q: Tensor, k: Tensor, temperature: float = 0.2) -> Tensor:
    """InfoNCE (1807.03748): cross-entropy of finding a query's key among all keys.

    mean_i [ log sum_j exp(cos(q_i, k_j) / T) - cos(q_i, k_i) / T ], at least 0. Unlike in NT-Xent, queries do
    not meet each other. Under torch.distributed this is the mean over this process's queries.

    Args:
        q: queries [n, d]; normalised here.
        k: keys [n, d], row-aligned with the queries; normalised here; detach them where they are targets.
        temperature: T, positive.

    Example:
        >>> round(info_nce(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)  # log(1 + 1/e)
        0.3133
    """
    keys = gather_rows(F.normalize(k, dim=1))
    own = torch.arange(len(q), device=q.device) + world()[0] * len(q)
    return F.cross_entropy(F.normalize(q, dim=1) @ keys.T / temperature, own)
