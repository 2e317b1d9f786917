"""Arrays in HDF5 and zarr, read in ranges of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.encoders.encoder import first_line
from fullrank.errors import DataError, UsageError
from fullrank.features.files import ArrayFile
from fullrank.features.tables import RangeTable, Read, Stored, Table, to_rows

__all__ = ["read_hdf5", "read_zarr"]


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

    return ArrayFile(path, arrays, table, values)


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

    def table(name: str, dtype: Any) -> Table:
        array = stored[name]

        @contextmanager
        def opened() -> Iterator[Read]:
            yield lambda start, stop: to_rows(array[start:stop], dtype)

        n, d = arrays[name].shape
        return RangeTable(n, d, dtype, opened, gap=array.chunks[0])

    return ArrayFile(path, arrays, table, lambda name: stored[name][:])


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
