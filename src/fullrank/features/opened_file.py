"""One file of embeddings in any usual format, and the labels beside its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fullrank.errors import DataError
from fullrank.features.budget import require_memory
from fullrank.features.chunked_files import read_hdf5, read_zarr
from fullrank.features.column_files import ARROW_SUFFIXES, CSV_SUFFIXES, PARQUET_SUFFIXES
from fullrank.features.column_rows import open_column_rows
from fullrank.features.files import (
    ArrayFile,
    OpenedTable,
    read_npy,
    read_npz,
    read_safetensors,
    read_torch,
)
from fullrank.features.keys import as_labels
from fullrank.features.tables import Indices
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import require_regular

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


def is_zarr(path: Path) -> bool:
    """Tell whether a directory is a zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in (".zarray", ".zgroup", "zarr.json"))


def open_file(path: Path, key: str | None) -> OpenedTable:
    """Embeddings of a file and their labels; DataError where it holds none."""
    suffix = ".zarr" if is_zarr(path) else path.suffix.lower()
    if suffix in (".pkl", ".pickle", ".p", ".joblib"):
        raise DataError(
            f"{path} is a pickle, which can run code and is never opened: save .npy or .safetensors"
        )
    if suffix not in EMBEDDING_SUFFIXES:
        raise DataError(
            f"{path} has no ending of an embedding file: {', '.join(EMBEDDING_SUFFIXES)}, or a folder of them"
        )
    if not path.is_dir() and not require_regular(path).stat().st_size:
        raise DataError(f"{path} is empty")
    with refusing(f"{path} cannot be read"):
        opened = open_column_rows(path, key) if suffix in _COLUMNS else _READERS[suffix](path).choose(key)
        require_memory(f"a row of {path}", opened.table.d * opened.table.dtype.itemsize)
        return opened


def read_labels(where: str, values: Any) -> tuple[Indices | None, list[str]]:
    """Labels beside the rows; what cannot be read as such is left out, with a note."""
    try:
        return as_labels(where, values), []
    except DataError as error:
        return None, [f"labels are left out: {error}"]
