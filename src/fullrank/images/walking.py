"""Walk over a folder of image files, and its index of millions of them."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.images.fingerprints import digest
from fullrank.images.formats import NO_IMAGE, named_by_content, why_not_read
from fullrank.images.index_files import Index, open_index
from fullrank.progress import report_progress
from fullrank.untrusted.paths import is_listable, require_regular

INDEXED_FROM = 20_000  # image files of a folder from which its list is kept: fewer are walked in a moment
SIZES_ASKED = 2000  # files of a folder whose sizes are asked for: of all of them that would take minutes
AT_REST = 2.0  # seconds since a folder's last change: coarse clocks do not tell a later one from it


@dataclass
class Walk:
    """What a walk found, folder by folder.

    Attributes:
        text: paths within the root, one after another, in bytes.
        ends: where each path ends in `text`.
        folders: folders that were walked, within the root, and the images directly in each.
        changed: when each was last changed, in nanoseconds.
        skipped: what is not read, with the reason.
    """

    root: Path
    text: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("q"))
    folders: list[tuple[bytes, int]] = field(default_factory=list)
    changed: array[int] = field(default_factory=lambda: array("q"))
    skipped: dict[str, str] = field(default_factory=dict)
    unreadable: bool = False

    def add(self, path: bytes) -> None:
        """Add an image by its path within the root."""
        self.text += path
        self.ends.append(len(self.text))


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
    walk = Walk(folder, skipped=skipped)
    _walk(walk, folder, b"", set())
    return list(Files(folder, _index_of(walk)))


class Files:
    """Image files of a folder as items of a `LazySource`, from its index."""

    def __init__(self, root: Path, index: Index) -> None:
        self.root, self.index = root, index
        self._text, self._ends = index.arrays["text"], index.arrays["ends"]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> Path:
        if not 0 <= i < len(self._ends):
            raise IndexError(f"there is no image {i} of {len(self._ends)}")
        start = int(self._ends[i - 1]) if i else 0
        return self.root / os.fsdecode(self._text[start : int(self._ends[i])].tobytes())

    def __iter__(self) -> Iterator[Path]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Callable[..., Files], tuple[Path, Index]]:
        """Pickle root and index, whose pickle is its path."""
        return Files, (self.root, self.index)

    def where(self, i: int) -> str:
        """Path of image `i` for messages."""
        return printable(str(self[i]))

    def fingerprint(self) -> dict[str, str]:
        """See `Fingerprinted`: all names, and the sizes of evenly spaced files."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), SIZES_ASKED)).astype(np.int64))
        sizes = np.array([_size(self[int(i)]) for i in chosen], np.int64)
        return {
            "names of files": digest(self._text.tobytes(), self._ends.astype(np.int64).tobytes()),
            "sizes of files": digest(sizes.tobytes()),
        }

    @property
    def parents(self) -> tuple[list[tuple[str, ...]], np.ndarray]:
        """Folders with images, as parts of their paths, and how many images each has."""
        text, ends, counts = (self.index.arrays[name] for name in ("folders", "folder_ends", "counts"))
        names = _cut(text, ends)
        kept = [i for i, count in enumerate(counts.tolist()) if count]
        return [Path(names[i]).parts for i in kept], counts[kept]


def open_files(folder: Path, skipped: dict[str, str]) -> Files:
    """List the image files under a folder as items; those of large folders only once.

    The list of a large folder is kept in an index file. It holds as long as no folder under it has changed:
    adding, removing or renaming a file changes its folder's time of modification. What is written into a
    file does not matter, since images are read anew.
    """

    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        started = time.time()
        walk = Walk(folder)
        _walk(walk, folder, b"", set())
        index = _index_of(walk)
        settled = max(walk.changed, default=0) / 1e9 < started - AT_REST
        return dict(index.arrays), {**index.facts, "unsettled": walk.unreadable or not settled}

    index = open_index("folder", str(folder.resolve()), _is_unchanged(folder), build, INDEXED_FROM)
    skipped.update(index.facts["skipped"])
    return Files(folder, index)


def _is_unchanged(root: Path) -> Callable[[Index], bool]:
    def check(index: Index) -> bool:
        names = _cut(index.arrays["folders"], index.arrays["folder_ends"])
        try:
            now = [(root / name).stat().st_mtime_ns for name in names]
        except OSError:
            return False
        return bool(np.array_equal(now, index.arrays["changed"]))

    return check


def _cut(text: np.ndarray, ends: np.ndarray) -> list[str]:
    whole, starts = text.tobytes(), [0, *ends.tolist()]
    return [os.fsdecode(whole[a:b]) for a, b in pairwise(starts)]


def _index_of(walk: Walk) -> Index:
    names = [name for name, _ in walk.folders]
    arrays: dict[str, np.ndarray] = {
        "text": np.frombuffer(bytes(walk.text), np.uint8),
        "ends": np.array(walk.ends, np.int64),
        "folders": np.frombuffer(b"".join(names), np.uint8),
        "folder_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        "counts": np.array([count for _, count in walk.folders], np.int64),
        "changed": np.array(walk.changed, np.int64),
    }
    return Index(arrays, {"skipped": walk.skipped})


def _walk(walk: Walk, folder: Path, within: bytes, linked: set[tuple[int, int]]) -> None:
    """List a folder into the walk; links lead to each folder once."""
    try:
        changed = folder.stat().st_mtime_ns  # before it is read: a later change shows
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        walk.skipped[printable(f"{folder}/")] = f"the folder cannot be read: {error.strerror}"
        walk.unreadable = True
        return
    folders, images = list[Path](), 0
    for entry in (entry for entry in entries if not entry.name.startswith(".")):
        if _is_folder(entry):
            path = Path(entry.path)
            why = _why_not_followed(path, folder, linked) if entry.is_symlink() else ""
            if why:
                walk.skipped[printable(f"{path}/")] = why
            else:
                folders.append(path)
        elif why := _why_skipped(entry):
            walk.skipped[printable(entry.path)] = why
        else:
            walk.add(within + os.fsencode(entry.name))
            images += 1
    walk.folders.append((within, images))
    walk.changed.append(changed)
    report_progress("listing files", len(walk.ends) + len(walk.skipped), 0)
    for inner in folders:
        _walk(walk, inner, within + os.fsencode(inner.name) + b"/", linked)


def _why_not_followed(path: Path, folder: Path, linked: set[tuple[int, int]]) -> str:
    """Why a link to a folder is not followed; nothing where it is."""
    real = path.resolve()
    if real in (folder.resolve(), *folder.resolve().parents):
        return "a link to a folder that it lies in"
    if not is_listable(real):
        return "a link to what the kernel makes up"
    place = (real.stat().st_dev, real.stat().st_ino)
    if place in linked:
        return "a second link to the same folder"
    linked.add(place)
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # of what the folder itself tells: no look at each file
    except OSError:
        return False


def _why_skipped(entry: os.DirEntry[str]) -> str:
    if not _is_file(entry) and (not entry.is_symlink() or Path(entry.path).exists()):
        return "neither a file nor a folder"
    dot = entry.name.rfind(".")
    if 0 < dot < len(entry.name) - 1:
        return why_not_read(entry.name[dot:])
    path = Path(entry.path)
    try:
        require_regular(path)
        with path.open("rb") as file:
            return "" if named_by_content(file.read(16)) else NO_IMAGE
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
