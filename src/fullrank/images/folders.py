"""Folders of image files, classed by sub-folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.images.file_labels import FileLabels, read_file_labels
from fullrank.images.index_files import index_notes
from fullrank.images.skipped import left_out
from fullrank.images.sources import Indices, LazySource
from fullrank.images.walking import Files, open_files

HELD_OUT_NAMES = ("val", "valid", "validation", "test")
"""Splits that are held out: the first there is, so that a test split beside it stays unseen."""


def open_image_folder(folder: Path) -> tuple[LazySource, LazySource | None, list[str]]:
    """List the images under a folder; none is decoded.

    With a `train/` inside, that is the training set, and the first of `val/`, `valid/`, `validation/`,
    `test/` is held out; else the whole folder is the training set. Images have classes where they all lie
    equally deep and exactly one level of folder names tells them apart: `cat/1.jpg`, `n0144/images/1.jpg`.
    Images beside sub-folders, one sub-folder, or two telling levels (`2024/05/1.jpg`) mean unlabelled,
    but for a table of labels beside them (`read_file_labels`).

    Returned are the training images, the held-out ones or None, and notes.

    Raises:
        DataError: there are no images, or a table of labels does not fit them.

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
    files = open_files(train_folder, skipped)
    if not len(files):
        expected = (
            "expected files such as .jpg or .png, class sub-folders, train/ and val/ folders, or .parquet"
        )
        lines = [f"no images under {printable(str(train_folder))}", f"{expected} files", *left_out(skipped)]
        raise DataError("; ".join(lines))
    names = _class_names(files)
    classes = sorted(set(names[0])) if names else None
    train = _listed(f"{folder.name}/train", files, names, classes, skipped)
    notes = [f"classes are named by {len(classes)} sub-folders" if classes else _why_unlabelled(files)]
    table = None if classes else read_file_labels(*dict.fromkeys((train_folder, folder)))
    if table is not None:
        train, notes = _labelled_by(table, files, train)

    held_out = None
    beside = [folder / name for name in HELD_OUT_NAMES if train_folder != folder and (folder / name).is_dir()]
    for held_folder in beside:
        if len(held := open_files(held_folder, skipped)):
            names = _class_names(held) if classes else None
            held_out = _listed(f"{folder.name}/{held_folder.name}", held, names, classes, skipped)
            if table is not None:
                held_out = _held_out_by((held_folder, folder), held, held_out, train.classes)
            break
    for name in [name for name in skipped if table is not None and Path(name).name == table.table.name]:
        del skipped[name]  # which was read; in place, for the sources hold the same ones
    notes += index_notes(files.index, "every process lists the files")
    return train, held_out, notes + left_out(skipped)


def _why_unlabelled(files: Files) -> str:
    """Say that no folder names classes, and why where some might."""
    parents, _ = files.parents
    mixed = len({len(parts) for parts in parents}) > 1
    return "the images are unlabelled" + ", for some lie beside sub-folders with others" * mixed


def _labelled_by(table: FileLabels, files: Files, source: LazySource) -> tuple[LazySource, list[str]]:
    """The images with the labels of a table, and a note on it."""
    labels, classes = table.of(files)
    known = 0 if labels is None else int((labels >= 0).sum())
    note = f"labels are those of {table.table.name}"
    if known < len(files):
        note += f", in which {len(files) - known:,} of {len(files):,} images have none"
    return replace(source, labels=labels, classes=classes), [note]


def _held_out_by(
    folders: tuple[Path, Path], files: Files, source: LazySource, classes: list[str] | None
) -> LazySource:
    """Held-out images with labels of a table, numbered as in the training set."""
    table = read_file_labels(*folders)
    labels, words = table.of(files, classes) if table is not None else (None, None)
    if words and not classes:
        raise DataError(f"{printable(str(folders[0]))} has words as labels, and the training images numbers")
    return replace(source, labels=labels, classes=classes)


def _class_names(files: Files) -> tuple[list[str], Indices] | None:
    """Class name of each folder with images and its number of them, or None."""
    parents, counts = files.parents
    if len({len(parts) for parts in parents}) != 1:
        return None
    telling = [level for level in zip(*parents, strict=True) if len(set(level)) > 1]
    return (list(telling[0]), counts) if len(telling) == 1 else None


def _listed(
    name: str,
    files: Files,
    names: tuple[list[str], Indices] | None,
    classes: list[str] | None,
    skipped: dict[str, str],
) -> LazySource:
    labels = None
    if names and classes:
        number = {known: i for i, known in enumerate(classes)}
        labels = np.repeat(np.array([number.get(each, -1) for each in names[0]], np.int64), names[1])
    return LazySource(
        name=name,
        items=files,
        index=np.arange(len(files)),
        labels=labels,
        classes=classes,
        skipped=skipped,
    )
