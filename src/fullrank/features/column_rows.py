"""Embeddings in files of columns, streamed a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, UnknownNameError
from fullrank.features.budget import require_memory
from fullrank.features.column_files import ColumnFile, about, is_number, open_columns
from fullrank.features.files import OpenedTable
from fullrank.features.keys import EMBEDDING_NAMES, is_label_name
from fullrank.features.tables import Indices, Stored, Table, check_matrix, to_rows
from fullrank.untrusted.parsing import refusing

MOST_AT_ONCE = 1 << 20  # numbers in a batch, of which parquet takes several times their size to decode


def open_column_rows(path: Path, key: str | None = None) -> OpenedTable:
    """A column of lists, or a column for each coordinate; streamed a batch at a time.

    A column of lists of numbers is the embedding: the only one, or the one of a usual name. Without such a
    column it is all columns of floating-point numbers (in text of all numbers), in the file's order; others
    are left out.
    """
    with refusing(f"{path} is no {about(path)} file, or damaged"):
        file = open_columns(path)
        schema = file.schema
        file.dimensions = _dimensions(file, schema)
        n = sum(file.groups)
    if repeated := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise DataError(f"{path} has several columns called {repeated[0]!r}: rename them")
    columns, notes = _columns(file, schema, key)
    if not n:
        raise DataError(f"{path} holds no rows")
    by_name = {f.name: f.type for f in schema}
    kinds = [by_name[name] for name in columns]
    where, d, chosen = str(path), len(columns), None
    if _is_list(kinds[0]):
        chosen, kinds = columns[0], [kinds[0].value_type]
        where, d = f"{path}[{chosen}]", _width(file, chosen)
    element = np.result_type(*(np.dtype(kind.to_pandas_dtype()) for kind in set(kinds)))
    if file.whole_numbers:  # text says nothing of how many bits there were
        element = np.dtype(np.float64)
    dtype, more = check_matrix(where, Stored((n, d), element))
    opened = OpenedTable(_ColumnTable(file, columns, n, d, dtype), chosen, notes=notes + more)
    taken = set(columns)
    labels = [
        f.name for f in schema if f.name not in taken and file.is_label(f.name) and not _is_list(f.type)
    ]
    if len(labels) > 1:
        opened.notes.append(
            f"{path}: no labels are read, for several columns could be: {', '.join(labels[:3])}"
        )
    if len(labels) == 1:
        opened.notes.append(f"{path}: labels are taken from the column {labels[0]!r}")
        opened.label_key = labels[0]
        require_memory(f"{path}[{labels[0]}]", n * 64)  # of a Python value and its place in a list
        opened.labels = file.column(labels[0])
    return opened


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _dimensions(file: ColumnFile, schema: Any) -> frozenset[str]:
    """Columns called as labels are that hold fractions, and y between x and z."""
    import pyarrow as pa

    if any(_is_list(f.type) and _is_number(f.type.value_type) for f in schema):
        return frozenset()  # the embedding, beside which no column is a dimension
    numbers = {f.name.lower(): f.name for f in schema if _is_number(f.type)}
    axes = {numbers["y"]} if {"x", "y", "z"} <= set(numbers) else set()
    named = [f.name for f in schema if is_label_name(f.name) and pa.types.is_floating(f.type)]
    fractions: set[str] = set()
    for batch in file.batches(named, 1 << 16) if named else ():
        fractions |= {name for name in set(named) - fractions if _has_fractions(batch.column(name))}
        if len(fractions) == len(named):
            break
    return frozenset(axes | fractions)


def _has_fractions(column: Any) -> bool:
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind != "f":  # of a text file
        values = np.array([float(value) for value in values if value is not None and is_number(value)])
    return bool((np.isfinite(values) & (values != np.round(values))).any())


def _columns(file: ColumnFile, schema: Any, key: str | None) -> tuple[list[str], list[str]]:
    import pyarrow as pa

    path, whole_numbers = file.path, file.whole_numbers
    lists = [f.name for f in schema if _is_list(f.type) and _is_number(f.type.value_type)]
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
    numbers = [f.name for f in schema if _is_number(f.type) and not file.is_label(f.name)]
    numbers = [name for name in numbers if not name.startswith("__index_level")]
    kinds = {f.name: f.type for f in schema}  # by name the schema itself would search all its columns
    floats = [name for name in numbers if name in file.dimensions or pa.types.is_floating(kinds[name])]
    chosen = numbers if whole_numbers else floats or numbers
    if not chosen:
        raise DataError(f"{path} has no column of numbers or of lists of them: {', '.join(schema.names)}")
    taken = set(chosen)
    left_out = [name for name in schema.names if name not in taken and not file.is_label(name)]
    of_numbers = "1 column of numbers is" if len(chosen) == 1 else f"{len(chosen):,} columns of numbers are"
    notes = [f"{path}: {of_numbers} read as one row each"]
    if left_out:
        more = f" and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
        columns = "1 other column is" if len(left_out) == 1 else f"{len(left_out):,} other columns are"
        notes.append(f"{path}: {columns} left out: {', '.join(left_out[:3])}{more}")
    return chosen, notes


def _width(file: ColumnFile, column: str) -> int:
    batch = next((batch for batch in file.batches([column], 1) if len(batch)), None)
    if batch is None:
        raise DataError(f"{file.path} holds no rows")
    row = batch.column(0)[0].as_py()
    if row is None:
        raise DataError(f"{file.path}[{column}] row 0 is missing")
    return len(row)


class _ColumnTable(Table):
    def __init__(self, file: ColumnFile, columns: list[str], n: int, d: int, dtype: Any) -> None:
        self.file, self.columns, self.n, self.d, self.dtype = file, columns, n, d, dtype
        self.path = file.path

    def scan(self, rows: int) -> Iterator[Tensor]:
        return self._read(rows, None, 0)

    def take(self, index: Indices) -> Tensor:
        out = torch.empty(len(index), self.d, dtype=self.dtype)
        begin = 0
        for group, size in enumerate(self.file.groups):
            if np.searchsorted(index, begin + size) > np.searchsorted(index, begin):
                start = begin
                for part in self._read(MOST_AT_ONCE, [group], begin):
                    first, last = np.searchsorted(index, [start, start + len(part)])
                    out[first:last] = part[torch.from_numpy(index[first:last] - start)]
                    start += len(part)
            begin += size
        return out

    def _read(self, rows: int, groups: list[int] | None, start: int) -> Iterator[Tensor]:
        rows = max(1, min(rows, MOST_AT_ONCE // self.d))
        for batch in self.file.batches(self.columns, rows, groups):
            yield self._matrix(batch, start)
            start += len(batch)

    def _matrix(self, batch: Any, start: int) -> Tensor:
        import pyarrow.compute as pc

        for name, column in zip(self.columns, batch.columns, strict=True):
            if column.null_count:
                row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise DataError(f"{self.path}[{name}] row {row:,} is missing")
        if not _is_list(batch.column(0).type):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
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
