"""Processes that are threads: the collectives that `Peers` calls, between threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from fullrank.collapse.peers import Peers

T = TypeVar("T")
Run = Callable[[Callable[[int], T]], list[T]]
PATIENCE = 20.0  # seconds, after which a thread that waits for others fails


class Threads:
    """What `fullrank.collapse.peers` uses of `torch.distributed`."""

    ReduceOp = torch.distributed.ReduceOp
    ProcessGroup = torch.distributed.ProcessGroup

    def __init__(self, size: int) -> None:
        self.size, self.barrier = size, threading.Barrier(size, timeout=PATIENCE)
        self.here, self.given = threading.local(), list[Any]([None] * size)
        self.calls: list[str] = []

    def exchanged(self, value: Any, what: str = "") -> list[Any]:
        """What every thread gives, by rank."""
        self.given[self.here.rank] = (what, value)
        self.barrier.wait()
        found = list(self.given)
        self.barrier.wait()
        assert len({each for each, _ in found}) == 1, f"threads call {[each for each, _ in found]} at a time"
        if self.here.rank == 0 and what:
            self.calls.append(what)
        return [each for _, each in found]

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return hasattr(self.here, "rank")

    def get_world_size(self, group: Any = None) -> int:
        return self.size

    def get_rank(self, group: Any = None) -> int:
        rank: int = self.here.rank
        return rank

    def get_global_rank(self, group: Any, rank: int) -> int:
        return rank

    def get_backend(self, group: Any = None) -> str:
        return "gloo"

    def all_reduce(self, value: Tensor, op: Any, group: Any = None) -> None:
        parts = torch.stack(self.exchanged(value.clone(), f"reduce {list(value.shape)} {value.dtype}"))
        by = {self.ReduceOp.SUM: lambda x: x.sum(0), self.ReduceOp.MIN: lambda x: x.amin(0)}
        value.copy_(by.get(op, lambda x: x.amax(0))(parts))

    def all_gather_into_tensor(self, found: Tensor, value: Tensor, group: Any = None) -> None:
        found.copy_(torch.cat(self.exchanged(value.clone(), f"gather {list(value.shape)} {value.dtype}")))

    def broadcast(self, value: Tensor, source: int, group: Any = None) -> None:
        value.copy_(self.exchanged(value.clone(), f"broadcast {source}")[source])

    def all_to_all_single(
        self, found: Tensor, value: Tensor, coming: Any = None, counts: Any = None, group: Any = None
    ) -> None:
        parts = self.exchanged(value.clone().split(counts or 1), "exchange")
        found.copy_(torch.cat([part[self.here.rank] for part in parts]))


def in_threads(size: int, work: Callable[[int], T], group: Threads) -> list[T]:
    """What each of some threads returns, by rank; the error of the first that fails."""
    found, errors = list[Any]([None] * size), dict[int, BaseException]()

    def run(rank: int) -> None:
        group.here.rank = rank
        try:
            found[rank] = work(rank)
        except BaseException as error:
            errors[rank] = error
            group.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for error in sorted(errors.values(), key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return found


def part(rows: Tensor, rank: int, size: int) -> Tensor:
    """Rows of a rank: few of the first, and of three none of the second."""
    ends = [0, 7, *[7] * (size - 2), len(rows)]
    return rows[ends[rank] : ends[rank + 1]]


def alike(run: Run[Any], work: Callable[[int], Any]) -> Any:
    """What all threads find, which is the same."""
    first, *others = run(work)
    assert all(repr(other) == repr(first) for other in others)
    return first


class Shared:
    """Rows that processes share, as a source."""

    def __init__(self, rows: Tensor, rank: int, size: int, said: int = 0) -> None:
        self.mine = part(rows, rank, size)
        self.n, self.d = rows.shape
        self.first, self.held, self.peers = min(7 * rank, 7), said or len(self.mine), Peers()
        self.part = self

    def chunks(self, rows: int | None = None) -> Any:
        return iter(self.mine.split(30)) if len(self.mine) else iter(())

    def place_of(self, row: int) -> str:
        return f"row {self.first + row}"
