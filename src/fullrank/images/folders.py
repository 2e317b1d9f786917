"""Folders of image files, classed by sub-folder, or of parquet as on the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.images.formats import NO_IMAGE, named_by_content, why_not_read
from fullrank.images.skipped import left_out
from fullrank.images.sources import Indices, LazySource
from fullrank.progress import report_progress

READ_AT_ONCE_BYTES = 1_000_000_000  # larger sets are mapped from `datasets`' cache, not read into memory
IMAGE_NAMES = ("img", "image", "images", "jpg", "png")
LABEL_NAMES = ("label", "fine_label", "labels", "target", "class")
HELD_OUT_NAMES = ("val", "valid", "validation", "test")
"""Splits that are held out: the first there is, so that a test split beside it stays unseen."""


class Files:
    """Image files as items of a `LazySource`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Path:
        return self.paths[i]

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, for messages."""
        return printable(str(self.paths[i]))


def open_image_folder(folder: Path) -> tuple[LazySource, LazySource | None, list[str]]:
    """List the images under a folder; none is decoded.

    With a `train/` inside, that is the training set, and the first of `val/`, `valid/`, `validation/`,
    `test/` is held out; else the whole folder is the training set. Images have classes where they all lie
    equally deep and exactly one level of folder names tells them apart: `cat/1.jpg`, `n0144/images/1.jpg`.
    Images beside sub-folders, one sub-folder, or two telling levels (`2024/05/1.jpg`) mean unlabelled.

    Returned are the training images, the held-out ones or None, and notes.

    Raises:
        DataError: there are no images.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("cat/1.jpg", "dog/1.jpg"):
        ...         Path(name, file).parent.mkdir(); Path(name, file).touch()
        ...     train, held_out, notes = open_image_folder(Path(name))
        >>> train.classes, train.labels.tolist(), held_out, notes
        (['cat', 'dog'], [0, 1], None, ['classes are named by 2 sub-folders'])
    """
    train_folder = folder / "train" if (folder / "train").is_dir() else folder
    skipped: dict[str, str] = {}
    paths = list_images(train_folder, skipped)
    if not paths:
        expected = (
            "expected files such as .jpg or .png, class sub-folders, train/ and val/ folders, or .parquet"
        )
        lines = [f"no images under {printable(str(train_folder))}", f"{expected} files", *left_out(skipped)]
        raise DataError("; ".join(lines))
    names = _class_names(paths, train_folder)
    classes = sorted(set(names)) if names else None
    train = _listed(f"{folder.name}/train", paths, names, classes, skipped)
    notes = [f"classes are named by {len(classes)} sub-folders" if classes else "the images are unlabelled"]

    held_out = None
    beside = [folder / name for name in HELD_OUT_NAMES if train_folder != folder and (folder / name).is_dir()]
    for held_folder in beside:
        if paths := list_images(held_folder, skipped):
            names = _class_names(paths, held_folder) if classes else None
            held_out = _listed(f"{folder.name}/{held_folder.name}", paths, names, classes, skipped)
            break
    return train, held_out, notes + left_out(skipped)


def list_images(folder: Path, skipped: dict[str, str]) -> list[Path]:
    """List the image files under a folder, sorted; add the others to `skipped`.

    A file is an image by its ending or, where it has none, by its first bytes. Names that begin with a dot
    are left alone, and so are links to a folder that they lie in.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("1.jpg", "2.nef", "notes.txt"):
        ...         Path(name, file).touch()
        ...     left = {}
        ...     [path.name for path in list_images(Path(name), left)], len(left)
        (['1.jpg'], 2)
    """
    found: list[Path] = []
    _list_into(found, skipped, folder)
    return found


def _list_into(found: list[Path], skipped: dict[str, str], folder: Path) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        skipped[printable(f"{folder}/")] = f"the folder cannot be read: {error.strerror}"
        return
    folders = []
    for entry in (entry for entry in entries if not entry.name.startswith(".")):
        path = Path(entry.path)
        if entry.is_dir():
            if entry.is_symlink() and path.resolve() in (folder.resolve(), *folder.resolve().parents):
                skipped[printable(f"{path}/")] = "a link to a folder that it lies in"
            else:
                folders.append(path)
        elif why := _why_skipped(entry, path):
            skipped[printable(str(path))] = why
        else:
            found.append(path)
    report_progress("listing files", len(found) + len(skipped), 0)
    for inner in folders:
        _list_into(found, skipped, inner)


def _why_skipped(entry: os.DirEntry[str], path: Path) -> str:
    if not entry.is_file() and not entry.is_symlink():
        return "neither a file nor a folder"
    if path.suffix:
        return why_not_read(path.suffix)
    try:
        with path.open("rb") as file:
            return "" if named_by_content(file.read(16)) else NO_IMAGE
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _class_names(paths: list[Path], folder: Path) -> list[str] | None:
    """Class name of each path, or None where the folders do not name classes."""
    depth = len(folder.parts)
    parents = [path.parts[depth:-1] for path in paths]
    if len({len(parts) for parts in parents}) != 1:
        return None
    telling = [level for level in zip(*parents, strict=True) if len(set(level)) > 1]
    return list(telling[0]) if len(telling) == 1 else None


def _listed(
    name: str,
    paths: list[Path],
    names: list[str] | None,
    classes: list[str] | None,
    skipped: dict[str, str],
) -> LazySource:
    labels = None
    if names and classes:
        number = {known: i for i, known in enumerate(classes)}
        labels = np.array([number.get(each, -1) for each in names], np.int64)
    return LazySource(
        name=name,
        items=Files(paths),
        index=np.arange(len(paths)),
        labels=labels,
        classes=classes,
        skipped=skipped,
    )


class ParquetRows:
    """Encoded images in one column of some parquet files, as items of a `LazySource`.

    The column holds bytes, or structs of `bytes` and `path` as `datasets.Image` stores them. DataError says
    that the files cannot be read.
    """

    def __init__(self, files: list[Path], column: str) -> None:
        self.files, self.column = files, column
        if sum(file.stat().st_size for file in files) <= READ_AT_ONCE_BYTES:
            self._cells: Any = _read(files, column)
        else:
            try:
                from datasets import Dataset
            except ImportError as error:
                raise DataError(
                    f"{files[0].parent} holds more parquet than is read into memory, which needs datasets: "
                    f"pip install 'fullrank[hub]'"
                ) from error
            paths = [str(file) for file in files]
            self._cells = Dataset.from_parquet(paths, columns=[column]).data.column(column)

    def __reduce__(self) -> tuple[Callable[..., ParquetRows], tuple[list[Path], str]]:
        """Pickle the file names only: a worker process reads or maps the files itself."""
        return ParquetRows, (self.files, self.column)

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, i: int) -> bytes | Path:
        """Encoded image in row `i`, or the path that stands in its place."""
        cell = self._cells[i].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes") or self.files[0].parent / cell["path"]
        if not isinstance(cell, bytes | Path):
            raise OSError("the row holds no image")
        return cell

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, for messages."""
        where = self.files[0] if len(self.files) == 1 else self.files[0].parent
        return printable(f"{where} {self.column!r} row {i}")


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
    splits = {name: [file for file in files if _belongs(file, name)] for name in ("train", *HELD_OUT_NAMES)}
    train_files = splits.pop("train") or [
        file for file in files if not any(file in s for s in splits.values())
    ]
    held_files = next((found for found in splits.values() if found), [])
    if not train_files:  # nothing but a test or val file: that is what there is
        train_files, held_files = held_files, []

    schema = _schema(train_files[0])
    image_column, label_column, classes = _columns(train_files[0], schema)

    def opened(split: str, split_files: list[Path], names: list[str] | None) -> LazySource:
        items = ParquetRows(split_files, image_column)
        labels = None
        if label_column is not None and label_column in _schema(split_files[0]).names:
            labels, names = _labels(split_files, label_column, names)
        index = np.arange(len(items))
        return LazySource(name=f"{name}/{split}", items=items, index=index, labels=labels, classes=names)

    train = opened("train", train_files, classes)
    held_out = opened("held out", held_files, train.classes) if held_files else None
    labelled = f"labels from {label_column!r}" if label_column else "unlabelled"
    return train, held_out, [f"images are read from column {image_column!r}, {labelled}"]


def _belongs(file: Path, split: str) -> bool:
    return file.name.startswith(split) or file.parent.name == split


def _schema(file: Path) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(file)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataError(f"{file} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _read(files: list[Path], column: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        tables = [pyarrow.parquet.read_table(file, columns=[column]) for file in files]
        return pyarrow.chunked_array([chunk for table in tables for chunk in table[column].chunks])
    except (OSError, ValueError, KeyError) as error:
        where = files[0].parent if len(files) > 1 else files[0]
        raise DataError(f"{where}: column {column!r} cannot be read: {str(error).splitlines()[0]}") from error


def _columns(file: Path, schema: Any) -> tuple[str, str | None, list[str] | None]:
    """Find image column, label column and class names, by metadata, type or name."""
    import pyarrow

    hub = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = hub.get("info", {}).get("features", {})
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
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
    return images[0], label, features.get(label, {}).get("names") if label in kinds else None


def _labels(files: list[Path], column: str, classes: list[str] | None) -> tuple[Indices, list[str] | None]:
    values = _read(files, column).to_pylist()
    if any(isinstance(value, str) for value in values):
        classes = classes or sorted({value for value in values if value is not None})
        number = {name: i for i, name in enumerate(classes)}
        values = [number.get(value, -1) for value in values]
    return np.array([-1 if value is None else int(value) for value in values], np.int64), classes
