"""Exact nearest rows of a bank, on any device and of any size."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.collapse.kmeans import processor_has_bfloat16
from fullrank.collapse.moments import all_finite
from fullrank.errors import UsageError
from fullrank.probes.shortlist import Shortlister

Metric: TypeAlias = Literal["cosine", "l2"]
Backend: TypeAlias = Literal["auto", "plain", "faiss"]
SHORTLIST_FROM = 1 << 24  # products; below, preparing the bank costs more than it saves
AT_ONCE = 1 << 22  # numbers gathered at a time


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    metric: Metric = "cosine",
    *,
    query_chunk: int = 1024,
    bank_chunk: int = 16384,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """The k nearest bank rows of every query, exactly.

    Both sides are chunked: at most query_chunk x (bank_chunk + k) similarities exist at a time. Works in the
    precision of the inputs, at least single. All backends name the same rows, up to rounding where two are
    equally near: "auto" lets bfloat16 products rule most rows out first where the processor has them, with a
    proof (`shortlist`).

    Args:
        queries: [m, d].
        bank: [n, d], on the same device.
        k: neighbours, at most n.
        metric: "cosine", where a row of zeros is at right angles to all, or "l2".
        query_chunk: rows of queries at a time.
        bank_chunk: rows of the bank at a time.
        backend: "auto", "plain", or "faiss": its flat index, an extra, for banks of millions on many cores.

    Returns:
        Cosine similarities [m, k], descending, or distances, ascending; and bank row numbers int64 [m, k].

    Raises:
        UsageError: k is not in [1, n], the widths differ, a value is not finite, an unknown metric or
            backend, or faiss is asked for and not installed.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> nearest(torch.tensor([[2.0, 0.1]]), bank, k=2)[1]
        tensor([[0, 1]])
        >>> nearest(torch.tensor([[2.0, 0.0]]), bank, k=1, metric="l2")[0]
        tensor([[1.]])
    """
    _check(queries, bank, k, metric, backend)
    dtype = torch.promote_types(torch.promote_types(queries.dtype, bank.dtype), torch.float32)
    queries, bank = queries.detach().to(dtype), bank.detach().to(dtype)
    if metric == "cosine":
        queries, bank = F.normalize(queries, dim=1), F.normalize(bank, dim=1)
        offset = bank.new_zeros(len(bank))
    else:
        mean = bank.mean(0)
        queries, bank = queries - mean, bank - mean  # the same distances, fewer digits lost
        offset = bank.square().sum(1) / -2
    # from here on, near is where q.b + offset is large
    if backend == "faiss":
        scores, rows = _by_faiss(queries, bank, k, metric)
    elif backend == "auto" and _shortlist_pays(queries, bank, k):
        scores, rows, proven = Shortlister(bank, offset).nearest(queries, k)
        if not bool(proven.all()):
            again = _plain(queries[~proven], bank, offset, k, query_chunk, bank_chunk)
            scores[~proven], rows[~proven] = again
    else:
        scores, rows = _plain(queries, bank, offset, k, query_chunk, bank_chunk)
    return (scores, rows) if metric == "cosine" else _by_distance(queries, bank, rows)


def _check(queries: Tensor, bank: Tensor, k: int, metric: str, backend: str) -> None:
    if metric not in ("cosine", "l2") or backend not in ("auto", "plain", "faiss"):
        raise UsageError(
            f"neighbours by {metric!r} and {backend!r}: take cosine or l2, and auto, plain or faiss"
        )
    if queries.ndim != 2 or bank.ndim != 2:
        raise UsageError(
            f"queries and bank are matrices [rows, d], not {list(queries.shape)} and {list(bank.shape)}"
        )
    if not 1 <= k <= len(bank):
        raise UsageError(f"k = {k} neighbours of a bank of {len(bank)}: take k between 1 and {len(bank)}")
    if queries.shape[1] != bank.shape[1]:
        raise UsageError(f"queries have {queries.shape[1]} dimensions, the bank has {bank.shape[1]}")
    for name, rows in (("queries", queries), ("bank", bank)):
        if not all_finite(rows):
            raise UsageError(f"the {name} hold values that are not finite (NaN or infinite)")


def _shortlist_pays(queries: Tensor, bank: Tensor, k: int) -> bool:
    return (
        bank.device.type == "cpu"
        and bank.dtype == torch.float32
        and len(bank) >= 64 * k
        and len(queries) * len(bank) >= SHORTLIST_FROM
        and processor_has_bfloat16()
    )


def _plain(
    queries: Tensor, bank: Tensor, offset: Tensor, k: int, query_chunk: int, bank_chunk: int
) -> tuple[Tensor, Tensor]:
    scores, rows = [queries.new_empty(0, k)], [torch.empty(0, k, dtype=torch.long, device=bank.device)]
    for chunk in torch.split(queries, query_chunk):
        best = chunk.new_empty(len(chunk), 0)
        best_row = torch.empty(len(chunk), 0, dtype=torch.long, device=chunk.device)
        for start in range(0, len(bank), bank_chunk):
            block = bank[start : start + bank_chunk]
            products = torch.addmm(offset[start : start + bank_chunk], chunk, block.T)
            score, row = products.topk(min(k, len(block)), dim=1)
            best, best_row = torch.cat([best, score], dim=1), torch.cat([best_row, row + start], dim=1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            best_row = best_row.gather(1, order)
        scores.append(best)
        rows.append(best_row)
    return torch.cat(scores), torch.cat(rows)


def _by_faiss(queries: Tensor, bank: Tensor, k: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """Products or squared distances [m, k] and rows, by the exact flat index."""
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


def _by_distance(queries: Tensor, bank: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [m, k] by subtraction, and the rows in their order."""
    step = max(1, AT_ONCE // (rows.shape[1] * bank.shape[1]))
    distances = [queries.new_empty(0, rows.shape[1])]
    for chunk, row in zip(torch.split(queries, step), torch.split(rows, step), strict=True):
        distances.append(torch.linalg.vector_norm(bank[row] - chunk[:, None], dim=2))
    distance, order = torch.sort(torch.cat(distances), dim=1, stable=True)
    return distance, rows.gather(1, order)
