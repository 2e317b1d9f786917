"""Folders of image files, and the classes that their sub-folders name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fullrank.errors import DataError
from fullrank.images.decoding import IMAGE_SUFFIXES
from fullrank.images.sources import LazySource

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
        return str(self.paths[i])


def open_image_folder(folder: Path) -> tuple[LazySource, LazySource | None, list[str]]:
    """List the images under a folder; nothing is opened.

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
    paths = _images_under(train_folder)
    if not paths:
        raise DataError(
            f"no images under {train_folder}; expected files such as .jpg or .png, class sub-folders, "
            "train/ and val/ folders, or .parquet files"
        )
    names = _class_names(paths, train_folder)
    classes = sorted(set(names)) if names else None
    train = _listed(f"{folder.name}/train", paths, names, classes)
    notes = [f"classes are named by {len(classes)} sub-folders" if classes else "the images are unlabelled"]

    beside = [folder / name for name in HELD_OUT_NAMES if train_folder != folder and (folder / name).is_dir()]
    for held_folder in beside:
        if paths := _images_under(held_folder):
            names = _class_names(paths, held_folder) if classes else None
            return train, _listed(f"{folder.name}/{held_folder.name}", paths, names, classes), notes
    return train, None, notes


def _images_under(folder: Path) -> list[Path]:
    found = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (Path(where, name) for name in sorted(files) if not name.startswith("."))
        found += [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES]
    return found


def _class_names(paths: list[Path], folder: Path) -> list[str] | None:
    """Class name of each path, or None where the folders do not name classes."""
    depth = len(folder.parts)
    parents = [path.parts[depth:-1] for path in paths]
    if len({len(parts) for parts in parents}) != 1:
        return None
    telling = [level for level in zip(*parents, strict=True) if len(set(level)) > 1]
    return list(telling[0]) if len(telling) == 1 else None


def _listed(name: str, paths: list[Path], names: list[str] | None, classes: list[str] | None) -> LazySource:
    labels = None
    if names and classes:
        number = {known: i for i, known in enumerate(classes)}
        labels = np.array([number.get(each, -1) for each in names], np.int64)
    return LazySource(
        name=name, items=Files(paths), index=np.arange(len(paths)), labels=labels, classes=classes
    )
