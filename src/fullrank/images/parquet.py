"""Folders of parquet files, as on the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.images import parquet_rows
from fullrank.images.column_labels import column_labels
from fullrank.images.folders import HELD_OUT_NAMES
from fullrank.images.index_files import index_notes
from fullrank.images.parquet_rows import (
    LARGEST_GROUP,
    ParquetRows,
    RowGroups,
    open_row_groups,
    read_column,
    where_of,
)
from fullrank.images.sources import LazySource
from fullrank.untrusted.parsing import parse_json, refusing
from fullrank.untrusted.paths import require_regular

IMAGE_NAMES = ("img", "image", "images", "jpg", "png")
_NUMBERED = re.compile(r"(?P<start>.*)-(?P<number>[0-9]{1,9})-of-(?P<of>[0-9]{1,9})\.parquet", re.DOTALL)
LABEL_NAMES = ("label", "fine_label", "labels", "target", "class")


def find_parquet(folder: Path) -> list[Path]:
    """Find the parquet files in a folder or one folder further down, sorted.

    Example:
        >>> find_parquet(Path("nowhere"))
        []
    """
    return sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])


def open_parquet(name: str, files: list[Path]) -> tuple[LazySource, LazySource | None, list[str]]:
    """Open parquet files as data; images stay encoded.

    Files whose name, or whose folder's name, begins with `train` are the training set (all others where none
    does); of `val*` and `test*` the first there is is held out. The image column is the one that the Hub's
    metadata calls an Image, or that holds structs with `bytes`, or bytes under a usual name; the label
    column is found by name, or as the only ClassLabel, and may be missing. Strings for labels are numbered
    in sorted order.

    Returned are the training images, the held-out ones or None, and notes.

    Raises:
        DataError: a file cannot be read, or no column holds images.

    Example:
        >>> import pyarrow, pyarrow.parquet, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = pyarrow.table({"image": [b"...", b"..."], "label": ["cat", "dog"]})
        ...     pyarrow.parquet.write_table(table, Path(folder, "train.parquet"))
        ...     train, held_out, notes = open_parquet("pets", find_parquet(Path(folder)))
        >>> len(train), train.labels.tolist(), train.classes, held_out
        (2, [0, 1], ['cat', 'dog'], None)
    """
    for file in files:
        require_regular(file)
    splits = {name: [file for file in files if _belongs(file, name)] for name in ("train", *HELD_OUT_NAMES)}
    train_files = splits.pop("train") or [
        file for file in files if not any(file in s for s in splits.values())
    ]
    held_files = next((found for found in splits.values() if found), [])
    if not train_files:  # nothing but a test or val file: that is what there is
        train_files, held_files = held_files, []

    schema = _schema(train_files[0])
    image_column, label_column, classes = columns = image_columns(str(train_files[0]), schema)

    def opened(split: str, split_files: list[Path], names: list[str] | None) -> LazySource:
        if sum(file.stat().st_size for file in split_files) > parquet_rows.READ_AT_ONCE_BYTES:
            in_place = in_row_groups(f"{name}/{split}", list(map(str, split_files)), columns, names)
            if in_place is not None:
                return in_place
        items = ParquetRows(split_files, image_column)
        labels = None
        if label_column is not None and label_column in _schema(split_files[0]).names:
            values = read_column(split_files, label_column).to_pylist()
            labels, words = column_labels(values, f"{where_of(split_files)}: column {label_column!r}", names)
            names = words or names
        index = np.arange(len(items))
        return LazySource(name=f"{name}/{split}", items=items, index=index, labels=labels, classes=names)

    train = opened("train", train_files, classes)
    held_out = opened("held out", held_files, train.classes) if held_files else None
    labelled = f"labels from {label_column!r}" if label_column else "unlabelled"
    notes = [f"images are read from column {image_column!r}, {labelled}"]
    notes += notes_on_missing(list(map(str, files)))
    return train, held_out, notes + notes_on_indexes(train, held_out)


def in_row_groups(
    name: str,
    files: list[str],
    columns: tuple[str, str | None, list[str] | None],
    classes: list[str] | None,
) -> LazySource | None:
    """Open parquet files in place; None where their row groups are too large for that.

    Args:
        columns: see `image_columns`.
        classes: names of the labels, of the training set where these are held-out files.
    """
    items = open_row_groups(files, *columns[:2])
    if items.index.facts["largest"] > LARGEST_GROUP:
        return None
    labels, words = items.index.arrays.get("labels"), items.index.facts.get("words")
    if labels is not None and words is not None and classes is not None and words != classes:
        number = {known: i for i, known in enumerate(classes)}
        labels = np.array([*(number.get(word, -1) for word in words), -1], np.int64)[labels]
    index = np.arange(len(items))
    return LazySource(name=name, items=items, index=index, labels=labels, classes=classes or words)


def notes_on_indexes(*sources: LazySource | None) -> list[str]:
    """Notes on sources read in place whose index was damaged, or is not written."""
    indexes = [source.items.index for source in sources if source and isinstance(source.items, RowGroups)]
    return list(
        dict.fromkeys(n for each in indexes for n in index_notes(each, "every process reads the index"))
    )


def notes_on_missing(files: list[str]) -> list[str]:
    """Say of which numbered files (`train-00001-of-00003.parquet`) some are missing.

    Example:
        >>> notes_on_missing(["a/train-00000-of-00003.parquet", "a/train-00002-of-00003.parquet"])
        ['2 of the 3 files a/train-*-of-00003.parquet are there']
        >>> notes_on_missing(["train-00000-of-00001.parquet", "more.parquet"])
        []
    """
    numbers: dict[tuple[str, str], set[str]] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file):
            numbers.setdefault((match["start"], match["of"]), set()).add(match["number"])
    return [
        printable(f"{len(found):,} of the {int(of):,} files {start}-*-of-{of}.parquet are there")
        for (start, of), found in numbers.items()
        if len(found) < int(of)
    ]


def _belongs(file: Path, split: str) -> bool:
    return file.name.startswith(split) or file.parent.name == split


def _schema(file: Path) -> Any:
    import pyarrow.parquet

    with refusing(f"{file} cannot be read as parquet"):
        return pyarrow.parquet.read_schema(require_regular(file))


def image_columns(file: str, schema: Any) -> tuple[str, str | None, list[str] | None]:
    """Find image column, label column and class names, by metadata, type or name.

    Raises:
        DataError: no column holds images.
    """
    import pyarrow

    if doubled := next((name for name in schema.names if schema.names.count(name) > 1), None):
        raise DataError(f"{printable(file)} has several columns called {doubled!r}: give each its name")
    features = _hub_features(file, schema)
    kinds = {name: feature.get("_type") for name, feature in features.items()}
    types, stored = pyarrow.types, {name: schema.field(name).type for name in schema.names}
    structs = {name: {f.name for f in kind} for name, kind in stored.items() if types.is_struct(kind)}
    images = [name for name in stored if kinds.get(name) == "Image" or "bytes" in structs.get(name, ())]
    binary = types.is_binary, types.is_large_binary
    images += [name for name in IMAGE_NAMES if name in stored and any(is_(stored[name]) for is_ in binary)]
    if not images:
        raise DataError(f"{file} has no image column; its columns are {', '.join(schema.names)}")
    labelled = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    named = [column for column in LABEL_NAMES if column in schema.names]
    label = next(iter(named), labelled[0] if len(labelled) == 1 else None)
    names = features.get(label, {}).get("names") if label in kinds else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{printable(file)}: its names of classes are damaged: a list of words is meant")
    return images[0], label, names


def _hub_features(file: str, schema: Any) -> dict[str, Any]:
    """The kinds of the columns, as `datasets` writes them into a table."""
    with refusing(f"{file}: what the Hub says of its columns is damaged"):
        text = (schema.metadata or {}).get(b"huggingface", b"{}").decode()
        features = (
            parse_json(text, f"what {printable(file)} says of its columns")
            .get("info", {})
            .get("features", {})
        )
        return {name: kind for name, kind in features.items() if isinstance(kind, dict)}
