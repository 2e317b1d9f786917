"""Exact nearest rows of a bank, on any device and of any size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.collapse.kmeans import processor_has_bfloat16
from fullrank.collapse.moments import all_finite
from fullrank.collapse.nearest_rows import Search, by_subtraction, highest_scores, more, nearest_rows
from fullrank.errors import UsageError
from fullrank.probes.shortlist import Shortlister

Metric: TypeAlias = Literal["cosine", "l2"]
Backend: TypeAlias = Literal["auto", "plain", "faiss"]
SQUARED_SAFELY = (1e-8, 1e15)  # largest numbers of a row whose squares neither vanish nor overflow
SHORTLIST_FROM = 1 << 24  # products; below, preparing the bank costs more than it saves


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
    find = partial(_highest, backend=backend, query_chunk=query_chunk, bank_chunk=bank_chunk)
    if metric == "cosine":
        queries, bank = directions(queries), directions(bank)
        return find(queries, bank, bank.new_zeros(len(bank)), k)[:2]
    search = Search(queries, bank, dtype)
    scores, rows, shortlisted = find(search.queries, search.bank, search.offset, more(k, len(bank)))
    otherwise = nearest_rows if dtype == torch.float32 else by_subtraction
    distances, rows = search.settled(scores, rows, k, otherwise, slack=1.2 * shortlisted)
    return distances.to(queries), rows


def directions(rows: Tensor) -> Tensor:
    """Rows [n, d] of length one, whatever their scale; zeros stay.

    Example:
        >>> directions(torch.tensor([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    largest = rows.abs().amax(1, keepdim=True) if rows.shape[1] else rows.new_ones(len(rows), 1)
    usual = ((largest > SQUARED_SAFELY[0]) & (largest < SQUARED_SAFELY[1])) | (largest == 0)
    if not bool(usual.all()):
        rows = rows / torch.where(usual, 1.0, largest)  # all but exact, even of numbers below the normal ones
    return F.normalize(rows, dim=1)


def _highest(
    queries: Tensor,
    bank: Tensor,
    offset: Tensor,
    k: int,
    *,
    backend: Backend,
    query_chunk: int,
    bank_chunk: int,
) -> tuple[Tensor, Tensor, bool]:
    """The k largest `q.b + offset`, their rows, and whether a shortlist was made."""
    if backend == "faiss":
        return *_by_faiss(queries, bank, offset, k), False

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(torch.split(bank, bank_chunk), torch.split(offset, bank_chunk), strict=True)

    if backend == "plain" or not _shortlist_pays(queries, bank, k):
        return *highest_scores(queries, blocks, k, query_chunk), False
    scores, rows, proven = Shortlister(bank, offset).nearest(queries, k)
    if not bool(proven.all()):
        scores[~proven], rows[~proven] = highest_scores(queries[~proven], blocks, k, query_chunk)
    return scores, rows, True


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


def _by_faiss(queries: Tensor, bank: Tensor, offset: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest `q.b + offset` and their rows, [m, k], by the exact flat index."""
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "neighbours by faiss need an extra: pip install 'fullrank[faiss]', or take the backend auto"
        ) from error
    index = faiss.IndexFlatIP(bank.shape[1] + 1)
    index.add(torch.cat([bank, offset[:, None]], dim=1).cpu().float().numpy())
    ones = queries.new_ones(len(queries), 1)
    scores, rows = index.search(torch.cat([queries, ones], dim=1).cpu().float().numpy(), k)
    return torch.from_numpy(scores).to(bank), torch.from_numpy(rows).to(bank.device)
