"""Exact nearest neighbours by way of a shortlist in bfloat16.

bfloat16 products are two to eight times as fast as single-precision ones where the processor has them, but
they name other neighbours. Here they only rule rows out. With q', b' the rows less the bank's mean, and a hat
for what is left of them in bfloat16, the triangle and the Cauchy-Schwarz inequality give

    |q'.b' - q^.b^|  <=  |q' - q^| max|b'| + |q^| max|b' - b^|  =: E.

k rows score at least t, so the k-th best lies at or above t - E, and whatever scores below t - 2E cannot be
among the k nearest. What is left, some tens of rows, is scored again in full. Where the bound rules out too
little, the query is handed back for the plain way.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

GROUP = 32  # columns whose maximum is taken first
MOST = 16  # a query with more than 16 k groups left is handed back
QUERIES, SCORES = 256, 1 << 26  # queries, and their scores, at a time
ROWS = 2048  # of the bank at a time, while it is prepared
ROUNDED = 2.0**-8  # relative error of a number rounded or cut to bfloat16
SINGLE = 2.0**-23  # and twice that of single precision


class Shortlister:
    """A bank prepared for many queries, which are ranked by `q.b + offset[b]`.

    Args:
        bank: float32 [n, d] on the CPU.
        offset: float32 [n]; -|b|^2 / 2 ranks by the distance.

    Example:
        >>> bank = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
        >>> _, rows, proven = Shortlister(bank, -bank.square().sum(1) / 2).nearest(bank[:3], k=2)
        >>> rows[:, 0].tolist(), proven.tolist()
        ([0, 1, 2], [True, True, True])
    """

    def __init__(self, bank: Tensor, offset: Tensor) -> None:
        self.bank, self.offset = bank, offset
        n, d = bank.shape
        self.groups = -(-n // GROUP)
        self.mean = bank.mean(0)
        half = torch.zeros(self.groups * GROUP, d + 2, dtype=torch.bfloat16)
        along = torch.empty(n, dtype=torch.float64)  # [n], mean.b'
        self.largest = self.lost = 0.0
        for start in range(0, n, ROWS):
            centred = bank[start : start + ROWS] - self.mean
            kept = half[start : start + len(centred), :d].copy_(centred)
            along[start : start + ROWS] = centred @ self.mean
            self.largest = max(self.largest, float(centred.norm(dim=1).max()))
            self.lost = max(self.lost, float(centred.sub_(kept).norm(dim=1).max()))
        along += offset  # q.b = q'.b' + mean.b' + what all rows share
        along -= along.mean()
        half[:n, d] = along  # in two parts, which the query meets with ones
        half[:n, d + 1] = along - half[:n, d]
        half[n:, d] = -1e30  # rows that fill the last group are never near
        self.offset_lost = float((along - half[:n, d].double() - half[:n, d + 1]).abs().max())
        self.rounding = (d + 16) * SINGLE  # of a sum of d + 2 products, in units of the lengths multiplied
        self.rounded = self.largest * float(self.mean.norm()) + float(along.abs().max())
        self.half = half.T

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [m, k], row numbers [m, k], and whether they were proven [m].

        Scores and rows of a query that were not proven hold nothing of use.
        """
        at_once = max(16, min(QUERIES, SCORES // self.half.shape[1]))
        found = [self._nearest(chunk, k) for chunk in torch.split(queries, at_once)]
        scores, rows, proven = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores, rows, proven

    def _nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        m, d = queries.shape
        centred = queries - self.mean
        half = torch.ones(m, d + 2, dtype=torch.bfloat16)
        half[:, :d] = centred
        length = half[:, :d].float().norm(dim=1)
        error = (centred - half[:, :d]).norm(dim=1) * self.largest + length * self.lost + self.offset_lost
        error += self.rounding * (length * self.largest + self.rounded)
        # The bits of positive numbers are ordered as whole numbers are, whose maximum is six times as fast.
        scores = (half @ self.half).view(torch.int16)
        best = scores.view(m, GROUP, self.groups).amax(1)
        reached = best.view(torch.bfloat16).topk(k, dim=1).values[:, -1].float()
        cut = (reached * (1 - ROUNDED) - 2 * error) * (1 - ROUNDED)
        bits = (cut.view(torch.int32) >> 16).to(torch.int16)[:, None]  # rounded down
        left = best >= bits
        proven = (cut > torch.finfo(torch.bfloat16).tiny) & (left.sum(1) <= MOST * k)
        query, group = (left & proven[:, None]).nonzero(as_tuple=True)
        columns = group[:, None] + torch.arange(0, GROUP * self.groups, self.groups)
        pair, place = (scores[query[:, None], columns] >= bits[query]).nonzero(as_tuple=True)
        return *self._ranked(queries, query[pair], columns[pair, place], k), proven

    def _ranked(self, queries: Tensor, query: Tensor, row: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and rows [m, k] of the k best pairs of every query."""
        count = torch.bincount(query, minlength=len(queries))
        ends = count.cumsum(0)
        place = torch.arange(len(query)) - (ends - count)[query]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that sparse tensors are new
            pairs = torch.sparse_csr_tensor(
                torch.cat([ends.new_zeros(1), ends]), row, self.offset[row], (len(queries), len(self.bank))
            )
            score = torch.sparse.sampled_addmm(pairs, queries, self.bank.T).values()
        widest = max(k, int(count.max()))
        table = torch.full((len(queries), widest), -torch.inf)
        rows = torch.zeros(len(queries), widest, dtype=torch.long)
        table[query, place], rows[query, place] = score, row
        best, order = table.topk(k, dim=1)
        return best, rows.gather(1, order)
