"""One pass over the rows of an audit, by one process or by several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fullrank.collapse.metrics.codes import CodeUsage
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import BadRowsError, DataError, FullrankError, UsageError

CHUNK_ELEMENTS = 1 << 23  # as many rows as moments take at a time


class RowSource(Protocol):
    """Rows that can be iterated again and again, a chunk at a time."""

    @property
    def n(self) -> int:
        """Rows."""

    @property
    def d(self) -> int:
        """Their width."""

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        """All rows in their order, [b, d] at a time."""


@runtime_checkable
class PlacedRows(Protocol):
    """Rows of which it is known where they lie."""

    def place_of(self, row: int) -> str:
        """Where a row lies, by its place among those that this process reads."""


class PartOfRows(Protocol):
    """Rows of a source that this process reads; `n` of it counts those of all."""

    @property
    def first(self) -> int:
        """Place of its first row."""

    @property
    def held(self) -> int:
        """How many it reads."""

    @property
    def peers(self) -> Peers:
        """The processes that read the others, and judge together."""


def take_in(
    source: RowSource,
    part: PartOfRows | None,
    seen: EmbeddingStatistics | CodeUsage,
    reservoir: Reservoir,
    progress: Callable[[int], None] | None,
) -> None:
    """Take in the rows that this process reads; an error of one process ends all."""
    peers, held = (part.peers, part.held) if part else (Peers(alone=True), source.n)
    first, count, error = part.first if part else 0, 0, ""
    begins = _Beginning(seen, peers)
    try:
        begins.receive()
        for chunk in source.chunks(max(CHUNK_ELEMENTS // source.d, 1)):
            _update(seen, chunk, source, count)
            begins.send()
            if isinstance(seen, CodeUsage):
                reservoir.add(chunk, torch.arange(first + count, first + count + len(chunk)))
            count += len(chunk)
            if progress:
                progress(min(count * peers.size, source.n))
        if count != held:
            raise UsageError(f"the rows were said to be {held:,}, and {count:,} came")
        if isinstance(seen, EmbeddingStatistics):
            seen.fix_middle()
    except FullrankError as caught:
        if peers.size == 1:
            raise
        error = str(caught)
    begins.send(last=True)
    errors = [each for each in peers.tell(error) if each]
    if errors:
        raise DataError(errors[0])


def _update(seen: EmbeddingStatistics | CodeUsage, chunk: Tensor, source: RowSource, count: int) -> None:
    """Take in a chunk; an error in its rows says where the first such row lies."""
    try:
        seen.update(chunk)
    except BadRowsError as error:
        bad = ~chunk.isfinite().all(1)
        row = int(bad.int().argmax()) if bool(bad.any()) else int(chunk.abs().amax(1).argmax())
        if not isinstance(source, PlacedRows):
            raise
        raise BadRowsError(f"{source.place_of(count + row)}: {error}") from error


class _Beginning:
    """Middle of the first rows: the first process finds it, all others wait."""

    def __init__(self, seen: EmbeddingStatistics | CodeUsage, peers: Peers) -> None:
        self.seen = seen if isinstance(seen, EmbeddingStatistics) and peers.size > 1 else None
        self.peers, self.sent = peers, False

    def receive(self) -> None:
        """Wait for it, in all processes but the first."""
        if self.seen is None or self.peers.rank == 0:
            return
        self.sent = True
        middle = self.peers.from_rank(torch.zeros(self.seen.dim + 1, dtype=torch.float64), 0)
        if bool(middle.isfinite().all()):
            self.seen.begin(middle[:-1], float(middle[-1]))

    def send(self, last: bool = False) -> None:
        """Send it from the first process once it is known, at last in any case."""
        if self.seen is None or self.sent or not (self.seen.middle or last):
            return
        self.sent = True
        nothing = torch.full((self.seen.dim,), torch.nan, dtype=torch.float64)
        middle, typical = self.seen.middle or (nothing, 0.0)
        self.peers.from_rank(torch.cat([middle, middle.new_tensor([typical])]), 0)
