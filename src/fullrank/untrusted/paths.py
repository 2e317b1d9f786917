"""Paths from strangers: regular files alone are opened, real folders alone listed."""

from __future__ import annotations

import difflib
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fullrank.errors import DataError, printable

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
_OF_THE_KERNEL = ("proc", "sys", "dev")
MOST_ENTRIES = 10_000_000  # files of a store that are looked at
MOST_COMPARED = 10_000  # names in a folder among which the nearest to a missing one is sought


def expand_user(name: str | Path) -> Path:
    """Return the path that is named, with `~` and `~USER` as a shell has them.

    What is there under the very name is taken literally.

    Raises:
        DataError: no user is called so.

    Example:
        >>> expand_user("~no-such-user/z.npy")
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: ~no-such-user/z.npy does not exist: no user is called no-such-user
    """
    path = Path(name)
    if not str(path).startswith("~") or os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:
        shown = printable(str(path))
        raise DataError(f"{shown} does not exist: no user is called {Path(shown).parts[0][1:]}") from error


def require_regular(path: Path) -> Path:
    """Return a path to a regular file; links to one are followed.

    Raises:
        DataError: nothing is there, it cannot be reached, or it is a pipe, socket, device, folder, or a file
            that the kernel makes up, as in /proc. None of these is opened.

    Example:
        >>> require_regular(Path("/dev/zero"))
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: /dev/zero is a device, and no regular file: copy what is meant into one
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:  # a circle of links, a name that is too long, a folder that may not be entered
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no path: {error}") from error
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "something else")
        raise DataError(f"{path} is {kind}, and no regular file: copy what is meant into one")
    _refuse_kernel(path)
    return path


def require_real_folder(path: Path) -> Path:
    """Return a path that lies in no folder that the kernel makes up, as /proc.

    Raises:
        DataError: it does, it is a circle of links, or no name of a file can be so.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no path: {error}") from error
    _refuse_kernel(path)
    return path


def require_existing(path: Path) -> Path:
    """Return a path that is there.

    Raises:
        DataError: nothing is; the message names the nearest that is.
    """
    there = os.path.exists(path)  # noqa: PTH110 - which says no to a name that is too long, too
    if os.path.lexists(path) and not there:
        raise DataError(f"{path} is a link to nothing, or a circle of links")
    if not there:
        where = "" if path.parent.is_dir() else f": there is no folder {path.parent}"
        raise DataError(f"{path} does not exist{where}{did_you_mean(path)}")
    return path


def is_regular(path: Path) -> bool:
    """Tell whether a path leads to a regular file; errors mean that it does not.

    Example:
        >>> is_regular(Path("/dev/null"))
        False
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_listable(folder: Path) -> bool:
    """Tell whether a folder is one on a disk, and not of the kernel's as /proc."""
    try:
        _refuse_kernel(folder)
    except DataError:
        return False
    return len(Path(os.path.realpath(folder)).parts) > 1  # not the root, below which these lie


def nearest_paths(path: Path, most: int = 3) -> list[Path]:
    """Paths that exist and are called nearly as a missing one, in every part of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "runs", "first").mkdir(parents=True)
        ...     near = nearest_paths(Path(folder, "run", "frist"))
        ...     [path.relative_to(folder).as_posix() for path in near]
        ['runs/first']
    """
    near = [Path(path.anchor)]
    for part in path.parts[bool(path.anchor) :]:
        below = [folder / name for folder in near for name in _nearest_names(folder, part, most)]
        near = below[:most]
    return near


def _nearest_names(folder: Path, name: str, most: int) -> list[str]:
    try:
        if name == ".." or os.path.lexists(folder / name):
            return [name]
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MOST_COMPARED)]
    except (OSError, ValueError):
        return []
    return difflib.get_close_matches(name, names, most)


def did_you_mean(path: Path) -> str:
    """The end of a message: which path is meant by a missing one; or empty."""
    names = (printable(str(other)) for other in nearest_paths(path))
    # with a dash at its beginning a name would be taken for an option
    near = " or ".join(f"./{name}" if name.startswith("-") else name for name in names)
    return f"; did you mean {near}?" if near else ""


def require_regular_tree(folder: Path) -> int:
    """Return the bytes of all files under a folder, each of which must be regular.

    Raises:
        DataError: one is a pipe, a socket, a device or a link to a folder, or there are too many.
    """
    _refuse_kernel(folder)
    total = 0
    for number, entry in enumerate(_entries(folder)):
        if number >= MOST_ENTRIES:
            raise DataError(f"{folder} holds more than {MOST_ENTRIES:,} files")
        total += require_regular(Path(entry.path)).stat().st_size
    return total


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [folder]
    while waiting:
        try:
            inside = list(os.scandir(waiting.pop()))
        except OSError as error:
            raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
        for entry in inside:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                yield entry


def _refuse_kernel(path: Path) -> None:
    parts = Path(os.path.realpath(path)).parts
    if len(parts) > 1 and parts[1] in _OF_THE_KERNEL and parts[1:3] != ("dev", "shm"):
        raise DataError(f"{path} lies in /{parts[1]}, whose files the kernel makes up: nothing there is read")
