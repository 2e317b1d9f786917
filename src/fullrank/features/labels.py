"""Labels that somebody saved beside embeddings: one a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from fullrank.encoders.torch_files import load_torch_file
from fullrank.errors import DataError, UnknownNameError
from fullrank.features.budget import memory_budget, require_memory
from fullrank.features.files import existing, read_npy, read_npz, read_safetensors
from fullrank.features.keys import LABEL_NAMES, as_labels, is_label_name
from fullrank.features.tables import Indices
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import require_regular

Labels: TypeAlias = Tensor | np.ndarray | Sequence[int] | Sequence[str] | Path | str
TEXT_COST = 64  # bytes of memory that a cell takes as a value of Python, or a character at worst
LABEL_SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt", ".parquet", ".pt", ".safetensors")


def open_labels(path: Path | str, n: int, key: str | None = None, max_bytes: int = 0) -> Indices:
    """Read labels for n rows.

    Args:
        path: a file with one of `LABEL_SUFFIXES`: an array, a column, or one label a line.
        n: how many rows there are.
        key: the array or column, where there are several and none, or more than one, has a usual name.
        max_bytes: memory that the file may take; 0 is half of what is free.

    Returns:
        int64 [n], -1 where a row has none (NaN, or missing); texts are numbered in sorted order.

    Raises:
        DataError, UnknownNameError: missing, unreadable, no such array, no labels, or not n of them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "y.csv").write_text("file,label\\na.jpg,dog\\nb.jpg,cat\\n")
        ...     open_labels(Path(folder, "y.csv"), 2).tolist()
        [1, 0]
    """
    path = existing(path)
    with memory_budget(max_bytes), refusing(f"{path} holds no labels"):
        labels = as_labels(str(path), label_values(path, key, n))
    if len(labels) != n:
        raise DataError(f"{path} holds {len(labels):,} labels for {n:,} rows: one for each row is needed")
    return labels


def label_values(path: Path, key: str | None = None, n: int | None = None) -> Any:
    """Labels of a file as stored; n + 1 lines mean that the first is a heading."""
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        raise DataError(f"{path} has no ending of a label file: {', '.join(LABEL_SUFFIXES)}")
    if not (size := require_regular(path).stat().st_size):
        raise DataError(f"{path} is empty")
    if suffix in (".txt", ".csv", ".tsv"):
        require_memory(str(path), TEXT_COST * size)
    if suffix == ".txt":
        return numbers_or_texts([line.strip() for line in _text(path).rstrip().splitlines()])
    if suffix in (".csv", ".tsv"):
        return _cells(path, key, n)
    if suffix in (".npz", ".safetensors"):
        file = read_npz(path) if suffix == ".npz" else read_safetensors(path)
        return file.values(_chosen(path, list(file.arrays), key))
    if suffix == ".pt":
        content, _ = load_torch_file(path)
        if isinstance(content, dict):
            content = content[_chosen(path, [str(name) for name in content], key)]
        return content.numpy() if hasattr(content, "numpy") else content
    if suffix == ".parquet":
        return _parquet(path, key)
    return read_npy(path).values("")


def _chosen(path: Path, names: list[str], key: str | None) -> str:
    if key is not None:
        if key not in names:
            raise UnknownNameError("key", key, names, f"in {path}")
        return key
    usual = [name for name in names if is_label_name(name)]
    if len(names) == 1 or len(usual) == 1:
        return (usual or names)[0]
    shown = ", ".join((usual or names)[:8])
    raise DataError(
        f"{path}: which of these holds the labels? Usual names are {LABEL_NAMES[0]} and y: {shown}"
    )


def _parquet(path: Path, key: str | None) -> Any:
    import pyarrow.parquet as parquet

    with refusing(f"{path} is no parquet file, or damaged"), parquet.ParquetFile(path) as file:
        name = _chosen(path, file.schema_arrow.names, key)
        require_memory(f"{path}[{name}]", file.metadata.num_rows * TEXT_COST)
        return file.read(columns=[name])[name].to_pylist()


def _cells(path: Path, key: str | None, n: int | None) -> Any:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # an empty line of a single column is an image without a label, one at the end is none
    cells = [row or [""] for row in csv.reader(_text(path).rstrip().splitlines(), delimiter=delimiter)]
    if cells and len(cells[0]) > 1:
        cells = [row for row in cells if row != [""]]
    if not cells:
        raise DataError(f"{path} is empty")
    head, width = cells[0], len(cells[0])
    if any(len(row) != width for row in cells):
        raise DataError(f"{path} has lines of different numbers of cells")
    headed = (
        key is not None
        or any(is_label_name(name) for name in head)
        or (n is not None and len(cells) == n + 1)
    )
    if not headed and width > 1:
        raise DataError(f"{path} has {width} columns without a heading: name the labels' column label")
    column = head.index(_chosen(path, head, key)) if headed else 0
    return numbers_or_texts([row[column].strip() for row in cells[headed:]])


def _text(path: Path) -> str:
    with refusing(f"{path} is no text"):
        return path.read_text(encoding="utf-8")


def numbers_or_texts(values: list[str]) -> Any:
    """Labels of a text file: numbers where all are whole numbers, else texts."""
    try:
        return np.array([float("nan") if value in ("", "nan", "NaN") else int(value) for value in values])
    except ValueError:
        return [value or None for value in values]
