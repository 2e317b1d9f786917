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
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.coercion import as_name
from fullrank.errors import DataError, UsageError
from fullrank.features.column_files import ARROW_SUFFIXES, CSV_SUFFIXES, PARQUET_SUFFIXES
from fullrank.features.column_rows import open_column_rows
from fullrank.features.files import (
    ArrayFile,
    OpenedTable,
    existing,
    read_hdf5,
    read_npy,
    read_npz,
    read_safetensors,
    read_torch,
    read_zarr,
)
from fullrank.features.keys import as_labels, is_label_name
from fullrank.features.labels import label_values
from fullrank.features.tables import Indices, MemoryTable, Shards, Stored, Table, check_matrix

CHUNK_ELEMENTS = 1 << 21  # 8 MB of float32; malloc keeps a few of them

_COLUMNS = (*PARQUET_SUFFIXES, *ARROW_SUFFIXES, *CSV_SUFFIXES)
_READERS: dict[str, Callable[[Path], ArrayFile]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    **dict.fromkeys((".pt", ".pth"), read_torch),
    ".safetensors": read_safetensors,
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5"), read_hdf5),
    ".zarr": read_zarr,
}
EMBEDDING_SUFFIXES = (*_READERS, *_COLUMNS)
"""Endings of files, and of one kind of directory, that `open_embeddings` reads."""


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
        notes: one line each on what a reader should know: conversions, columns left out, what is not mapped.

    Example:
        >>> rows = open_embeddings(torch.arange(12.0).view(6, 2))
        >>> [len(z) for z in rows.chunks(4)], rows.rows([0, 5])[:, 1].tolist()
        ([4, 2], [1.0, 11.0])
    """

    def __init__(
        self, table: Table, origin: str, labels: Indices | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.table, self.origin, self.labels, self.notes = table, origin, labels, list(notes)
        self.n, self.d, self.dtype = table.n, table.d, table.dtype

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
        with self._reading():
            yield from self.table.scan(rows)

    def rows(self, index: Any) -> Tensor:
        """The rows [k, d] at `index`: sorted, without repetitions."""
        wanted: Indices = np.asarray(index, np.int64).reshape(-1)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= self.n or (np.diff(wanted) <= 0).any()):
            raise UsageError(
                f"rows are taken by a sorted index without repetitions, from 0 to {self.n - 1:,}"
            )
        with self._reading():
            return self.table.take(wanted)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except _DAMAGE as error:
            said = str(error)[:120]
            raise DataError(f"{self.origin} is damaged or changed while it was read: {said}") from error


_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, KeyError, zlib.error, zipfile.BadZipFile)


Matrix: TypeAlias = Tensor | np.ndarray | Sequence[Sequence[float]] | Rows
"""Rows [n, d] in memory, or opened already."""


def open_embeddings(source: Path | str | Matrix, key: str | None = None) -> Rows:
    """Open embeddings: a file, a folder of shards, or a matrix in memory.

    A folder is read as one matrix: its files of one kind in natural order (`part-9` before `part-10`), all of
    one width and, where they have names within, one name. Files named as labels (`labels.npy`) give the
    labels.

    Args:
        source: a path (see `EMBEDDING_SUFFIXES`), or a matrix [n, d].
        key: the array to read, where a file holds several: a name, or a path as `train/features`.

    Raises:
        DataError, UnknownNameError: missing, damaged, a pickle, or not one matrix of real numbers.
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
    if isinstance(source, list | tuple):
        try:
            return _in_memory(np.asarray(source))
        except ValueError as error:
            raise UsageError("the rows of a matrix [n, d] are of one length, and hold numbers") from error
    path = existing(as_name(source, "embeddings are a matrix [n, d], a file or a folder"))
    if path.is_dir() and not is_zarr(path):
        return _folder(path, key)
    opened = _opened_file(path, key)
    origin = f"{path}[{opened.key}]" if opened.key else str(path)
    labels, notes = None, opened.notes
    if opened.labels is not None:
        labels, more = _labels(f"{path}[{opened.label_key}]", opened.labels)
        notes = notes + more
        origin += "" if labels is None else f", labels from {opened.label_key}"
    return Rows(opened.table, origin, labels, notes)


def _labels(where: str, values: Any) -> tuple[Indices | None, list[str]]:
    """Labels beside the rows; what cannot be read as such is left out, with a note."""
    try:
        return as_labels(where, values), []
    except DataError as error:
        return None, [f"labels are left out: {error}"]


def _in_memory(source: Tensor | np.ndarray | np.generic) -> Rows:
    where = "the tensor" if isinstance(source, Tensor) else "the array"
    if isinstance(source, Tensor) and source.layout != torch.strided:
        raise DataError("the tensor is sparse: make it dense with .to_dense()")
    dtype, notes = check_matrix(where, Stored(tuple(source.shape), source.dtype))
    origin = f"{'tensor' if isinstance(source, Tensor) else 'array'} {list(source.shape)}"
    return Rows(MemoryTable(source, dtype), origin, None, notes)


def is_zarr(path: Path) -> bool:
    """Tell whether a directory is a zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in (".zarray", ".zgroup", "zarr.json"))


def _opened_file(path: Path, key: str | None) -> OpenedTable:
    suffix = ".zarr" if is_zarr(path) else path.suffix.lower()
    if suffix in (".pkl", ".pickle", ".p", ".joblib"):
        raise DataError(
            f"{path} is a pickle, which can run code and is never opened: save .npy or .safetensors"
        )
    if suffix not in EMBEDDING_SUFFIXES:
        raise DataError(
            f"{path} has no ending of an embedding file: {', '.join(EMBEDDING_SUFFIXES)}, or a folder of them"
        )
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty")
    try:
        return open_column_rows(path, key) if suffix in _COLUMNS else _READERS[suffix](path).choose(key)
    except PermissionError as error:
        raise DataError(f"{path} may not be read") from error


def shards_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the embedding files of a folder in natural order, and its labels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("part-10.npy", "part-9.npy", "labels.npy", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [[path.name for path in paths] for paths in shards_in(Path(folder))]
        [['part-9.npy', 'part-10.npy'], ['labels.npy']]
    """
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EMBEDDING_SUFFIXES and path.name[0] not in "._"
    ]
    files.sort(
        key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
    )
    labels = [path for path in files if is_label_name(path.stem)]
    return [path for path in files if path not in set(labels)], labels


def _folder(folder: Path, key: str | None) -> Rows:
    files, label_files = shards_in(folder)
    if not files:
        raise DataError(f"{folder} holds no embedding files: {', '.join(EMBEDDING_SUFFIXES)}")
    tables = [path for path in files if path.suffix.lower() not in CSV_SUFFIXES]
    files = tables or files  # text beside arrays tells about them
    kinds = sorted({path.suffix.lower() for path in files})
    if len(kinds) > 1:
        raise DataError(
            f"{folder} holds embeddings of several kinds ({', '.join(kinds)}): leave one kind there"
        )
    shards: list[OpenedTable] = []
    for path in files:
        opened = _opened_file(path, key)
        if shards and opened.table.d != shards[0].table.d:
            raise DataError(
                f"{path} has rows of width {opened.table.d}, {files[0].name} of {shards[0].table.d}: "
                f"the shards of a folder have one width"
            )
        if shards and key is None and opened.key != shards[0].key:
            raise DataError(
                f"{path} holds {opened.key!r}, {files[0].name} {shards[0].key!r}: choose one with --key"
            )
        shards.append(opened)
    table = Shards([shard.table for shard in shards])
    notes = shards[0].notes[:]
    if len({shard.table.dtype for shard in shards}) > 1:
        notes.append(f"the shards differ in dtype; read as {str(table.dtype).removeprefix('torch.')}")
    labels, more = _folder_labels(folder, shards, label_files, table.n)
    inside = f"[{shards[0].key}]" if shards[0].key else ""
    return Rows(table, f"{folder}: {len(files):,} {kinds[0]} files{inside}", labels, notes + more)


def _folder_labels(
    folder: Path, shards: list[OpenedTable], label_files: list[Path], n: int
) -> tuple[Indices | None, list[str]]:
    where = f"the labels in {folder}"
    if all(shard.labels is not None for shard in shards):
        return _labels(where, np.concatenate([np.asarray(shard.labels) for shard in shards]))
    if not label_files:
        return None, []
    try:
        values = np.concatenate([np.asarray(label_values(path)) for path in label_files])
    except DataError as error:
        return None, [f"labels are left out: {error}"]
    if len(values) != n:
        return None, [f"labels are left out: {where} are {len(values):,} for {n:,} rows"]
    return _labels(where, values)
