"""Arrays in npy, npz, torch and safetensors files, never unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from fullrank.encoders.torch_files import load_torch_file
from fullrank.errors import DataError
from fullrank.features.budget import require_memory
from fullrank.features.keys import choose_key, label_key
from fullrank.features.tables import (
    MemoryTable,
    RangeTable,
    Stored,
    Table,
    check_matrix,
    to_rows,
)
from fullrank.untrusted.npy import NpyHeader, load_npy, read_npy_header
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import expand_user, require_existing, require_regular


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
        check: raises DataError where an array's numbers are not there, or returns notes; called before it is
            read.
    """

    path: Path
    arrays: Mapping[str, Stored]
    table: Callable[[str, Any], Table]
    values: Callable[[str], Any]
    notes: list[str] = field(default_factory=list)
    check: Callable[[str], list[str]] = lambda _: []

    def choose(self, key: str | None) -> OpenedTable:
        """Choose embeddings and labels among the arrays; `key` names the wanted one.

        Raises:
            DataError, UnknownNameError: as `choose_key` and `check_matrix`.
        """
        if list(self.arrays) == [""]:
            dtype, notes = check_matrix(str(self.path), self.arrays[""])
            notes += self.check("")
            return OpenedTable(self.table("", dtype), notes=self.notes + notes)
        chosen = choose_key(str(self.path), self.arrays, key)
        dtype, notes = check_matrix(f"{self.path}[{chosen}]", self.arrays[chosen])
        notes += self.check(chosen)
        table = self.table(chosen, dtype)
        labels = label_key(self.arrays, chosen, table.n)
        if labels is not None:
            notes += self.check(labels)
        values = None if labels is None else self.values(labels)
        return OpenedTable(table, chosen, values, labels, notes + self.notes)


def sliced(
    path: Path,
    arrays: Mapping[str, Stored],
    opened: Callable[[str], AbstractContextManager[Any]],
    gaps: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
    check: Callable[[str], list[str]] = lambda _: [],
) -> ArrayFile:
    """A file whose arrays can be sliced once they are opened by name."""

    def table(name: str, dtype: Any) -> Table:
        return RangeTable(arrays[name].shape, dtype, lambda: opened(name), (gaps or {}).get(name, 8))

    def values(name: str) -> Any:
        nbytes = math.prod(arrays[name].shape) * getattr(arrays[name].dtype, "itemsize", 8)
        require_memory(f"{path}[{name}]", nbytes)
        with refusing(f"{path}[{name}] is damaged"), opened(name) as array:
            return np.asarray(array[:])

    return ArrayFile(path, arrays, table, values, list(notes), check)


def existing(source: Path | str) -> Path:
    """The path, expanded; a DataError names the nearest where there is nothing."""
    path = require_existing(expand_user(source))
    return path if path.is_dir() else require_regular(path)


# numpy's own: an array is a header and its bytes, alone in a file or as a member of a zip archive


def _mapped(path: Path, header: NpyHeader, offset: int) -> Any:
    return np.memmap(path, header.dtype, "r", offset, header.shape, "F" if header.fortran else "C")


def read_npy(path: Path) -> ArrayFile:
    """One array, mapped, in either order."""
    size = require_regular(path).stat().st_size
    with path.open("rb") as file:
        header = read_npy_header(file, str(path), size)
    behind = size - header.length - header.nbytes
    notes = [f"{path} holds {behind:,} bytes behind its array, which are not read"] if behind > 0 else []

    def table(_: str, dtype: Any) -> Table:
        return MemoryTable(_mapped(path, header, header.length), dtype)

    def values(_: str) -> Any:
        require_memory(str(path), header.nbytes)
        return load_npy(path)

    return ArrayFile(path, {"": Stored(header.shape, header.dtype)}, table, values, notes)


@dataclass(frozen=True)
class _Member:
    """An array in a zip archive: its entry, and its header."""

    path: Path
    entry: zipfile.ZipInfo
    header: NpyHeader

    @property
    def where(self) -> str:
        return f"{self.path}[{self.entry.filename.removesuffix('.npy')}]"

    @property
    def compressed(self) -> bool:
        return self.entry.compress_type != zipfile.ZIP_STORED

    def check(self) -> None:
        """Check that header, entry and archive agree on how long the array is."""
        entry, header = self.entry, self.header
        if not header.dtype.hasobject and header.length + header.nbytes != entry.file_size:
            raise DataError(
                f"{self.where} is damaged: its header promises {header}, and the archive holds "
                f"{entry.file_size - header.length:,} bytes of it"
            )
        most = MOST_DEFLATED * entry.compress_size + 1024 if self.compressed else entry.compress_size
        if entry.file_size > most or entry.compress_size > self.path.stat().st_size:
            raise DataError(f"{self.where} is damaged: {entry.file_size:,} bytes cannot be in the archive")

    def whole(self) -> np.ndarray:
        """The array, in memory."""
        if self.header.dtype.hasobject:
            raise DataError(f"{self.where} holds Python objects, which are never unpickled")
        require_memory(self.where, self.header.nbytes)
        block = np.empty(math.prod(self.header.shape), self.header.dtype)
        with refusing(f"{self.where} is damaged"), self.opened() as file:
            _fill(file, block)
            if file.read(1):  # at the end the checksum is compared
                raise ValueError("it goes on behind its end")
        return block.reshape(self.header.shape, order="F" if self.header.fortran else "C")

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The bytes of the array, behind its header."""
        with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as file:
            file.read(self.header.length)
            yield file

    def mapped(self) -> Any:
        """The array of an uncompressed member, mapped once its checksum is right."""
        with self.path.open("rb") as file:
            file.seek(self.entry.header_offset + 26)
            lengths = file.read(4)
            start = self.entry.header_offset + 30
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            file.seek(start)
            left, checksum = self.entry.file_size, 0
            while left and (block := file.read(min(left, 1 << 20))):
                checksum, left = zlib.crc32(block, checksum), left - len(block)
        if left or checksum != self.entry.CRC:
            raise DataError(f"{self.where} is damaged: its bytes are not those of its checksum")
        return _mapped(self.path, self.header, start + self.header.length)


def _fill(file: IO[bytes], block: np.ndarray) -> None:
    flat, at = block.reshape(-1).view(np.uint8), 0
    while at < len(flat):
        at += (read := cast(Any, file).readinto(flat[at:]))
        if not read:
            raise EOFError("it ends too early")


MOST_DEFLATED = 1032  # bytes that one byte of deflate can stand for
MOST_MEMBERS = 10_000


def _members(path: Path) -> tuple[dict[str, _Member], list[str]]:
    """The arrays of an archive, and a note where it holds something else."""
    with refusing(f"{path} is no archive of numpy, or damaged"), zipfile.ZipFile(path) as archive:
        everything = archive.infolist()
        entries = [entry for entry in everything if entry.filename.endswith(".npy")]
        if len(entries) > MOST_MEMBERS:
            raise ValueError(f"it would hold {len(entries):,} arrays")
        members: dict[str, _Member] = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in members:
                raise ValueError(f"it holds {name!r} twice")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name!r} is compressed as numpy does not")
            with archive.open(entry) as file:
                header = read_npy_header(file, f"{path}[{name}]", entry.file_size)
            members[name] = _Member(path, entry, header)
            members[name].check()
        others = len(everything) - len(entries)
        return members, [f"{path} holds {others} members that are no arrays: left out"] if others else []


def read_npz(path: Path) -> ArrayFile:
    """Named arrays, mapped where `np.savez` wrote them, else decompressed.

    A compressed array is streamed, so that rows further on cost the decompression of all before them; one in
    Fortran order has to be decompressed whole.
    """
    require_regular(path)
    members, notes = _members(path)

    def table(name: str, dtype: Any) -> Table:
        member = members[name]
        if not member.compressed:
            return MemoryTable(member.mapped(), dtype)
        if member.header.fortran:
            notes.append(f"{path}[{name}] is compressed and in Fortran order: read whole into memory")
            return MemoryTable(member.whole(), dtype)
        notes.append(f"{path}[{name}] is compressed: decompressed again on every pass")
        return _Compressed(member, dtype)

    arrays = {name: Stored(member.header.shape, member.header.dtype) for name, member in members.items()}
    return ArrayFile(path, arrays, table, lambda name: members[name].whole(), notes)


class _Compressed(Table):
    """An array that is decompressed from its beginning, a block at a time."""

    def __init__(self, member: _Member, dtype: Any) -> None:
        self.member, self.dtype = member, dtype
        self.n, self.d = member.header.shape

    def scan(self, rows: int) -> Iterator[Tensor]:
        with self.member.opened() as file:
            for start in range(0, self.n, rows):
                block = np.empty((min(rows, self.n - start), self.d), self.member.header.dtype)
                _fill(file, block)
                yield to_rows(block, self.dtype)
            if file.read(1):  # at the end the checksum is compared
                raise ValueError("it goes on behind its end")


# torch


def read_torch(path: Path) -> ArrayFile:
    """A tensor or nested mappings of them, mapped but for files of old PyTorch."""
    content, mapped = load_torch_file(path)
    tensors = _flat(content)
    if not tensors:
        raise DataError(f"{path} holds no tensors: it is a {type(content).__name__}")

    arrays = {name: _stored(tensor) for name, tensor in tensors.items()}
    notes = [] if mapped else [f"{path} cannot be mapped: read whole into memory"]
    return sliced(path, arrays, lambda name: nullcontext(tensors[name].detach()), notes=notes)


def _stored(tensor: Tensor) -> Stored:
    if tensor.layout != torch.strided:
        return Stored(tuple(tensor.shape), "a sparse tensor (save it dense, with .to_dense())")
    if tensor.is_quantized:
        return Stored(tuple(tensor.shape), "quantised numbers")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return Stored(tuple(tensor.shape), "fewer numbers than its shape says (save it with .contiguous())")
    return Stored(tuple(tensor.shape), tensor.dtype)


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
    from safetensors import safe_open

    def dtype_of(name: str) -> np.dtype[Any] | torch.dtype | str:
        return torch.bfloat16 if name == "BF16" else _SAFETENSORS_DTYPES.get(name, f"numbers of type {name}")

    require_regular(path)
    with refusing(f"{path} is no safetensors file, or damaged"), safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        arrays = {
            name: Stored(tuple(part.get_shape()), dtype_of(part.get_dtype())) for name, part in slices.items()
        }

    @contextmanager
    def opened(name: str) -> Iterator[Any]:
        with safe_open(path, framework="pt") as file:
            yield file.get_slice(name)

    return sliced(path, arrays, opened)
