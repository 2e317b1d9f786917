"""Exact nearest rows: products find candidates, subtraction measures them.

`|q - b|^2 = |q|^2 - 2 (q.b - |b|^2 / 2)` costs one matrix product, but its rounding is that of |q|^2 and
|b|^2: beside a common offset, or rows a million times larger, it names the wrong neighbours. So some more
than k rows with the largest scores `q.b - |b|^2 / 2` are measured by subtraction, in double precision, and
the error of all other scores is bounded (Higham 2002, section 3.1). Where a row that was passed over may be
nearer than the k-th, the query is searched again in double precision, and where that does not settle it, by
subtraction alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor

EXTRA = 8  # candidates beyond k, so that there is a gap between the k-th and what was passed over
AT_ONCE = 1 << 17  # numbers subtracted at a time, while they are in a cache
_SAMPLE = 256  # rows that the middle is found from
_BANK, _QUERIES = 16384, 1024  # rows at a time


def nearest_rows(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest bank rows of every query, by products and subtraction.

    Args:
        queries: [m, d], finite.
        bank: [n, d], finite, on the same device.
        k: neighbours, from 1 to n.

    Returns:
        Distances float64 [m, k], ascending, and bank row numbers int64 [m, k].

    Example:
        >>> nearest_rows(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)[1].tolist()
        [[1, 0]]
    """
    if bank.device.type == "mps":
        queries, bank = queries.cpu(), bank.cpu()
    search = Search(queries, bank, torch.float64)
    return search.settled(*search.candidates(k), k, by_subtraction)


class Search:
    """Rows less a common one, for products in a given precision.

    Args:
        queries: [m, d], finite.
        bank: [n, d], finite, on the same device.
        dtype: of the products: single or double precision.

    Attributes:
        queries: less the middle of the bank.
        offset: [n], `-|b|^2 / 2`, and above that by what a score of b may be too small: near is where q.b +
            offset is large.
    """

    def __init__(self, queries: Tensor, bank: Tensor, dtype: torch.dtype) -> None:
        self._queries, self._bank = queries, bank
        self.dtype, self.middle = dtype, middle_of(bank)
        self.queries = queries.to(dtype) - self.middle
        self.rounding = torch.finfo(dtype).eps / 2
        if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
            self.rounding = 2.0**-8  # products may be made of bfloat16
        self.error = (bank.shape[1] + 8) * self.rounding  # of a sum of d products
        # A product's error is at most `error (|q|^2 + 2 |b|^2) / 2`; the part of b raises its own score.
        squares = torch.cat([rows.square().sum(1) for rows in self._blocks()])
        self.offset = (2 * self.error - 0.5) * squares

    @cached_property
    def bank(self) -> Tensor:
        """[n, d], the bank less its middle."""
        return self._bank.to(self.dtype) - self.middle

    def candidates(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and rows [m, k + some more] that score highest."""
        return highest_scores(self.queries, self.blocks, more(k, len(self._bank)), _QUERIES)

    def blocks(self, size: int = _BANK) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of the bank less its middle, and their offset, some at a time."""
        return zip(self._blocks(size), torch.split(self.offset, size), strict=True)

    def _blocks(self, size: int = _BANK) -> Iterator[Tensor]:
        if self._bank.dtype == self.dtype:
            yield from torch.split(self.bank, size)
        else:  # a copy of all in double precision may be more than there is room for
            for rows in torch.split(self._bank, size):
                yield rows.to(self.dtype) - self.middle

    def settled(
        self,
        scores: Tensor,
        rows: Tensor,
        k: int,
        otherwise: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
        slack: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Distances and rows [m, k]: of candidates where proven, else `otherwise`.

        The k best candidates are measured in the precision of the products; where the next ones may be
        nearer, all of them in double precision.

        Args:
            scores: [m, c], of the candidates, descending.
            rows: [m, c], of the bank.
            k: neighbours, below c, or equal where that is the whole bank.
            otherwise: searches the queries that are left.
            slack: by how much the candidates' own rounding may have hidden better ones, in units of
                `error (|q| + distance)^2`.
        """
        if len(self._bank) == k:
            return self._measured(rows, slice(None), torch.float64)
        distance, found = self._measured(rows[:, :k], slice(None), self.dtype)
        doubtful = ~self._proven(scores[:, k], distance[:, -1], distance[:, -1], slack, slice(None))
        if bool(doubtful.any()):  # the next candidates may be nearer
            left = doubtful.nonzero()[:, 0].to(rows.device)
            again, again_found = self._measured(rows[left], left, torch.float64)
            if rows.shape[1] < len(self._bank):
                proven = self._proven(scores[left, -1], again[:, k - 1], again[:, -1], slack, left)
                if not bool(proven.all()):
                    lost = (~proven).to(rows.device)
                    nearer, nearer_found = otherwise(self._queries[left[lost]], self._bank, k)
                    again[~proven, :k] = nearer.to(again)
                    again_found[lost, :k] = nearer_found.to(rows)
            distance[left] = again[:, :k].to(distance)
            found[left] = again_found[:, :k]
        return distance, found

    def _measured(self, rows: Tensor, which: Tensor | slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Distances [., c] of some queries from their candidates, by subtraction."""
        queries = self._queries[which]
        step = max(1, AT_ONCE // (rows.shape[1] * self._bank.shape[1]))
        found = []
        for chunk, row in zip(torch.split(queries, step), torch.split(rows, step), strict=True):
            near, own = self._bank[row], chunk[:, None]
            if dtype == torch.float64:
                near, own = in_double(near), in_double(own)
            found.append(torch.linalg.vector_norm(near - own, dim=2))
        distance, order = torch.sort(torch.cat(found), dim=1, stable=True)
        return distance, rows.gather(1, order.to(rows.device))

    def _proven(
        self, worst: Tensor, distance: Tensor, last: Tensor, slack: float, which: Tensor | slice
    ) -> Tensor:
        """Whether no row of a lower score is nearer than the distance, [.].

        Args:
            worst: [.], the highest score of those that were not measured, or the lowest of those that were.
            distance: [.], of the k-th of those that were.
            last: [.], of the farthest.
            slack: see `settled`.
            which: queries they belong to.
        """
        worst, distance, last = (in_double(part) for part in (worst, distance, last))
        square = squared_lengths(self.queries[which])
        error = self.error * (square / 2 + slack * (square.sqrt() + last).square())
        kind = torch.finfo(self.dtype)
        underflown = self._bank.shape[1] * kind.tiny  # products too small to be counted
        least = (square - 2 * (worst + error) - underflown).clamp_min(0).sqrt()
        # that of the rows less their middle, each of which was rounded
        least = (1 - 2 * self.rounding) * least - 2 * self.rounding * square.sqrt()
        sure = distance > 2**10 * kind.tiny**0.5  # below, its own square may have vanished
        proven: Tensor = sure & ((1 + self.error) * distance <= least)
        return proven


def more(k: int, n: int) -> int:
    """Candidates for k neighbours of n rows."""
    return min(n, k + EXTRA + k // 8)


def middle_of(bank: Tensor) -> Tensor:
    """[d], the median of a sample of rows: near most of them, however far a few are."""
    sample = bank[:: -(-len(bank) // _SAMPLE)]
    return sample.median(0).values


def in_double(rows: Tensor) -> Tensor:
    """Rows in double precision, on a device that has it."""
    return (rows.cpu() if rows.device.type == "mps" else rows).double()


def squared_lengths(rows: Tensor) -> Tensor:
    """[n], of rows [n, d], in double precision."""
    found = [in_double(part).square().sum(1) for part in torch.split(rows, 1024)]
    return torch.cat(found) if found else in_double(rows).sum(1)


def highest_scores(
    queries: Tensor, blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]], k: int, query_chunk: int
) -> tuple[Tensor, Tensor]:
    """The k largest `q.b + offset` of every query and their rows, [m, k], descending.

    Args:
        queries: [m, d].
        blocks: yields the bank [., d] and the offset [.] in order, for every chunk.
        k: at most the rows of the bank.
        query_chunk: queries at a time.
    """
    scores, rows = [queries.new_empty(0, k)], [torch.empty(0, k, dtype=torch.long, device=queries.device)]
    for chunk in torch.split(queries, query_chunk):
        best = chunk.new_empty(len(chunk), 0)
        best_row = torch.empty(len(chunk), 0, dtype=torch.long, device=chunk.device)
        start = 0
        for block, offset in blocks():
            score, row = torch.addmm(offset, chunk, block.T).topk(min(k, len(block)), dim=1)
            best, best_row = torch.cat([best, score], dim=1), torch.cat([best_row, row + start], dim=1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            best_row = best_row.gather(1, order)
            start += len(block)
        scores.append(best)
        rows.append(best_row)
    return torch.cat(scores), torch.cat(rows)


def by_subtraction(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest bank rows by subtraction; a repeated row is measured once."""
    distinct, place, counts = torch.unique(bank, dim=0, return_inverse=True, return_counts=True)
    grouped, ends = place.argsort(stable=True), counts.cumsum(0)
    step = max(1, AT_ONCE // len(distinct))
    distances, rows = [], []
    for chunk in torch.split(in_double(queries), step):
        apart = torch.cdist(chunk, in_double(distinct), compute_mode="donot_use_mm_for_euclid_dist")
        distance, group = apart.topk(min(k, len(distinct)), largest=False)
        # The j-th neighbour is one of the first group that reaches up to j.
        reached = counts[group].cumsum(1)
        wanted = torch.arange(k, device=reached.device).expand(len(chunk), k).contiguous()
        which = torch.searchsorted(reached, wanted, right=True)
        first = ends[group] - reached  # less what came before: the place of the j-th is first + j
        distances.append(distance.gather(1, which))
        rows.append(grouped[first.gather(1, which) + wanted])
    return torch.cat(distances), torch.cat(rows)
