"""Neighbours by faiss, an extra: the flat index, which is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.errors import UsageError

__all__ = ["nearest_by_faiss"]


def nearest_by_faiss(queries: Tensor, bank: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Products or squared distances [m, k] and row numbers, nearest first.

    Args:
        queries: [m, d].
        bank: [n, d]; unit rows, like the queries, for the metric cosine.
        k: neighbours.
        metric: "cosine" or "l2".

    Raises:
        UsageError: faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "neighbours by faiss need an extra: pip install 'fullrank[faiss]', or take the backend auto"
        ) from error
    index = faiss.IndexFlatIP(bank.shape[1]) if metric == "cosine" else faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.cpu().float().numpy())
    scores, rows = index.search(queries.cpu().float().numpy(), k)
    return torch.from_numpy(scores).to(bank), torch.from_numpy(rows).to(bank.device)
