"""Matrices of rows in memory or in files, read a block at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fullrank.errors import DataError

Indices: TypeAlias = npt.NDArray[np.int64]

_MOST_AT_ONCE = 1 << 22  # elements that one reading of wanted rows may span: 16 MB of float32
_KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "booleans", "c": "complex numbers"}
_KINDS |= {"U": "text", "S": "text", "T": "text", "O": "Python objects", "M": "dates", "m": "durations"}
_NUMPY = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Stored:
    """Shape and dtype of an array; a format's own name for a foreign dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | torch.dtype | str

    @property
    def kind(self) -> str:
        """`float`, `integer`, or what else the elements are, in words."""
        if isinstance(self.dtype, torch.dtype):
            if self.dtype.is_complex:
                return "complex numbers"
            if self.dtype.is_floating_point:
                return "float"
            return "booleans" if self.dtype is torch.bool else "integer"
        if isinstance(self.dtype, str):
            return self.dtype
        return _KINDS.get(self.dtype.kind, f"elements of type {self.dtype}")

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{dtype} {list(self.shape)}"


def check_matrix(where: str, stored: Stored) -> tuple[torch.dtype, list[str]]:
    """Check that an array is a matrix; the dtype that it is read in, and notes.

    Floating point stays as it is. Integers of up to 16 bits become float32, wider ones float64, with a note.

    Raises:
        DataError: wrong number of axes, no rows or columns, or elements that are no real numbers.

    Example:
        >>> check_matrix("z.npy", Stored((10, 4), np.dtype("int8")))
        (torch.float32, ['z.npy holds integers (int8), read as float32'])
    """
    shape = list(stored.shape)
    if stored.kind == "Python objects":
        raise DataError(
            f"{where} holds Python objects, which are never unpickled: save an array of one dtype, as float32"
        )
    if stored.kind not in ("float", "integer"):
        raise DataError(f"{where} holds {stored.kind}: embeddings are real numbers, as float32")
    if len(shape) != 2:
        remedy = {
            3: "; pool tokens first: x[:, 0] for the class token, or x.mean(1), is [n, d]",
            4: "; pool maps first: x.mean((2, 3)) is [n, d]",
        }.get(len(shape), ", one row per image")
        raise DataError(f"{where} has the shape {shape}: embeddings are a matrix [n, d]{remedy}")
    if not shape[0]:
        raise DataError(f"{where} holds no rows: its shape is {shape}")
    if not shape[1]:
        raise DataError(f"{where} holds rows without columns: its shape is {shape}")
    name = str(stored.dtype).removeprefix("torch.")
    size = stored.dtype.itemsize if not isinstance(stored.dtype, str) else 0
    if stored.kind == "integer":
        dtype = torch.float32 if size <= 2 else torch.float64
        return dtype, [f"{where} holds integers ({name}), read as {str(dtype).removeprefix('torch.')}"]
    if isinstance(stored.dtype, torch.dtype) and size > 1:
        return stored.dtype, []
    dtype = {2: torch.float16, 4: torch.float32, 1: torch.float32}.get(size, torch.float64)
    notes = (
        [] if size in (2, 4, 8) else [f"{where} holds {name}, read as {str(dtype).removeprefix('torch.')}"]
    )
    return dtype, notes


def to_rows(part: Any, dtype: torch.dtype) -> Tensor:
    """A part of an array as a contiguous tensor of its own on the CPU.

    Example:
        >>> to_rows(np.arange(4, dtype=">i2").reshape(2, 2), torch.float32)
        tensor([[0., 1.],
                [2., 3.]])
    """
    if isinstance(part, Tensor):
        return part.detach().to("cpu", dtype, copy=True).contiguous()
    return torch.from_numpy(np.array(part, dtype=_NUMPY[dtype], order="C"))


class Table(ABC):
    """A matrix [n, d] that is read a block at a time, as tensors of `dtype`."""

    n: int
    d: int
    dtype: torch.dtype

    @abstractmethod
    def scan(self, rows: int) -> Iterator[Tensor]:
        """All rows in order, as tensors [b, d] with b at most `rows`."""

    def place_of(self, row: int) -> tuple[str, int]:
        """Name of the file that holds a row, empty for a single one; place in it."""
        return "", row

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index`; this default reads all rows."""
        out = torch.empty(len(index), self.d, dtype=self.dtype)
        start = 0
        for part in self.scan(max(1, _MOST_AT_ONCE // self.d)):
            first, last = np.searchsorted(index, [start, start + len(part)])
            out[first:last] = part[torch.from_numpy(index[first:last] - start)]
            start += len(part)
        return out


class RangeTable(Table):
    """A table of which any range of rows can be read alone.

    Args:
        shape: [n, d].
        dtype: that the rows are read in.
        opened: opens what the rows are sliced from, for as long as they are read.
        gap: read on over so many unwanted rows rather than begin anew.

    Example:
        >>> z = torch.arange(12.0).view(6, 2)
        >>> table = MemoryTable(z, torch.float32)
        >>> [part[:, 0].tolist() for part in table.scan(4)], table.take(np.array([1, 5]))[:, 0].tolist()
        ([[0.0, 2.0, 4.0, 6.0], [8.0, 10.0]], [2.0, 10.0])
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        opened: Callable[[], AbstractContextManager[Any]],
        gap: int = 8,
    ) -> None:
        (self.n, self.d), self.dtype, self.opened, self.gap = shape, dtype, opened, gap

    def scan(self, rows: int) -> Iterator[Tensor]:
        """All rows in order."""
        with self.opened() as whole:
            for start in range(0, self.n, rows):
                yield to_rows(whole[start : min(start + rows, self.n)], self.dtype)

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index`, read in few ranges."""
        out = torch.empty(len(index), self.d, dtype=self.dtype)
        with self.opened() as whole:
            for first, last in _ranges(index, self.gap, max(self.gap, _MOST_AT_ONCE // self.d)):
                start = int(index[first])
                block = to_rows(whole[start : int(index[last - 1]) + 1], self.dtype)
                out[first:last] = block[torch.from_numpy(index[first:last] - start)]
        return out


def _ranges(index: Indices, gap: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cut a sorted index where rows lie far apart or would span too many."""
    first = 0
    for k in range(1, len(index) + 1):
        if k == len(index) or index[k] - index[k - 1] > gap or index[k] - index[first] >= longest:
            yield first, k
            first = k


class MemoryTable(RangeTable):
    """A table over a tensor or an array that is in memory, or mapped into it."""

    def __init__(self, rows: Any, dtype: torch.dtype) -> None:
        super().__init__(rows.shape, dtype, lambda: nullcontext(rows))


class RowRange(Table):
    """Some rows in turn of a table of which any range can be read alone.

    Example:
        >>> z = torch.arange(12.0).view(6, 2)
        >>> [part[:, 0].tolist() for part in RowRange(MemoryTable(z, z.dtype), 1, 4).scan(2)]
        [[2.0, 4.0], [6.0]]
    """

    def __init__(self, table: RangeTable, first: int, last: int) -> None:
        self.table, self.first, self.last = table, first, last
        self.n, self.d, self.dtype = last - first, table.d, table.dtype

    def scan(self, rows: int) -> Iterator[Tensor]:
        """The rows of the range in order."""
        with self.table.opened() as whole:
            for start in range(self.first, self.last, rows):
                yield to_rows(whole[start : min(start + rows, self.last)], self.dtype)

    def place_of(self, row: int) -> tuple[str, int]:
        """The same row of the whole table."""
        return self.table.place_of(row + self.first)

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index` within the range."""
        return self.table.take(index + self.first)


def place_among(names: Sequence[str], ends: Sequence[int] | Indices, row: int) -> tuple[str, int]:
    """Name of the file that holds a row, empty where there are no names; place in it.

    Example:
        >>> place_among(["a.npy", "b.npy"], [0, 3, 5], 4)
        ('b.npy', 1)
    """
    at = int(np.searchsorted(ends, row, side="right")) - 1
    return (names[at], row - int(ends[at])) if names else ("", row)


class Shards(Table):
    """Several tables of one width, one after the other.

    Args:
        tables: there may be none, where width and dtype are given.
        d: their width.
        dtype: that the rows come in.
        names: of the tables, for messages.

    Example:
        >>> z = torch.arange(12.0).view(6, 2)
        >>> table = Shards([MemoryTable(z[:4], z.dtype), MemoryTable(z[4:], z.dtype)])
        >>> [len(part) for part in table.scan(3)], table.take(np.array([3, 4]))[:, 0].tolist()
        ([3, 1, 2], [6.0, 8.0])
    """

    def __init__(
        self,
        tables: Sequence[Table],
        d: int | None = None,
        dtype: torch.dtype | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.tables, self.names = tables, names
        self.ends = np.cumsum([0, *(table.n for table in tables)])
        self.n, self.d = int(self.ends[-1]), d or tables[0].d
        self.dtype = dtype or tables[0].dtype
        for table in tables if dtype is None else ():
            self.dtype = torch.promote_types(self.dtype, table.dtype)

    def scan(self, rows: int) -> Iterator[Tensor]:
        """All rows in order; a tensor never spans two of the tables."""
        for table in self.tables:
            for part in table.scan(rows):
                yield part.to(self.dtype)

    def place_of(self, row: int) -> tuple[str, int]:
        """Name of the table that holds a row, and its place there."""
        return place_among(self.names, self.ends, row)

    def take(self, index: Indices) -> Tensor:
        """The rows [k, d] at the sorted `index`; tables without such rows are not opened."""
        cuts = np.searchsorted(index, self.ends)
        parts = [torch.empty(0, self.d, dtype=self.dtype)]
        for table, start, (first, last) in zip(self.tables, self.ends, pairwise(cuts), strict=False):
            if last > first:
                parts.append(table.take(index[first:last] - start).to(self.dtype))
        return torch.cat(parts)
