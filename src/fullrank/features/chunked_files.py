"""Arrays in HDF5 files and zarr directories: ranges of stored chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, UsageError
from fullrank.features.budget import require_memory
from fullrank.features.files import ArrayFile, sliced
from fullrank.features.tables import Stored
from fullrank.untrusted.parsing import parse_json, read_text, refusing
from fullrank.untrusted.paths import require_regular, require_regular_tree

MOST_ARRAYS = 10_000
DEPTH = 16  # of groups within one another


def read_hdf5(path: Path) -> ArrayFile:
    """Datasets of an HDF5 file, read in ranges. Needs h5py.

    Datasets whose numbers lie in other files are refused, and so are those that are for the most part not
    stored.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{path}: reading HDF5 needs h5py; pip install 'fullrank[hdf5]'") from error
    arrays: dict[str, Stored] = {}
    chunks: dict[str, int] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            if len(arrays) >= MOST_ARRAYS:
                raise DataError(f"{path} holds more than {MOST_ARRAYS:,} arrays")
            text = h5py.check_string_dtype(item.dtype) is not None
            elsewhere = item.is_virtual or item.external
            dtype: np.dtype[Any] | str = np.dtype("U") if text else item.dtype
            arrays[name] = Stored(tuple(item.shape), "numbers of other files" if elsewhere else dtype)
            chunks[name] = item.chunks[0] if item.chunks else 8

    with refusing(f"{path} is no HDF5 file, or damaged"), h5py.File(require_regular(path), "r") as file:
        file.visititems(visit)

    @contextmanager
    def opened(name: str) -> Iterator[Any]:
        with h5py.File(path, "r") as file:
            array: Any = file[name]
            yield array.asstr() if arrays[name].kind == "text" else array

    def check(name: str) -> list[str]:
        where = f"{path}[{name}]"
        with refusing(f"{where} is damaged"), h5py.File(path, "r") as file:
            array = file[name]
            nbytes = math.prod(array.shape) * array.dtype.itemsize
            if not array.chunks:
                stored = array.id.get_storage_size()
                if stored < nbytes or nbytes > path.stat().st_size:
                    raise DataError(f"{where} is cut short: {arrays[name]} take {nbytes:,} bytes, "
                                    f"and {stored:,} are stored")  # fmt: skip
                return []
            require_memory(where, math.prod(array.chunks) * array.dtype.itemsize)
            parts = _number_of_chunks(array.shape, array.chunks)
            return _check_stored(where, arrays[name], array.id.get_num_chunks(), parts, array.fillvalue)

    return sliced(path, arrays, opened, chunks, check=check)


def _number_of_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-side // chunk) for side, chunk in zip(shape, chunks, strict=True))


def _check_stored(where: str, array: Stored, stored: int, parts: int, fill: Any) -> list[str]:
    """Check that at least half of the chunks are stored; a note where some are not.

    Others read as the fill value, as both formats have it for what was never written.
    """
    if 2 * stored < parts:
        raise DataError(
            f"{where} is not all there: of the {parts:,} chunks of {array}, {stored:,} are stored"
        )
    if stored < parts:
        return [f"{where}: {parts - stored:,} of {parts:,} chunks are not stored, and read as {fill}"]
    return []


def read_zarr(path: Path) -> ArrayFile:
    """Arrays of a zarr directory, read in ranges of chunks. Needs zarr.

    Arrays whose chunks are pickles are refused.
    """
    try:
        import zarr
    except ImportError as error:
        raise UsageError(f"{path}: reading zarr needs zarr; pip install 'fullrank[zarr]'") from error
    require_regular_tree(path)
    _check_metadata(path)
    with refusing(f"{path} is no zarr directory, or damaged"):
        root: Any = zarr.open(str(path), mode="r")
        stored: dict[str, Any] = {"": root} if hasattr(root, "shape") else dict(_zarr_arrays(root, ""))
        arrays = {name: Stored(tuple(array.shape), _zarr_dtype(array)) for name, array in stored.items()}
        chunks = {name: int(array.chunks[0]) for name, array in stored.items() if array.chunks}

    def check(name: str) -> list[str]:
        array, where = stored[name], f"{path}[{name}]" if name else str(path)
        with refusing(f"{where} is damaged"):
            sizes = [array.chunks, getattr(array, "shards", None) or ()]
            require_memory(where, max(map(math.prod, sizes)) * array.dtype.itemsize)
            whole = getattr(array, "shards", None) or array.chunks
            parts = _number_of_chunks(array.shape, whole)
            return _check_stored(where, arrays[name], _files_of(path, name), parts, array.fill_value)

    return sliced(path, arrays, lambda name: nullcontext(stored[name]), chunks, check=check)


def _files_of(path: Path, name: str) -> int:
    """Files of an array beside those that describe it: its chunks."""
    known = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
    return sum(file.is_file() and file.name not in known for file in Path(path, name).rglob("*"))


def _check_metadata(path: Path) -> None:
    """Check the JSON of all arrays and groups before zarr parses it."""
    for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"):
        for file in path.rglob(name):
            parse_json(read_text(file), str(file))


def _zarr_arrays(group: Any, within: str, depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
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
