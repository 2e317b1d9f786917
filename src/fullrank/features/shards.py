"""Rows in many files, each of which one process reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.one_pass import CHUNK_ELEMENTS
from fullrank.collapse.peers import Peers
from fullrank.collapse.statistics import SETTLED
from fullrank.errors import DataError, FullrankError, UsageError
from fullrank.features.files import OpenedTable
from fullrank.features.labels import label_values
from fullrank.features.opened_file import open_file, read_labels
from fullrank.features.same_files import check_same_files
from fullrank.features.shard_files import ShardFile, ShardList
from fullrank.features.tables import Indices, RangeTable, RowRange, Shards, Table, place_among

_ERRORS: dict[str, type[FullrankError]] = {"UsageError": UsageError}


@dataclass(frozen=True)
class Part:
    """The rows that one process reads of a matrix.

    Attributes:
        first: place of its first row.
        held: how many it reads.
        n: rows of all processes.
        peers: these processes.
        names: of all files, where there are several.
        ends: where each begins, and the last ends.
    """

    first: int
    held: int
    n: int
    peers: Peers
    names: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    def place_of(self, row: int) -> tuple[str, int]:
        """Name of the file that holds a row, empty for a single one; place in it."""
        return place_among(self.names, self.ends, row)


@dataclass(frozen=True)
class OpenedShards:
    """Rows of many files, this process's part of them, and the labels of all."""

    table: Table
    part: Part
    key: str | None
    labels: Indices | None
    label_key: str | None
    notes: list[str]


@dataclass(frozen=True)
class _Shard:
    """What a process tells about a file."""

    n: int
    d: int
    dtype: str
    key: str | None
    labelled: bool
    label_key: str | None
    notes: list[str]

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found


class FetchedTable(Table):
    """A file that is fetched when its rows are read."""

    def __init__(self, file: ShardFile, key: str | None, n: int, d: int, dtype: torch.dtype) -> None:
        self.file, self.key, self.n, self.d, self.dtype = file, key, n, d, dtype

    def scan(self, rows: int) -> Iterator[Tensor]:
        """All rows in order."""
        with self.file.local() as path:
            yield from open_file(path, self.key).table.scan(rows)

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index`."""
        with self.file.local() as path:
            return open_file(path, self.key).table.take(index)


def open_shards(shards: ShardList, key: str | None, peers: Peers) -> OpenedShards:
    """Open the files of one matrix, each by the process that will read it.

    Every process gets a run of files of about as many bytes as the others, and the labels of all rows. A
    single file that can be sliced is shared by rows.

    Raises:
        DataError, UsageError: as `open_file`, or files that do not make one matrix, or are not those of the
            other processes; all raise the error of the first file.
    """
    check_same_files(shards, peers)
    owners = _by_size([file.size for file in shards.files], peers.size)
    own = owners[peers.rank]
    opened = {place: _opened(shards.files[place], key) for place in own}
    outlines = peers.tell([_outline(opened[place], place) for place in own])
    found = _checked(shards, [each for part in outlines for each in part], key)
    tables = {place: each.table for place, each in opened.items() if isinstance(each, OpenedTable)}
    counts = [shard.n for shard in found]
    notes, whole = list(found[0].notes), sum(counts)
    dtype = found[0].torch_dtype
    for shard in found:
        dtype = torch.promote_types(dtype, shard.torch_dtype)
    if len({shard.dtype for shard in found}) > 1:
        notes.append(f"the shards differ in dtype; read as {str(dtype).removeprefix('torch.')}")
    labels, more = _labels(shards, found, opened, peers)
    if peers.size > 1 and len(found) == 1:
        table, part = _sliced(shards.files[0], key, found[0], tables, peers)
    else:
        owners = _first_has_enough(owners, counts)
        own = owners[peers.rank]
        mine = [tables[place] if place in tables else _table(shards.files[place], key) for place in own]
        table = Shards(mine, found[0].d, dtype, [shards.files[place].shown for place in own])
        names = tuple(file.shown for file in shards.files)
        part = Part(sum(counts[: own.start]), table.n, whole, peers, names, (0, *accumulate(counts)))
    label_key = found[0].label_key if len(found) == 1 else None
    return OpenedShards(table, part, found[0].key, labels, label_key, notes + more)


def _by_size(sizes: Sequence[int], processes: int) -> list[range]:
    """Parts of about one size each.

    Example:
        >>> _by_size([4, 1, 1, 1, 1], 2)
        [range(0, 1), range(1, 5)]
    """
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    owners = np.minimum(middles * processes // max(sum(sizes), 1), processes - 1)
    ends = [0, *np.searchsorted(owners, np.arange(processes), side="right").tolist()]
    return [range(first, last) for first, last in pairwise(ends)]


def _first_has_enough(owners: list[range], counts: Sequence[int]) -> list[range]:
    """Parts in order, of which the first holds the rows of the middle."""
    last = owners[0].stop
    while sum(counts[:last]) < SETTLED and last < len(counts):
        last += 1
    moved = [range(max(run.start, last), max(run.stop, last)) for run in owners[1:]]
    return [range(last), *moved]


def _opened(file: ShardFile, key: str | None) -> OpenedTable | FullrankError:
    try:
        with file.local(outline=True) as path:
            opened = open_file(path, key)
    except FullrankError as error:
        return error
    if file.path is None:
        table = opened.table
        opened.table = FetchedTable(file, key, table.n, table.d, table.dtype)
    return opened


def _table(file: ShardFile, key: str | None) -> Table:
    """A file that another process has looked into, which says that it can be read."""
    opened = _opened(file, key)
    if isinstance(opened, FullrankError):
        raise opened
    return opened.table


def _outline(opened: OpenedTable | FullrankError, place: int) -> dict[str, Any]:
    if isinstance(opened, FullrankError):
        return {"error": str(opened), "kind": type(opened).__name__}
    table = opened.table
    dtype = str(table.dtype).removeprefix("torch.")
    notes = opened.notes if place == 0 else []
    labelled = opened.labels is not None
    return vars(_Shard(table.n, table.d, dtype, opened.key, labelled, opened.label_key, notes))


def _checked(shards: ShardList, outlines: Sequence[dict[str, Any]], key: str | None) -> list[_Shard]:
    """Outlines of the files, which are to be of one width and one name within."""
    found: list[_Shard] = []
    for file, words in zip(shards.files, outlines, strict=True):
        if "error" in words:
            raise _ERRORS.get(words["kind"], DataError)(words["error"])
        shard = _Shard(**words)
        first = found[0] if found else shard
        if shard.d != first.d:
            raise DataError(
                f"{file.shown} has rows of width {shard.d}, {shards.files[0].name} of {first.d}: "
                f"the shards of a folder have one width"
            )
        if key is None and shard.key != first.key:
            raise DataError(
                f"{file.shown} holds {shard.key!r}, {shards.files[0].name} {first.key!r}: "
                f"choose one with --key"
            )
        found.append(shard)
    return found


def _sliced(
    file: ShardFile, key: str | None, shard: _Shard, tables: dict[int, Table], peers: Peers
) -> tuple[Table, Part]:
    """A process's rows of a single file, in the chunks of an audit by one."""
    table = tables[0] if tables else _table(file, key)
    step = max(CHUNK_ELEMENTS // shard.d, SETTLED)
    chunks = -(-shard.n // step) if isinstance(table, RangeTable) else 1
    share = -(-chunks // peers.size)
    first, last = (min(step * share * rank, shard.n) for rank in (peers.rank, peers.rank + 1))
    if chunks == 1:
        first, last = (0, shard.n) if peers.rank == 0 else (shard.n, shard.n)
    part = Part(first, last - first, shard.n, peers)
    if isinstance(table, RangeTable):
        return RowRange(table, first, last), part
    return (table if last > first else Shards([], shard.d, shard.torch_dtype)), part


def _labels(
    shards: ShardList,
    found: Sequence[_Shard],
    opened: dict[int, OpenedTable | FullrankError],
    peers: Peers,
) -> tuple[Indices | None, list[str]]:
    """Labels of all rows on every process: those in the files, else those beside them."""
    where = f"the labels in {shards.where}"
    if all(shard.labelled for shard in found):
        own = [each.labels for each in opened.values() if isinstance(each, OpenedTable)]
        return read_labels(where, _of_all([np.asarray(labels).reshape(-1) for labels in own], peers))
    if not shards.labels:
        return None, []
    return _from_first(lambda: _beside(shards, where, sum(shard.n for shard in found)), peers)


def _of_all(own: Sequence[np.ndarray], peers: Peers) -> np.ndarray:
    """Labels of the rows of all processes, by rank: whole numbers, fractions or texts."""
    values = np.concatenate(own) if own else np.empty(0, np.int64)
    if peers.size == 1:
        return values
    kinds = {kind for kind in peers.tell(values.dtype.kind if len(values) else "") if kind}
    if kinds <= set("iub"):
        return peers.gather_rows(torch.from_numpy(values.astype(np.int64))).numpy()
    if kinds <= set("iubf"):
        return peers.gather_rows(torch.from_numpy(values.astype(np.float64))).numpy()
    texts = [text for part in peers.tell(values.tolist()) for text in part]
    return np.array(texts, object if None in texts else None)


def _beside(shards: ShardList, where: str, n: int) -> tuple[Indices | None, list[str]]:
    parts = []
    try:
        for file in shards.labels:
            with file.local() as path:
                parts.append(np.asarray(label_values(path)))
    except DataError as error:
        return None, [f"labels are left out: {error}"]
    values = np.concatenate(parts)
    if len(values) != n:
        return None, [f"labels are left out: {where} are {len(values):,} for {n:,} rows"]
    return read_labels(where, values)


def _from_first(
    read: Callable[[], tuple[Indices | None, list[str]]], peers: Peers
) -> tuple[Indices | None, list[str]]:
    """Labels that the first process reads, on all."""
    labels, notes, error = None, list[str](), ""
    try:
        labels, notes = read() if peers.rank == 0 else (None, [])
    except FullrankError as caught:
        if peers.size == 1:
            raise
        error = str(caught)
    count, notes, error = peers.tell([-1 if labels is None else len(labels), notes, error])[0]
    if error:
        raise DataError(error)
    if count < 0:
        return None, notes
    sent = torch.empty(count, dtype=torch.int64) if labels is None else torch.from_numpy(labels)
    return peers.from_rank(sent, 0).numpy(), notes
