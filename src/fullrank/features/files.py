"""Arrays in npy, npz, torch, safetensors, HDF5 and zarr files, never unpickled."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from fullrank.encoders.encoder import first_line
from fullrank.encoders.torch_files import load_torch_file
from fullrank.errors import DataError, UsageError
from fullrank.features.keys import choose_key, label_key
from fullrank.features.tables import (
    MemoryTable,
    RangeTable,
    Stored,
    Table,
    check_matrix,
    to_rows,
)


@dataclass
class OpenedTable:
    """Embeddings of a file and the labels beside them, with their names."""

    table: Table
    key: str | None = None
    labels: Any = None
    label_key: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file, and how each is read.

    Attributes:
        arrays: by name; a file that is one array has it under "".
        table: makes the table of an array, given its name and the dtype of its rows.
        values: reads an array whole.
    """

    path: Path
    arrays: Mapping[str, Stored]
    table: Callable[[str, Any], Table]
    values: Callable[[str], Any]
    notes: list[str] = field(default_factory=list)

    def choose(self, key: str | None) -> OpenedTable:
        """Choose embeddings and labels among the arrays; `key` names the wanted one.

        Raises:
            DataError, UnknownNameError: as `choose_key` and `check_matrix`.
        """
        if list(self.arrays) == [""]:
            dtype, notes = check_matrix(str(self.path), self.arrays[""])
            return OpenedTable(self.table("", dtype), notes=self.notes + notes)
        chosen = choose_key(str(self.path), self.arrays, key)
        dtype, notes = check_matrix(f"{self.path}[{chosen}]", self.arrays[chosen])
        table = self.table(chosen, dtype)
        labels = label_key(self.arrays, chosen, table.n)
        values = None if labels is None else self.values(labels)
        return OpenedTable(table, chosen, values, labels, notes + self.notes)


def _sliced(
    path: Path,
    arrays: Mapping[str, Stored],
    opened: Callable[[str], AbstractContextManager[Any]],
    gaps: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> ArrayFile:
    """A file whose arrays can be sliced once they are opened by name."""

    def table(name: str, dtype: Any) -> Table:
        return RangeTable(arrays[name].shape, dtype, lambda: opened(name), (gaps or {}).get(name, 8))

    def values(name: str) -> Any:
        with opened(name) as array:
            return np.asarray(array[:])

    return ArrayFile(path, arrays, table, values, list(notes))


def existing(source: Path | str) -> Path:
    """The path, expanded; a DataError names the nearest where there is nothing."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise DataError(f"{path} does not exist: there is no folder {path.parent}")
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 3, 0.6)
    raise DataError(f"{path} does not exist" + (f"; did you mean {' or '.join(near)}?" if near else ""))


# numpy's own: an array is a header and its bytes, alone in a file or as a member of a zip archive


@dataclass(frozen=True)
class _Header:
    stored: Stored
    fortran: bool
    length: int


def _header(file: IO[bytes], where: str) -> _Header:
    try:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = reader[version](file)
    except (ValueError, KeyError, EOFError) as error:
        raise DataError(f"{where} is no array of numpy, or damaged: {first_line(error, 120)}") from error
    return _Header(Stored(shape, dtype), fortran and len(shape) > 1, file.tell())


def _mapped(path: Path, where: str, header: _Header, offset: int) -> Any:
    shape, kind = header.stored.shape, header.stored.dtype
    try:
        return np.memmap(path, kind, "r", offset, shape, "F" if header.fortran else "C")  # type: ignore[call-overload]
    except ValueError as error:
        raise DataError(f"{where} is cut short: its header promises {header.stored}") from error


def read_npy(path: Path) -> ArrayFile:
    """One array, mapped, in either order."""
    with path.open("rb") as file:
        header = _header(file, str(path))

    def table(_: str, dtype: Any) -> Table:
        return MemoryTable(_mapped(path, str(path), header, header.length), dtype)

    return ArrayFile(path, {"": header.stored}, table, lambda _: np.load(path, allow_pickle=False))


def read_npz(path: Path) -> ArrayFile:
    """Named arrays, mapped where `np.savez` wrote them, else decompressed.

    A compressed array is streamed, so that rows further on cost the decompression of all before them; one in
    Fortran order has to be decompressed whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")
            }
            headers = {}
            for name, member in members.items():
                with archive.open(member) as file:
                    headers[name] = _header(file, f"{path}[{name}]")
            compressed = {
                name: archive.getinfo(member).compress_type != zipfile.ZIP_STORED
                for name, member in members.items()
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is no archive of numpy, or damaged: {error}") from error
    notes: list[str] = []

    def table(name: str, dtype: Any) -> Table:
        header = headers[name]
        if not compressed[name]:
            offset = _member_start(path, members[name]) + header.length
            return MemoryTable(_mapped(path, f"{path}[{name}]", header, offset), dtype)
        if header.fortran:
            notes.append(f"{path}[{name}] is compressed and in Fortran order: read whole into memory")
            return MemoryTable(_whole(path, members[name]), dtype)
        notes.append(f"{path}[{name}] is compressed: decompressed again on every pass")
        return _Compressed(path, members[name], header, dtype)

    arrays = {name: header.stored for name, header in headers.items()}
    return ArrayFile(path, arrays, table, lambda name: _whole(path, members[name]), notes)


def _member_start(path: Path, member: str) -> int:
    """Where an uncompressed member begins: behind its local header."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        start = archive.getinfo(member).header_offset
        file.seek(start + 26)
        lengths = file.read(4)
    return start + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _whole(path: Path, member: str) -> Any:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path}[{member.removesuffix('.npy')}] cannot be read: {error}") from error


class _Compressed(Table):
    """An array that is decompressed from its beginning, a block at a time."""

    def __init__(self, path: Path, member: str, header: _Header, dtype: Any) -> None:
        self.path, self.member, self.header, self.dtype = path, member, header, dtype
        self.n, self.d = header.stored.shape

    def scan(self, rows: int) -> Iterator[Tensor]:
        stored: Any = self.header.stored.dtype
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            file.read(self.header.length)
            for start in range(0, self.n, rows):
                block = np.empty((min(rows, self.n - start), self.d), stored)
                flat, at, member = block.reshape(-1).view(np.uint8), 0, cast(Any, file)
                while at < len(flat):
                    at += (read := member.readinto(flat[at:]))
                    if not read:
                        raise EOFError("the archive ends too early")
                yield to_rows(block, self.dtype)


# torch


def read_torch(path: Path) -> ArrayFile:
    """A tensor or nested mappings of them, mapped but for files of old PyTorch."""
    content, mapped = load_torch_file(path)
    tensors = _flat(content)
    if not tensors:
        raise DataError(f"{path} holds no tensors: it is a {type(content).__name__}")

    arrays = {name: _stored(tensor) for name, tensor in tensors.items()}
    notes = [] if mapped else [f"{path} cannot be mapped: read whole into memory"]
    return _sliced(path, arrays, lambda name: nullcontext(tensors[name].detach()), notes=notes)


def _stored(tensor: Tensor) -> Stored:
    if tensor.layout != torch.strided:
        return Stored(tuple(tensor.shape), "a sparse tensor (save it dense, with .to_dense())")
    return Stored(tuple(tensor.shape), "quantised numbers" if tensor.is_quantized else tensor.dtype)


def _flat(content: Any, within: str = "") -> dict[str, Tensor]:
    """Tensors by their path in nested mappings and lists, with slashes."""
    if isinstance(content, Tensor):
        return {within: content}
    if isinstance(content, list | tuple):
        content = {str(i): part for i, part in enumerate(content)}
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for name, part in content.items():
            tensors |= _flat(part, f"{within}/{name}" if within else str(name))
    return tensors


# safetensors

_SAFETENSORS_DTYPES: dict[str, np.dtype[Any] | str] = {
    "F64": np.dtype("f8"),
    "F32": np.dtype("f4"),
    "F16": np.dtype("f2"),
    **{f"{kind.upper()}{8 * size}": np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)},
    "BOOL": np.dtype("bool"),
}


def read_safetensors(path: Path) -> ArrayFile:
    """Named tensors, read in slices: costs no memory before rows are read."""
    from safetensors import SafetensorError, safe_open

    def dtype_of(name: str) -> np.dtype[Any] | torch.dtype | str:
        return torch.bfloat16 if name == "BF16" else _SAFETENSORS_DTYPES.get(name, f"numbers of type {name}")

    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            arrays = {
                name: Stored(tuple(part.get_shape()), dtype_of(part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no safetensors file, or damaged: {error}") from error

    @contextmanager
    def opened(name: str) -> Iterator[Any]:
        with safe_open(path, framework="pt") as file:
            yield file.get_slice(name)

    return _sliced(path, arrays, opened)


# HDF5 and zarr: ranges of stored chunks


def read_hdf5(path: Path) -> ArrayFile:
    """Datasets of an HDF5 file, read in ranges. Needs h5py."""
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
        raise DataError(f"{path} is no HDF5 file, or damaged: {first_line(error)}") from error

    @contextmanager
    def opened(name: str) -> Iterator[Any]:
        with h5py.File(path, "r") as file:
            array: Any = file[name]
            yield array.asstr() if arrays[name].kind == "text" else array

    return _sliced(path, arrays, opened, chunks)


def read_zarr(path: Path) -> ArrayFile:
    """Arrays of a zarr directory, read in ranges of chunks. Needs zarr.

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
    stored: dict[str, Any] = {"": root} if hasattr(root, "shape") else dict(_zarr_arrays(root, ""))
    arrays = {name: Stored(tuple(array.shape), _zarr_dtype(array)) for name, array in stored.items()}
    chunks = {name: array.chunks[0] for name, array in stored.items() if array.chunks}
    return _sliced(path, arrays, lambda name: nullcontext(stored[name]), chunks)


def _zarr_arrays(group: Any, within: str, depth: int = 4) -> Iterator[tuple[str, Any]]:
    for name, array in group.arrays():
        yield f"{within}{name}", array
    if depth:
        for name, inner in group.groups():
            yield from _zarr_arrays(inner, f"{within}{name}/", depth - 1)


def _zarr_dtype(array: Any) -> np.dtype[Any] | str:
    """The dtype, or what is wrong with it: a codec that unpickles is never run."""
    metadata = getattr(array, "metadata", array)
    codecs: list[Any] = []
    for name in ("filters", "compressor", "codecs"):
        part = getattr(metadata, name, None)
        codecs += part if isinstance(part, list | tuple) else [part]
    if any("pickle" in f"{type(codec).__name__} {codec!r}".lower() for codec in codecs):
        return "pickles, which can run code and are never opened"
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    return dtype
