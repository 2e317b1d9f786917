"""Saved embeddings: rows [n, d] of any usual file, read a chunk at a time.

    rows = open_embeddings("features.npy")
    for z in rows:                    # tensors [b, d], as often as wanted
        moments.update(z)
    some = rows.rows(np.arange(0, rows.n, 100))

What a format costs:

- `.npy`, `.npz` of `np.savez`, `.pt`, `.safetensors`: mapped; a chunk beside the map, whatever the size.
- `.npz` of `np.savez_compressed`: decompressed from its beginning on every pass, a chunk at a time.
- parquet: a batch beside the pages it comes from; single rows cost their row group.
- Arrow (Feather, and the streams of `datasets`): mapped; a batch beside the map.
- CSV, TSV: parsed from the beginning on every pass, a block at a time.
- HDF5, zarr: a chunk of ours and the stored chunks it lies in; single rows cost a stored chunk each.
- `.pt` of PyTorch before 1.6, numpy arrays within `.pt`, compressed Fortran order: the whole array in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from fullrank.coercion import as_name
from fullrank.collapse.moments import why_not_numbers
from fullrank.collapse.peers import Peers
from fullrank.errors import DataError, UsageError, printable
from fullrank.features.budget import memory_budget
from fullrank.features.files import existing
from fullrank.features.opened_file import EMBEDDING_SUFFIXES as EMBEDDING_SUFFIXES
from fullrank.features.opened_file import is_zarr, open_file, read_labels
from fullrank.features.shard_files import ShardList, is_address, is_pattern, list_shards, local_file
from fullrank.features.shards import Part, open_shards
from fullrank.features.tables import Indices, MemoryTable, Stored, Table, check_matrix
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import expand_user, require_real_folder

PART_BYTES = 1 << 25  # of a file, below which another process gains nothing
CHUNK_ELEMENTS = 1 << 21  # 8 MB of float32; malloc keeps a few of them


class Rows:
    """Rows of an embedding, read anew on every pass, as often as wanted.

    Rows that are not finite are handed out as they are.

    Attributes:
        n: rows.
        d: width of a row.
        dtype: of the tensors: float16, bfloat16, float32 or float64 as stored; integers of up to 16 bits come
            as float32, wider ones as float64.
        labels: int64 [n], -1 where a row has none; None where no labels lie beside the rows.
        origin: what was read, for a report: "features.npz[z], labels from y".
        part: which of the rows this process reads, where several processes share them; else None.
        notes: one line each on what a reader should know: conversions, columns left out, what is not mapped.

    Example:
        >>> import torch
        >>> rows = open_embeddings(torch.arange(12.0).view(6, 2))
        >>> [len(z) for z in rows.chunks(4)], rows.rows([0, 5])[:, 1].tolist()
        ([4, 2], [1.0, 11.0])
    """

    def __init__(
        self,
        table: Table,
        origin: str,
        labels: Indices | None = None,
        notes: Sequence[str] = (),
        part: Part | None = None,
    ) -> None:
        self.table, self.origin, self.labels, self.notes = table, origin, labels, list(notes)
        self.n, self.d, self.dtype = part.n if part else table.n, table.d, table.dtype
        self.part = part

    def __len__(self) -> int:
        """How many rows."""
        return self.n

    def __iter__(self) -> Iterator[Tensor]:
        return self.chunks()

    def __repr__(self) -> str:
        return f"Rows({self.origin}: {self.n:,} x {self.d:,} {str(self.dtype).removeprefix('torch.')})"

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        """All rows in order, as contiguous tensors [b, d] of their own on the CPU.

        A chunk has at most `rows` rows; None is as many as make 8 MB of float32. It may be shorter where a
        file or a row group ends. Raises DataError where the file is damaged further on.
        """
        if rows is not None and rows < 1:
            raise UsageError(f"chunks of {rows} rows cannot be read; take at least 1")
        return self._scan(rows or max(1, CHUNK_ELEMENTS // self.d))

    def _scan(self, rows: int) -> Iterator[Tensor]:
        seen = 0
        with self._reading():
            for part in self.table.scan(rows):
                seen += len(part)
                yield part
            if seen != self.table.n:
                raise ValueError(f"{seen:,} of {self.table.n:,} rows are there")

    def place_of(self, row: int) -> str:
        """Where a row of those that this process reads lies, for a message."""
        name, place = self.table.place_of(row)
        return f"{printable(name or self.origin)}, row {place:,} (the first is 0)"

    def rows(self, index: Any) -> Tensor:
        """The rows [k, d] at `index`: sorted, without repetitions."""
        if self.part:
            raise UsageError("rows that several processes share are read in order, a chunk at a time")
        wanted: Indices = np.asarray(index, np.int64).reshape(-1)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= self.n or (np.diff(wanted) <= 0).any()):
            raise UsageError(
                f"rows are taken by a sorted index without repetitions, from 0 to {self.n - 1:,}"
            )
        with self._reading():
            return self.table.take(wanted)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with refusing(f"{self.origin} is damaged or changed while it was read"):
            yield


Matrix: TypeAlias = Tensor | np.ndarray | Sequence[Sequence[float]] | Rows
"""Rows [n, d] in memory, or opened already."""


def open_embeddings(
    source: Path | str | Matrix,
    key: str | None = None,
    max_bytes: int = 0,
    peers: Peers | None = None,
) -> Rows:
    """Open embeddings: a file, a folder of shards, or a matrix in memory.

    A folder is read as one matrix: its files of one kind in natural order (`part-9` before `part-10`), all of
    one width and, where they have names within, one name. Files named as labels (`labels.npy`) give the
    labels. So is a pattern of paths, and what lies behind an address of fsspec, as `s3://bucket/features`.

    Args:
        source: a path (see `EMBEDDING_SUFFIXES`), a pattern, an address, or a matrix [n, d].
        key: the array to read, where a file holds several: a name, or a path as `train/features`.
        max_bytes: memory that a file may take at once; 0 is half of what is free. Rows that are mapped or
            streamed take little of it.
        peers: processes that share the rows of files: each reads its own; None reads all.

    Raises:
        DataError, UnknownNameError: missing, damaged, no regular file, a pickle, not one matrix of real
            numbers, or larger than memory where it has to be read whole.
        UsageError: the format needs a package that is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "all.npz"), features=np.ones((6, 2)), labels=np.arange(6))
        ...     rows = open_embeddings(Path(folder, "all.npz"))
        ...     rows.n, rows.d, rows.labels.tolist(), sum(len(z) for z in rows)
        (6, 2, [0, 1, 2, 3, 4, 5], 6)
    """
    if isinstance(source, Rows):
        return source
    if isinstance(source, Tensor | np.ndarray | np.generic):
        return _in_memory(source)
    if is_frame(source):
        return _in_memory(_of_frame(source))
    if isinstance(source, list | tuple):
        try:
            return _in_memory(np.asarray(source))
        except ValueError as error:
            raise UsageError("the rows of a matrix [n, d] are of one length, and hold numbers") from error
    source = as_name(source, "embeddings are a matrix [n, d], a file or a folder")
    peers = peers or Peers(alone=True)
    with memory_budget(max_bytes):
        if is_address(source) or is_pattern(source):
            return _of_shards(list_shards(source), key, peers)
        path = require_real_folder(existing(source))
        if peers.size > 1 or (path.is_dir() and not is_zarr(path)):
            shards = ShardList(str(path), [local_file(path)]) if is_zarr(path) else list_shards(path)
            return _of_shards(shards, key, peers)
        return _of_file(path, key)


def count_parts(what: Path | str) -> int:
    """Processes that can share a matrix, of which each has a part; 0 without a file.

    A part is a file of several, or some rows of a large one.

    Example:
        >>> count_parts("no_such_file.npy")
        0
    """
    if is_address(what) or is_pattern(what):
        return len(list_shards(what).files)
    path = expand_user(what)
    if path.is_dir():
        return 1 if is_zarr(path) else len(list_shards(path).files)
    return max(path.stat().st_size // PART_BYTES, 1) if path.exists() else 0


def _of_shards(shards: ShardList, key: str | None, peers: Peers) -> Rows:
    opened = open_shards(shards, key, peers)
    inside = f"[{opened.key}]" if opened.key else ""
    inside += f", labels from {opened.label_key}" if opened.label_key and opened.labels is not None else ""
    part = opened.part if peers.size > 1 else None
    return Rows(opened.table, f"{shards.origin}{inside}", opened.labels, opened.notes, part)


def _of_file(path: Path, key: str | None) -> Rows:
    opened = open_file(path, key)
    origin = f"{path}[{opened.key}]" if opened.key else str(path)
    labels, notes = None, opened.notes
    if opened.labels is not None:
        labels, more = read_labels(f"{path}[{opened.label_key}]", opened.labels)
        notes = notes + more
        origin += "" if labels is None else f", labels from {opened.label_key}"
    return Rows(opened.table, origin, labels, notes)


def is_frame(source: object) -> bool:
    """Whether a value is a table of columns in memory, as pandas' and polars' are."""
    return hasattr(source, "to_numpy") and hasattr(source, "columns")


def _of_frame(frame: Any) -> np.ndarray:
    values: np.ndarray = np.asarray(frame.to_numpy())
    if values.dtype.kind not in "fiu":
        kinds = dict(zip(map(str, frame.columns), map(str, frame.dtypes), strict=True))
        others = [f"{name} ({kind})" for name, kind in kinds.items() if not re.match("(?i)u?int|float", kind)]
        raise UsageError(
            f"a {type(frame).__name__} of embeddings holds numbers alone: leave out {', '.join(others[:3])}"
        )
    return values


def _in_memory(source: Tensor | np.ndarray | np.generic) -> Rows:
    where = "the tensor" if isinstance(source, Tensor) else "the array"
    if isinstance(source, Tensor) and (why := why_not_numbers(source)):
        raise DataError(why)
    if isinstance(source, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(source).sum())):
        raise DataError(f"{masked:,} entries of the array are masked: fill them, or leave their rows out")
    dtype, notes = check_matrix(where, Stored(tuple(source.shape), source.dtype))
    origin = f"{'tensor' if isinstance(source, Tensor) else 'array'} {list(source.shape)}"
    return Rows(MemoryTable(source, dtype), origin, None, notes)
