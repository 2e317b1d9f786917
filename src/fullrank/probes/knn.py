"""k nearest neighbours: what a frozen representation says about labels, without any training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.errors import UsageError

__all__ = ["knn_predict", "nearest"]


def nearest(
    queries: Tensor, bank: Tensor, k: int, *, query_chunk: int = 1024, bank_chunk: int = 16384
) -> tuple[Tensor, Tensor]:
    """The k most similar bank rows of every query, exactly, by cosine similarity.

    Both sides are chunked: at most query_chunk x (bank_chunk + k) similarities exist at a time.

    Args:
        queries: [m, d].
        bank: [n, d], on the same device.
        k: neighbours, at most n.
        query_chunk: rows of queries at a time.
        bank_chunk: rows of the bank at a time.

    Returns:
        Similarities [m, k], descending, and bank row numbers [m, k].

    Raises:
        UsageError: k is not in [1, n], or the widths differ.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> nearest(torch.tensor([[2.0, 0.1]]), bank, k=2)[1]
        tensor([[0, 1]])
    """
    if not 1 <= k <= len(bank):
        raise UsageError(f"k = {k} neighbours of a bank of {len(bank)}: take k between 1 and {len(bank)}")
    if queries.shape[1] != bank.shape[1]:
        raise UsageError(f"queries have {queries.shape[1]} dimensions, the bank has {bank.shape[1]}")
    queries = F.normalize(queries.float(), dim=1)
    bank = F.normalize(bank.float(), dim=1)
    similarities, rows = [], []
    for chunk in torch.split(queries, query_chunk):
        best_sim = chunk.new_empty(len(chunk), 0)
        best_row = torch.empty(len(chunk), 0, dtype=torch.long, device=chunk.device)
        for start in range(0, len(bank), bank_chunk):
            block = bank[start : start + bank_chunk]
            sim, row = (chunk @ block.T).topk(min(k, len(block)), dim=1)
            best_sim = torch.cat([best_sim, sim], dim=1)
            best_row = torch.cat([best_row, row + start], dim=1)
            best_sim, order = best_sim.topk(min(k, best_sim.shape[1]), dim=1)
            best_row = best_row.gather(1, order)
        similarities.append(best_sim)
        rows.append(best_row)
    return torch.cat(similarities), torch.cat(rows)


def knn_predict(
    queries: Tensor, bank: Tensor, bank_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Labels by a vote of the k nearest bank rows, weighted by exp(cosine / temperature).

    The weighting is that of Wu et al. (1805.01978), section 3.4, which DINO and solo-learn share.

    Args:
        queries: features [m, d].
        bank: features [n, d] of labelled images.
        bank_labels: int64 [n], non-negative.
        k: neighbours; where the bank is smaller, all of it votes.
        temperature: of the weights, positive.

    Returns:
        Predicted labels int64 [m].

    Example:
        >>> bank, labels = torch.eye(3), torch.tensor([4, 5, 6])
        >>> knn_predict(torch.tensor([[0.1, 0.9, 0.0]]), bank, labels, k=1)
        tensor([5])
    """
    similarity, rows = nearest(queries, bank, min(k, len(bank)))
    weights = (similarity / temperature).exp()
    votes = weights.new_zeros(len(queries), int(bank_labels.max()) + 1)
    votes.scatter_add_(1, bank_labels[rows], weights)
    return votes.argmax(dim=1)
