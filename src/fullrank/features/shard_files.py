"""Shards of one matrix, and labels, that a folder, pattern or address names.

Files of an address as `s3://bucket/features` come through fsspec, which torch brings along; the package of
the store itself (s3fs, gcsfs, ...) is the user's. Such a file is copied to a temporary folder, read, and
removed unless it is small; of an `.npy` file the header alone is fetched before its turn to be read.
"""

from __future__ import annotations

import glob
import itertools
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fullrank.errors import DataError, UsageError
from fullrank.features.column_files import CSV_SUFFIXES
from fullrank.features.keys import is_label_name
from fullrank.features.opened_file import EMBEDDING_SUFFIXES
from fullrank.untrusted.paths import did_you_mean, expand_user, require_real_folder

MOST_SEEN = 1000  # names in a folder by which it is told what lies there
KEPT = 1 << 30  # bytes of fetched files that are kept for a second reading
HEADER = 1 << 20  # bytes in which the header of an .npy file lies, by far
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z].*)?://")


def is_address(what: object) -> bool:
    """Tell an address of fsspec from a path.

    Example:
        >>> [is_address(what) for what in ("s3://bucket/z", "memory://z", "features/z.npy", "timm:resnet18")]
        [True, True, False, False]
    """
    return isinstance(what, str) and _ADDRESS.match(what) is not None


def is_pattern(what: object) -> bool:
    """Tell a pattern of paths, as `features/part-*.npy`, from a path that is there."""
    text = str(what) if isinstance(what, str | Path) else ""
    return any(sign in text for sign in "*?[") and not expand_user(text).exists()


@dataclass(frozen=True)
class ShardFile:
    """One file of a matrix.

    Attributes:
        name: its name alone.
        shown: the whole of it, for a reader.
        size: in bytes; 1 where that is not known.
        path: where it lies; None for a file that is fetched.
        store: that it is fetched from.
    """

    name: str
    shown: str
    size: int
    path: Path | None = None
    store: FileStore | None = None

    @property
    def suffix(self) -> str:
        """The ending, in small letters."""
        return PurePosixPath(self.name).suffix.lower()

    @contextmanager
    def local(self, outline: bool = False) -> Iterator[Path]:
        """Path to read it from; with `outline` of an .npy file the header may do."""
        if self.path is not None:
            yield self.path
        else:
            assert self.store is not None
            with self.store.fetched(self, outline and self.suffix == ".npy") as path:
                yield path


class FileStore:
    """Files behind an address, fetched one at a time.

    Args:
        system: a file system of fsspec.
        address: of what was named, for a reader.
    """

    def __init__(self, system: Any, address: str) -> None:
        self.system, self.address, self.left = system, address, KEPT
        self.folder = Path(tempfile.mkdtemp(prefix="fullrank-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @contextmanager
    def fetched(self, file: ShardFile, outline: bool) -> Iterator[Path]:
        """A copy of a file, which goes afterwards unless it is small."""
        place = PurePosixPath(file.shown)
        path = self.folder / f"{abs(hash(str(place)))}-{file.name}"
        if not path.exists() or (not outline and path.stat().st_blocks == 0 and file.size):
            self._fetch(file, path, outline)
        try:
            yield path
        finally:
            if outline or file.size > self.left:
                path.unlink(missing_ok=True)
            elif path.exists():
                self.left -= file.size

    def _fetch(self, file: ShardFile, path: Path, outline: bool) -> None:
        try:
            if outline:
                with self.system.open(file.shown, "rb") as opened, path.open("wb") as out:
                    out.write(opened.read(HEADER))
                    out.truncate(file.size)
            else:
                self.system.get_file(file.shown, str(path))
        except Exception as error:  # of any store: no right, no network, gone
            path.unlink(missing_ok=True)
            raise DataError(f"{file.shown} of {self.address} cannot be fetched: {_line(error)}") from error


@dataclass(frozen=True)
class ShardList:
    """Files of one matrix in natural order.

    Attributes:
        where: they lie, for a reader.
        files: with embeddings, all of one kind.
        labels: files named as labels, for all rows together.
    """

    where: str
    files: Sequence[ShardFile]
    labels: Sequence[ShardFile] = field(default_factory=tuple)

    @property
    def origin(self) -> str:
        """Where the rows are from, in a few words."""
        if len(self.files) == 1 and self.files[0].shown == self.where:
            return self.where
        return f"{self.where}: {len(self.files):,} {self.files[0].suffix} files"


def list_shards(what: Path | str) -> ShardList:
    """List the files of a folder, a pattern or an address.

    Raises:
        DataError: there are none, or of several kinds, or the address cannot be listed.
        UsageError: an address whose package is not installed.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("part-10.npy", "part-9.npy", "labels.npy", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     shards = list_shards(Path(folder))
        ...     [file.name for file in shards.files], [file.name for file in shards.labels]
        (['part-9.npy', 'part-10.npy'], ['labels.npy'])
    """
    if is_address(what):
        address = str(what)
        if not address.startswith("file://"):
            return _chosen(address, _remote(address))
        what = address.removeprefix("file://")
    if is_pattern(what):
        paths = [Path(path) for path in glob.glob(str(expand_user(what)))]  # noqa: PTH207
        return _chosen(str(what), [local_file(require_real_folder(path)) for path in paths])
    folder = require_real_folder(expand_user(what))
    if folder.is_dir():
        return _chosen(str(folder), [local_file(path) for path in folder.iterdir()], folder)
    if not folder.exists():
        raise DataError(f"{folder} does not exist{did_you_mean(folder)}")
    return ShardList(str(folder), [local_file(folder)])


def natural_order(name: str) -> list[int | str]:
    """Key by which `part-9` comes before `part-10`.

    Example:
        >>> sorted(["part-10", "part-9"], key=natural_order)
        ['part-9', 'part-10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _chosen(where: str, found: Sequence[ShardFile], folder: Path | None = None) -> ShardList:
    there = [file for file in found if file.suffix in EMBEDDING_SUFFIXES and file.name[0] not in "._"]
    there.sort(key=lambda file: natural_order(file.shown))
    labels = [file for file in there if is_label_name(PurePosixPath(file.name).stem)]
    files = [file for file in there if file not in labels]
    if not files and folder and _holds_images(folder):
        raise DataError(
            f"{where} holds images, not embeddings: name an encoder for them, as in "
            f"`fullrank audit MODEL --data {where}`"
        )
    if not files:
        raise DataError(f"{where} holds no embedding files: {', '.join(EMBEDDING_SUFFIXES)}")
    files = [file for file in files if file.suffix not in CSV_SUFFIXES] or files  # text tells about arrays
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"{where} holds embeddings of several kinds ({', '.join(kinds)}): leave one kind there"
        )
    return ShardList(where, files, labels)


def local_file(path: Path) -> ShardFile:
    """A file, or a store that is a folder, of this machine."""
    return ShardFile(path.name, str(path), path.stat().st_size if path.is_file() else 1, path)


def _holds_images(folder: Path) -> bool:
    """Whether images lie in a folder, or in the folders of its classes."""
    from fullrank.images.formats import why_not_read

    inside = itertools.chain(folder.iterdir(), folder.glob("*/*"))
    return any(not why_not_read(path.suffix) for path in itertools.islice(inside, MOST_SEEN))


def _remote(address: str) -> list[ShardFile]:
    import fsspec

    kind = address.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UsageError(f"{address} needs the package of {kind}: {_line(error)}") from error
    except ValueError as error:
        raise UsageError(f"{address} is no address that fsspec knows: {_line(error)}") from error
    store = FileStore(system, address)
    try:
        if any(sign in path for sign in "*?["):
            entries = list(system.glob(path, detail=True).values())
        else:
            entries = system.ls(path, detail=True)
    except Exception as error:  # of any store: no right, no network, no such folder
        raise DataError(f"{address} cannot be listed: {_line(error)}") from error
    return [
        ShardFile(PurePosixPath(entry["name"]).name, str(entry["name"]), entry.get("size") or 1, None, store)
        for entry in entries
        if entry.get("type") != "directory"
    ]


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
