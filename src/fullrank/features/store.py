"""Features that `fullrank embed` writes into a folder, in three layouts.

    F/embed.json            what was embedded, with which network, from which images, in which layout
    F/train.safetensors     one file a split: a tensor a tap, `labels` and `indices`; the header is provenance
    F/test.safetensors      or test.parquet, or a folder test/ with TAP.npy, labels.npy and indices.npy

Each layout is written a block at a time, whatever the size, and opened without reading what is not asked for.

Example:
    >>> import tempfile, torch
    >>> from fullrank.features.writing import StoreWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = StoreWriter(Path(folder), "train", {"subject": "noise", "taps": ["features"]})
    ...     writer.add({"features": torch.ones(3, 2)}, torch.arange(3), None, images=3)
    ...     _ = writer.finish({"classes": None})
    ...     stored = open_stored(Path(folder))["train"]
    ...     stored.rows["features"].shape, stored.indices.tolist(), stored.provenance["subject"]
    (torch.Size([3, 2]), [0, 1, 2], 'noise')
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fullrank.encoders.hooks import FEATURES
from fullrank.errors import DataError, UnknownNameError
from fullrank.untrusted.npy import read_npy_header
from fullrank.untrusted.parsing import parse_json, read_json, read_text, refusing
from fullrank.untrusted.paths import require_regular

SPLITS = ("train", "test")
MANIFEST = "embed.json"
LABELS, INDICES = "labels", "indices"
FORMAT = "fullrank-features"
AT_ONCE = 1 << 22  # bytes of a block that are read in one go


@dataclass(frozen=True)
class Column:
    """A matrix in raw files one after the other; a width of 0 makes it a vector."""

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

    def blocks(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """All rows in order, at most so many at once; None is as many as make 4 MB."""
        step = (rows or max(1, AT_ONCE // self.row_bytes)) * self.row_bytes
        for file in self.files:
            with file.open("rb") as opened:
                while read := opened.read(step):
                    block = np.frombuffer(read, self.dtype)
                    yield block.reshape(-1, self.width) if self.width else block


class Opened(NamedTuple):
    """A file of features: its provenance, columns, and a reader of one of them."""

    provenance: dict[str, Any]
    names: Sequence[str]
    column: Callable[[str], Tensor]


@dataclass(frozen=True)
class Layout:
    """How a split lies on the disk.

    Attributes:
        suffix: of its file, or "" for a folder.
        write: to a path, columns by name, with their provenance.
        open: from a path; raises whatever its library does where it is damaged.
    """

    suffix: str
    write: Callable[[Path, Mapping[str, Column], Mapping[str, Any]], None]
    open: Callable[[Path], Opened]

    def place(self, folder: Path, split: str) -> Path:
        """Where a split lies in a folder."""
        return folder / f"{split}{self.suffix}"


# safetensors: 8 bytes of length, a JSON header, the tensors' bytes; its library would want them in memory

_CODES: dict[str, Any] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


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
            for block in columns[name].blocks():
                file.write(block.data)


def _open_safetensors(path: Path) -> Opened:
    from safetensors import safe_open

    file: Any = safe_open(path, framework="pt")  # left open; its tensors are mapped copy on write
    return Opened(_provenance((file.metadata() or {})["provenance"]), list(file.keys()), file.get_tensor)


def _provenance(text: str | bytes) -> dict[str, Any]:
    values = parse_json(text if isinstance(text, str) else text.decode(), "its provenance")
    taps = values.get("taps") if isinstance(values, dict) else None
    if not isinstance(taps, list) or not all(isinstance(tap, str) for tap in taps):
        raise ValueError("its provenance names no taps")
    return dict(values)


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
        for blocks in zip(*(column.blocks(_GROUP) for column in columns.values()), strict=True):
            arrays = [
                pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1])
                if block.ndim == 2
                else pa.array(block)
                for block in blocks
            ]
            writer.write_batch(pa.record_batch(arrays, schema=writer.schema))


def _open_parquet(path: Path) -> Opened:
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(path)
    provenance = _provenance(schema.metadata[b"provenance"])
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
            for block in column.blocks():
                file.write(block.data)
    (path / "provenance.json").write_text(json.dumps(provenance, indent=2))


def _open_npy(path: Path) -> Opened:
    provenance = _provenance(read_text(path / "provenance.json"))

    def column(name: str) -> Tensor:
        file = require_regular(path / f"{name}.npy")
        with file.open("rb") as opened:
            header = read_npy_header(opened, str(file), file.stat().st_size)
        if header.dtype.hasobject:
            raise DataError(f"{file} holds Python objects, which are never unpickled")
        array: Any = np.load(file, mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)

    return Opened(provenance, [file.stem for file in path.glob("*.npy")], column)


LAYOUTS: dict[str, Layout] = {
    "safetensors": Layout(".safetensors", _write_safetensors, _open_safetensors),
    "parquet": Layout(".parquet", _write_parquet, _open_parquet),
    "npy": Layout("", _write_npy, _open_npy),
}
"""By name."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The description in a folder of features, or None where it is none."""
    try:
        manifest = read_json(folder / MANIFEST)
    except DataError:
        return None
    return manifest if manifest.get("layout") in list(LAYOUTS) else None


def partial_folder(folder: Path, split: str) -> Path:
    """Where a split lies that is not finished."""
    return folder / f".{split}.partial"


@dataclass(frozen=True)
class Stored:
    """One split of one subject's features.

    Attributes:
        rows: by tap, float32 [n, d]; memory-mapped, but for parquet, which is read when a tap is asked for.
        labels: int64 [n], -1 where an image has none; None where no image has one.
        indices: int64 [n], which images of the split the rows are of. With k views k rows in turn have one.
        provenance: subject, data, split, taps, views, classes (names or None), image_size, mean, std,
            untrained (whether the encoder took no step), fullrank.
    """

    rows: Mapping[str, Tensor]
    labels: Tensor | None
    indices: Tensor
    provenance: Mapping[str, Any]


def is_stored(path: Path) -> bool:
    """Tell whether `fullrank embed` wrote a folder, finished or not."""
    return path.is_dir() and read_manifest(path) is not None


def open_stored(path: Path) -> dict[str, Stored]:
    """Open a folder that `fullrank embed` wrote: `train`, `test` or both.

    Raises:
        DataError: no such folder, a split that is not finished, or a damaged file.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise DataError(f"{path} holds no features of ours: `fullrank embed ... --out {path}` writes them")
    layout, splits = LAYOUTS[manifest["layout"]], {}
    for split in SPLITS:
        file = layout.place(path, split)
        if partial_folder(path, split).exists() and not file.exists():
            raise DataError(f"{path} is not finished: the same `fullrank embed` again goes on with {split}")
        if not file.exists():
            continue
        with refusing(f"{file} is damaged"):
            if layout.suffix:
                require_regular(file)
            provenance, names, column = layout.open(file)
            labels = column(LABELS) if LABELS in names else None
            rows = _Taps(str(file), [name for name in provenance["taps"] if name in names], column)
            indices = column(INDICES)
            if indices.ndim != 1 or (labels is not None and labels.shape != indices.shape):
                raise ValueError("its labels and indices are not one a row")
            splits[split] = Stored(rows, labels, indices, provenance)
    if not splits:
        raise DataError(f"{path} is not finished: the same `fullrank embed` again goes on")
    return splits


def main_tap(taps: Iterable[str]) -> str:
    """The tap that stands for all where none is named: the features, else the deepest.

    Example:
        >>> main_tap({"features": 0, "projector": 1}), main_tap({"layer1": 0, "layer4": 1})
        ('features', 'layer4')
    """
    names = list(taps)
    return FEATURES if FEATURES in names else names[-1]


class _Taps(Mapping[str, Tensor]):
    """Matrices that are opened when they are asked for."""

    def __init__(self, where: str, names: Sequence[str], column: Callable[[str], Tensor]) -> None:
        self.where, self.names, self.column = where, names, column

    def __getitem__(self, tap: str) -> Tensor:
        if tap not in self.names:
            raise UnknownNameError("tap", tap, self.names)
        with refusing(f"{self.where} is damaged"):
            return self.column(tap)

    def __contains__(self, tap: object) -> bool:
        return tap in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
