"""Files that are whole, or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ENDED = "ZX"  # states of a process that has ended; in a container its parent may never take note of it
LONG_AGO = 86_400.0  # seconds, after which nobody of another machine is still writing


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def create_atomically(path: Path, content: bytes) -> None:
    """Write a file unless it is there: of several processes one does, whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for content in (b"first", b"second"):
        ...         create_atomically(Path(folder, "claim"), content)
        ...     Path(folder, "claim").read_bytes()
        b'first'
    """
    sweep_drafts(path.parent, path.name)
    draft = draft_of(path)
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # of a file system without links: as near to it as there is
            if not path.exists():
                draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place once it is on the disk.

    What a process that was killed left beside it is removed.
    """
    sweep_drafts(path.parent, path.name)
    draft = draft_of(path)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        # a full disk names no file, and a folder in the file's place is named by the draft
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(draft)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def draft_of(path: Path) -> Path:
    """Where this thread writes what is to be renamed to `path`."""
    owner = f"{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f".{path.name}.{socket.gethostname()}.{owner}.partial")


def sweep_drafts(folder: Path, name: str | None = None) -> None:
    """Remove the drafts in a folder whose processes are gone: those of `name`, or all."""
    host = re.escape(socket.gethostname())
    own = re.compile(rf"\.{re.escape(name) if name else '.*'}\.{host}\.(\d+)-\d+\.partial")
    other = re.compile(rf"\.{re.escape(name) if name else '.*'}(\..*)?\.partial")
    for draft in folder.glob(".*.partial"):
        found = own.fullmatch(draft.name)
        with suppress(OSError):
            if not is_alive(int(found[1])) if found else other.fullmatch(draft.name) and _is_old(draft):
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > LONG_AGO


def is_alive(process: int) -> bool:
    """Whether a process of this machine has not ended; one that nobody reaps has.

    Example:
        >>> is_alive(os.getpid())
        True
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    with suppress(OSError, IndexError):  # where there is no /proc
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        return state not in ENDED
    return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    with suppress(OSError):  # not on Windows, nor on every network's file system
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
