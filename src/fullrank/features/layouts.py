"""Three layouts for one split of features: safetensors, parquet, and numpy's memory maps in a folder.

Each is written a part at a time, whatever the size, and opened without reading what is not asked for. The
columns are one matrix a tap, `indices`, and `labels` where there are any.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["INDICES", "LABELS", "LAYOUTS", "Column", "Layout", "LayoutName"]

LayoutName: TypeAlias = Literal["safetensors", "parquet", "npy"]
LABELS, INDICES = "labels", "indices"
FORMAT = "fullrank-features"
AT_ONCE = 1 << 22  # bytes of a part that are read in one go


@dataclass(frozen=True)
class Column:
    """A matrix or a vector whose bytes lie in several files, one after the other.

    Attributes:
        files: raw numbers in native order, row by row.
        dtype: of the numbers.
        width: of a row; 0 makes it a vector.
    """

    files: Sequence[Path]
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * max(1, self.width)

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, d], or [n]."""
        n = sum(file.stat().st_size for file in self.files) // self.row_bytes
        return (n, self.width) if self.width else (n,)

    def parts(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """All rows in order, at most so many at once; None is as many as make 4 MB."""
        step = (rows or max(1, AT_ONCE // self.row_bytes)) * self.row_bytes
        for file in self.files:
            with file.open("rb") as opened:
                while block := opened.read(step):
                    part = np.frombuffer(block, self.dtype)
                    yield part.reshape(-1, self.width) if self.width else part


class Opened(NamedTuple):
    """A file of features: what it says of itself, its columns' names, and what reads one of them."""

    provenance: dict[str, Any]
    names: Sequence[str]
    column: Callable[[str], Tensor]


@dataclass(frozen=True)
class Layout:
    """How a split lies on the disk.

    Attributes:
        suffix: of its file, or "" for a folder.
        write: to a path, columns by name, with their provenance.
        open: from a path; raises OSError, ValueError or KeyError where it is damaged.
    """

    suffix: str
    write: Callable[[Path, Mapping[str, Column], Mapping[str, Any]], None]
    open: Callable[[Path], Opened]

    def place(self, folder: Path, split: str) -> Path:
        """Where a split lies in a folder."""
        return folder / f"{split}{self.suffix}"


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...], offset: int) -> Tensor:
    """A tensor over the bytes of a file, which what is written to the tensor never reaches."""
    return torch.from_numpy(np.memmap(path, dtype, "c", offset, shape))


# safetensors: 8 bytes of length, a JSON header, the tensors' bytes; its library would want them in memory

_CODES = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


def _write_safetensors(path: Path, columns: Mapping[str, Column], provenance: Mapping[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "provenance": json.dumps(provenance)}}
    names = sorted(columns, key=lambda name: -columns[name].dtype.itemsize)  # wider numbers first: aligned
    at = 0
    for name in names:
        column = columns[name]
        code = next(code for code, dtype in _CODES.items() if dtype == column.dtype)
        end = at + column.shape[0] * column.row_bytes
        header[name] = {"dtype": code, "shape": list(column.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            for part in columns[name].parts():
                file.write(part.data)


def _open_safetensors(path: Path) -> Opened:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass  # the library checks header and length
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    provenance: dict[str, Any] = json.loads(header.pop("__metadata__")["provenance"])

    def column(name: str) -> Tensor:
        said = header[name]
        return _mapped(
            path, _CODES[said["dtype"]], tuple(said["shape"]), 8 + length + said["data_offsets"][0]
        )

    return Opened(provenance, list(header), column)


# parquet: a column of lists of fixed length a tap, and two of whole numbers, called as in a table

_IN_TABLE = {LABELS: "label", INDICES: "index"}
_GROUP = 4096  # rows in a row group


def _write_parquet(path: Path, columns: Mapping[str, Column], provenance: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def kind(column: Column) -> Any:
        element = pa.from_numpy_dtype(column.dtype)
        return pa.list_(element, column.width) if column.width else element

    fields = [pa.field(_IN_TABLE.get(name, name), kind(column)) for name, column in columns.items()]
    said = {"format": FORMAT, "provenance": json.dumps(provenance)}
    with parquet.ParquetWriter(path, pa.schema(fields, metadata=said)) as writer:
        for parts in zip(*(column.parts(_GROUP) for column in columns.values()), strict=True):
            arrays = [
                pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1])
                if part.ndim == 2
                else pa.array(part)
                for part in parts
            ]
            writer.write_batch(pa.record_batch(arrays, schema=writer.schema))


def _open_parquet(path: Path) -> Opened:
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(path)
    provenance: dict[str, Any] = json.loads(schema.metadata[b"provenance"])
    names = {{"label": LABELS, "index": INDICES}.get(name, name): name for name in schema.names}

    def column(name: str) -> Tensor:
        stored = parquet.read_table(path, columns=[names[name]])[names[name]].combine_chunks()
        if hasattr(stored.type, "list_size"):
            return torch.from_numpy(stored.flatten().to_numpy().reshape(-1, stored.type.list_size).copy())
        return torch.from_numpy(stored.to_numpy().copy())

    return Opened(provenance, list(names), column)


# numpy: a folder with one file a column


def _write_npy(path: Path, columns: Mapping[str, Column], provenance: Mapping[str, Any]) -> None:
    path.mkdir()
    for name, column in columns.items():
        with (path / f"{name}.npy").open("wb") as file:
            said = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
            np.lib.format.write_array_header_1_0(file, said)
            for part in column.parts():
                file.write(part.data)
    (path / "provenance.json").write_text(json.dumps(provenance, indent=2))


def _open_npy(path: Path) -> Opened:
    provenance: dict[str, Any] = json.loads((path / "provenance.json").read_text())

    def column(name: str) -> Tensor:
        array: Any = np.load(path / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)

    return Opened(provenance, [file.stem for file in path.glob("*.npy")], column)


LAYOUTS: dict[LayoutName, Layout] = {
    "safetensors": Layout(".safetensors", _write_safetensors, _open_safetensors),
    "parquet": Layout(".parquet", _write_parquet, _open_parquet),
    "npy": Layout("", _write_npy, _open_npy),
}
"""By name."""
