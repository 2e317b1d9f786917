"""Processes that measure together, and the tensors that they hand each other.

All collectives of the measures are here: of tensors, never of pickled objects, and each bounded in memory.
Without a process group there is one process, and every call hands back what it was given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Group: TypeAlias = "dist.ProcessGroup | None"
PIVOTS = 256  # by which a search for a quantile narrows down at a time
AT_ONCE = 1 << 26  # bytes that a gathering of rows puts on the way at a time
PATIENCE = timedelta(hours=12)  # others may read on for long; a dead one is seen at once
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX} if (
    dist.is_available()
) else {}  # fmt: skip


def in_group() -> bool:
    """Whether this process is one of several that add up what they see."""
    return dist.is_available() and dist.is_initialized()


class Peers:
    """The processes of a group.

    Args:
        group: whose collectives are used; None is the default group, where there is one.
        alone: whether this process measures by itself, whatever group there is.

    Example:
        >>> peers = Peers()
        >>> peers.rank, peers.size, peers.gather_rows(torch.eye(2)).tolist(), peers.tell({"n": 3})
        (0, 1, [[1.0, 0.0], [0.0, 1.0]], [{'n': 3}])
    """

    def __init__(self, group: Group = None, alone: bool = False) -> None:
        self.group, self.alone = group, alone

    @property
    def size(self) -> int:
        """How many processes there are."""
        return dist.get_world_size(self.group) if not self.alone and in_group() else 1

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        return dist.get_rank(self.group) if not self.alone and in_group() else 0

    def reduce(self, value: Tensor, by: Literal["sum", "min", "max"] = "sum") -> Tensor:
        """Sum, least or largest of `value`, of one shape everywhere, over processes."""
        if self.size == 1:
            return value
        reduced = self._sent(value)
        dist.all_reduce(reduced, _OPERATIONS[by], self.group)
        return reduced.to(value.device)

    def sums(self, *counts: float) -> list[float]:
        """Sums of a few numbers over processes, by one collective."""
        return self.reduce(torch.tensor(counts, dtype=torch.float64)).tolist()

    def gather(self, value: Tensor) -> Tensor:
        """`value`, of one shape [...] everywhere, of all processes: [size, ...] by rank."""
        if self.size == 1:
            return value[None]
        sent = self._sent(value).reshape(1, -1)
        found = sent.new_empty(self.size, sent.shape[1])
        dist.all_gather_into_tensor(found, sent, self.group)
        return found.reshape(self.size, *value.shape).to(value.device)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows [b, ...] of all processes by rank, whose numbers b may differ.

        Besides the result at most 64 MB, or a row of each process, are on the way at a time.
        """
        if self.size == 1:
            return rows
        counts = self.gather(torch.tensor(len(rows))).tolist()
        starts = [sum(counts[:rank]) for rank in range(self.size)]
        whole = rows.new_empty(sum(counts), *rows.shape[1:])
        width = max(rows[:1].numel() if len(rows) else int(torch.tensor(rows.shape[1:]).prod()), 1)
        step = max(1, AT_ONCE // (self.size * width * rows.element_size()))
        for first in range(0, max(counts), step):
            most = min(step, max(counts) - first)
            part = rows.new_zeros(most, *rows.shape[1:])
            own = rows[first : first + most]
            part[: len(own)] = own
            for rank, found in enumerate(self.gather(_as_bytes(part))):
                there = min(max(counts[rank] - first, 0), most)
                begin = starts[rank] + first
                if there:
                    whole[begin : begin + there] = found.view(rows.dtype).reshape(part.shape)[:there]
        return whole

    def from_rank(self, value: Tensor, rank: int) -> Tensor:
        """The `value` of one process, of one shape everywhere, on all of them."""
        if self.size == 1:
            return value
        sent = self._sent(value)
        source = rank if self.group is None else dist.get_global_rank(self.group, rank)
        dist.broadcast(sent, source, self.group)
        return sent.to(value.device)

    def exchange(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Hand out rows [b, ...], `counts` to each process; return this one's."""
        if self.size == 1:
            return rows
        sent, lengths = self._sent(rows), self._sent(torch.tensor(counts))
        coming = torch.empty_like(lengths)
        dist.all_to_all_single(coming, lengths, group=self.group)
        found = sent.new_empty(int(coming.sum()), *rows.shape[1:])
        dist.all_to_all_single(found, sent, coming.tolist(), list(counts), group=self.group)
        return found.to(rows.device)

    def tell(self, words: Any) -> list[Any]:
        """What every process says, a few words that JSON can say, by rank."""
        if self.size == 1:
            return [words]
        text = torch.frombuffer(bytearray(json.dumps(words).encode()), dtype=torch.uint8)
        lengths = self.gather(torch.tensor(len(text))).tolist()
        whole, ends = self.gather_rows(text), [0]
        for length in lengths:
            ends.append(ends[-1] + length)
        parts = (whole[start:end].numpy().tobytes() for start, end in pairwise(ends))
        return [json.loads(part) for part in parts]

    def kth_smallest(self, own: Tensor, k: int) -> float:
        """The value with k smaller ones among the numbers of all processes.

        Args:
            own: float64 [n], this process's, not negative and finite.
            k: from 0, below the number of all.

        Example:
            >>> Peers().kth_smallest(torch.tensor([3.0, 0.0, 1.5]).double(), 1)
            1.5
        """
        if self.size == 1:
            return float(own.kthvalue(k + 1).values)
        bits = own.cpu().sort().values.view(torch.int64)  # in the order of the numbers, as none is negative
        low = 0
        high = int(self.reduce(bits[-1] if len(bits) else torch.tensor(0), "max"))
        while low < high:
            step = max(-(-(high - low) // PIVOTS), 1)
            pivots = (low + step * torch.arange(PIVOTS + 1)).clamp(max=high)
            up_to = self.reduce(torch.searchsorted(bits, pivots, right=True))
            place = int((up_to > k).nonzero()[0])
            high = int(pivots[place])
            low = int(pivots[place - 1]) + 1 if place else low
        return float(torch.tensor(low).view(torch.float64))

    def _sent(self, value: Tensor) -> Tensor:
        """A copy where the collectives of the group want it."""
        nccl = dist.get_backend(self.group) == "nccl"
        place = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        return value.detach().to(place, copy=True).contiguous()


def _as_bytes(rows: Tensor) -> Tensor:
    return rows.contiguous().reshape(-1).view(torch.uint8)
