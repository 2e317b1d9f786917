"""Embeddings in parquet, HDF5 and zarr, streamed by row groups and chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.features.files import OpenedTable, found_in
from fullrank.features.keys import EMBEDDING_NAMES, is_label_name
from fullrank.features.tables import Indices, RangeTable, Read, Stored, Table, check_matrix, to_rows

__all__ = ["open_hdf5", "open_parquet_rows", "open_zarr"]

MOST_AT_ONCE = 1 << 20  # numbers in a batch of parquet, which takes several times their size to decode


def open_parquet_rows(path: Path, key: str | None = None) -> OpenedTable:
    """A column of lists, or a column for each coordinate; streamed a batch at a time.

    A column of lists of numbers is the embedding: the only one, or the one of a usual name. Without such a
    column it is all columns of floating-point numbers, in the file's order; others are left out.
    """
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema, n = file.schema_arrow, file.metadata.num_rows
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no parquet file, or damaged: {str(error).splitlines()[0]}") from error
    columns, notes = _columns(path, schema, key)
    if not n:
        raise DataError(f"{path} holds no rows")
    first = _first(path, columns[0]) if _is_list(schema.field(columns[0]).type) else None
    kinds = [schema.field(name).type for name in columns]
    if first is not None:
        kinds = [kinds[0].value_type]
    element = np.result_type(*(np.dtype(kind.to_pandas_dtype()) for kind in kinds))
    d = len(first) if first is not None else len(columns)
    where = f"{path}[{columns[0]}]" if first is not None else str(path)
    dtype, more = check_matrix(where, Stored((n, d), element))
    key = columns[0] if first is not None else None
    found = OpenedTable(_ParquetTable(path, columns, n, d, dtype), key, notes=notes + more)
    labels = [f.name for f in schema if is_label_name(f.name) and not _is_list(f.type)]
    labels = [name for name in labels if name not in columns]
    if len(labels) == 1:
        found.label_key = labels[0]
        found.labels = parquet.read_table(path, columns=labels)[labels[0]].to_pylist()
    return found


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _columns(path: Path, schema: Any, key: str | None) -> tuple[list[str], list[str]]:
    """The column of lists, or the columns of numbers, and notes."""
    import pyarrow as pa

    def is_number(kind: Any) -> bool:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

    lists = [f.name for f in schema if _is_list(f.type) and is_number(f.type.value_type)]
    if key is not None:
        if key not in schema.names:
            raise UnknownNameError("key", key, schema.names, f"in {path}")
        if key not in lists:
            raise DataError(f"{path}[{key}] holds {schema.field(key).type}: embeddings are lists of numbers")
        return [key], []
    if len(lists) > 1:
        usual = [name for name in lists if name.lower() in EMBEDDING_NAMES]
        if len(usual) != 1:
            shown = ", ".join(usual or lists)
            raise DataError(f"{path} holds several columns of lists; choose one with --key: {shown}")
        lists = usual
    if lists:
        return lists, []
    numbers = [f.name for f in schema if is_number(f.type) and not is_label_name(f.name)]
    numbers = [name for name in numbers if not name.startswith("__index_level")]
    floats = [name for name in numbers if pa.types.is_floating(schema.field(name).type)]
    chosen = floats or numbers
    if not chosen:
        raise DataError(f"{path} has no column of numbers or of lists of them: {', '.join(schema.names)}")
    left_out = [name for name in schema.names if name not in chosen and not is_label_name(name)]
    notes = [f"{path}: {len(chosen):,} columns of numbers are read as one row each"]
    if left_out:
        shown = ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else "")
        notes.append(f"{path}: other columns are left out: {shown}")
    return chosen, notes


def _first(path: Path, column: str) -> Any:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(1, columns=[column]):
            cell = batch.column(0)[0].as_py()
            if cell is None:
                raise DataError(f"{path}[{column}] row 0 is missing")
            return cell
    return None


class _ParquetTable(Table):
    """Columns of a parquet file, a batch at a time."""

    def __init__(self, path: Path, columns: list[str], n: int, d: int, dtype: Any) -> None:
        self.path, self.columns, self.n, self.d, self.dtype = path, columns, n, d, dtype

    def scan(self, rows: int) -> Iterator[Tensor]:
        """All rows in order, as tensors [b, d] with b at most `rows`."""
        return self._read(rows, None, 0)

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index`; row groups without such rows are not read."""
        import pyarrow.parquet as parquet

        out = torch.empty(len(index), self.d, dtype=self.dtype)
        with parquet.ParquetFile(self.path) as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        begin = 0
        for group, size in enumerate(sizes):
            if np.searchsorted(index, begin + size) > np.searchsorted(index, begin):
                start = begin
                for part in self._read(MOST_AT_ONCE, [group], begin):
                    first, last = np.searchsorted(index, [start, start + len(part)])
                    out[first:last] = part[torch.from_numpy(index[first:last] - start)]
                    start += len(part)
            begin += size
        return out

    def _read(self, rows: int, groups: list[int] | None, start: int) -> Iterator[Tensor]:
        import pyarrow.parquet as parquet

        # without memory_map and with pre_buffer a row group is held twice
        with parquet.ParquetFile(self.path, memory_map=True, pre_buffer=False) as file:
            rows = max(1, min(rows, MOST_AT_ONCE // self.d))
            for batch in file.iter_batches(rows, row_groups=groups, columns=self.columns, use_threads=False):
                yield self._matrix(batch, start)
                start += len(batch)

    def _matrix(self, batch: Any, start: int) -> Tensor:
        import pyarrow.compute as pc

        for column in batch.columns:
            if column.null_count:
                row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise DataError(f"{self.path}[{self.columns[0]}] row {row:,} is missing")
        if not _is_list(batch.column(0).type):
            columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in self.columns]
            return to_rows(np.stack(columns, axis=1), self.dtype)
        column = batch.column(0)
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (lengths != self.d).any():
            row = int(np.flatnonzero(lengths != self.d)[0])
            raise DataError(
                f"{self.path}[{self.columns[0]}] row {start + row:,} has {lengths[row]} numbers, "
                f"row 0 has {self.d}"
            )
        flat = column.flatten()
        if flat.null_count:
            raise DataError(f"{self.path}[{self.columns[0]}] has missing numbers from row {start:,} on")
        return to_rows(flat.to_numpy(zero_copy_only=False).reshape(-1, self.d), self.dtype)


def open_hdf5(path: Path, key: str | None = None) -> OpenedTable:
    """A dataset of an HDF5 file, read in ranges; costs no memory before rows are read. Needs h5py."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{path}: reading HDF5 needs h5py; pip install 'fullrank[hdf5]'") from error
    arrays: dict[str, Stored] = {}
    chunks: dict[str, int] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            text = h5py.check_string_dtype(item.dtype) is not None
            arrays[name] = Stored(tuple(item.shape), np.dtype("U") if text else item.dtype)
            chunks[name] = item.chunks[0] if item.chunks else 8

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise DataError(f"{path} is no HDF5 file, or damaged: {str(error).splitlines()[0]}") from error

    def table(name: str, dtype: Any) -> Table:
        @contextmanager
        def opened() -> Iterator[Read]:
            with h5py.File(path, "r") as file:
                rows: Any = file[name]
                yield lambda start, stop: to_rows(rows[start:stop], dtype)

        n, d = arrays[name].shape
        return RangeTable(n, d, dtype, opened, gap=chunks[name])

    def values(name: str) -> Any:
        with h5py.File(path, "r") as file:
            array: Any = file[name]
            return array[:] if h5py.check_string_dtype(array.dtype) is None else array.asstr()[:]

    return found_in(path, arrays, key, table, values)


def open_zarr(path: Path, key: str | None = None) -> OpenedTable:
    """An array of a zarr directory, format 2 or 3, read in ranges of chunks. Needs zarr.

    Arrays whose chunks are pickles are refused.
    """
    try:
        import zarr
    except ImportError as error:
        raise UsageError(f"{path}: reading zarr needs zarr; pip install 'fullrank[zarr]'") from error
    try:
        root: Any = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr 2 and 3 raise different types, not all of them ValueError or OSError
        raise DataError(f"{path} is no zarr directory, or damaged: {error}") from error
    found: dict[str, Any] = {"": root} if hasattr(root, "shape") else dict(_zarr_arrays(root, ""))
    arrays = {name: Stored(tuple(array.shape), _zarr_dtype(array)) for name, array in found.items()}

    def table(name: str, dtype: Any) -> Table:
        array = found[name]

        @contextmanager
        def opened() -> Iterator[Read]:
            yield lambda start, stop: to_rows(array[start:stop], dtype)

        n, d = arrays[name].shape
        return RangeTable(n, d, dtype, opened, gap=array.chunks[0])

    if list(found) == [""]:
        dtype, notes = check_matrix(str(path), arrays[""])
        return OpenedTable(table("", dtype), notes=notes)
    return found_in(path, arrays, key, table, lambda name: found[name][:])


def _zarr_arrays(group: Any, within: str, depth: int = 4) -> Iterator[tuple[str, Any]]:
    for name, array in group.arrays():
        yield f"{within}{name}", array
    if depth:
        for name, inner in group.groups():
            yield from _zarr_arrays(inner, f"{within}{name}/", depth - 1)


def _zarr_dtype(array: Any) -> np.dtype[Any] | str:
    """The dtype of an array, or what is wrong with it: a codec that unpickles is never run."""
    metadata = getattr(array, "metadata", array)
    codecs: list[Any] = []
    for name in ("filters", "compressor", "codecs"):
        part = getattr(metadata, name, None)
        codecs += part if isinstance(part, list | tuple) else [part]
    if any("pickle" in f"{type(codec).__name__} {codec!r}".lower() for codec in codecs):
        return "pickles, which can run code and are never opened"
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    return dtype
