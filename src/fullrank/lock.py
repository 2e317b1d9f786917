"""One writer at a time for a run, a sweep, a lab or a store."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from fullrank.atomic import ENDED, write_atomically
from fullrank.errors import BusyError, UnwritableError

try:
    import fcntl
except ImportError:  # not on Windows, where the heartbeat decides
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 10.0  # seconds between two signs of life
LARGEST_RECORD = 1 << 16  # bytes
LAST_CHILD = 5.0  # seconds that a child may take from its birth to its first instruction
DEAD_AFTER = 90.0  # seconds without one, after which an owner on another host is taken for dead
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk says that takes no more
REMEDIES = {
    FULL: "free some space",
    (errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENXIO): "move it away",
    (errno.EACCES, errno.EPERM, errno.EROFS): "let this user write there, or take another folder",
}
"""What helps where the system refuses to write, by its error."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for writing until the end of the context.

    The operating system releases the lock of a process that ends, however it ends. Where hosts share a folder
    but not its locks, the owner's heartbeat decides: one older than `DEAD_AFTER` is taken over.

    Raises:
        BusyError: another process writes into the folder; it is named.
        UnwritableError: it cannot be held: the disk is full, or what is in the way is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, sole_writer(Path(folder)):
        ...     with sole_writer(Path(folder)):  # doctest: +ELLIPSIS
        ...         pass
        Traceback (most recent call last):
            ...
        fullrank.errors.BusyError: ... is being written by process ...
    """
    path, owner = folder / ".lock", folder / ".owner.json"
    with naming_obstacles(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire_from_the_living(path, owner)
    if descriptor is None:
        raise BusyError(_says(folder, _read(owner)))
    _held[descriptor] = ""
    try:
        before = _read(owner)
        if before and _is_at_work(before, owner):
            raise BusyError(_says(folder, before))
        with naming_obstacles(folder):
            _write_or_release(owner, path)
        _held[descriptor] = _identity(owner)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(owner, stop), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            with suppress(FileNotFoundError, NotADirectoryError):  # of a folder that is gone
                if os.path.samestat(os.fstat(descriptor), path.stat()):  # another's is never removed
                    owner.unlink(missing_ok=True)
                    path.unlink(missing_ok=True)  # while it is held
    finally:
        del _held[descriptor]
        os.close(descriptor)


@contextmanager
def naming_obstacles(folder: Path) -> Iterator[None]:
    """Raise UnwritableError for an error of the system, with what would help.

    Example:
        >>> with naming_obstacles(Path("runs")):  # doctest: +ELLIPSIS
        ...     raise OSError(errno.ENOSPC, "No space left on device", "runs/.lock")
        Traceback (most recent call last):
            ...
        fullrank.errors.UnwritableError: runs cannot be written: runs/.lock: No space left on device; free ...
    """
    try:
        yield
    except OSError as error:
        remedy = next((f"; {words}" for kinds, words in REMEDIES.items() if error.errno in kinds), "")
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise UnwritableError(f"{folder} cannot be written: {why}{remedy}") from error


def require_unwritten(folder: Path) -> None:
    """See that no living process writes into a folder, without writing there.

    Raises:
        BusyError: one does; it is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     require_unwritten(Path(folder))
    """
    owner = folder / ".owner.json"
    before = _read(owner)
    if _is_locked(folder / ".lock") or (before and _is_at_work(before, owner)):
        raise BusyError(_says(folder, before))


def is_being_written(folder: Path) -> bool:
    """Whether a living process is on record as a folder's writer.

    Nothing is locked or written for it, so that it never gets in a writer's way.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, sole_writer(Path(name)):
        ...     is_being_written(Path(name))
        True
    """
    owner = folder / ".owner.json"
    before = _read(owner)
    if before.get("begun") and before.get("host") == _host() and isinstance(before.get("process"), int):
        return _lives(before, owner)
    try:
        # a beat far ahead is of a clock that is wrong, and says nothing of a life
        return bool(before) and abs(time.time() - owner.stat().st_mtime) < DEAD_AFTER
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    """Whether a process of this machine holds a lock."""
    if fcntl is None or not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no locks on this file system: the heartbeat decides
            return False
    return False


_held: dict[int, str] = {}  # folders that this process holds, by the descriptors of their locks


def _close_in_child() -> None:
    """Leave the locks to the parent: a worker that outlives it must not hold them."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _acquire_from_the_living(path: Path, owner: Path) -> int | None:
    """Lock a file; of a dead owner, wait for the last child to let go."""
    patient_until = time.monotonic() + LAST_CHILD
    while (descriptor := _acquire(path)) is None and time.monotonic() < patient_until:
        before = _read(owner)
        if not before or _is_at_work(before, owner):
            return None
        time.sleep(0.02)
    return descriptor


def _acquire(path: Path) -> int | None:
    """Lock a file and return its descriptor; None where another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # not removed by an owner that ended
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
            return descriptor  # no locks on this file system: the heartbeat decides
        os.close(descriptor)


def _is_at_work(owner: dict[str, str], path: Path) -> bool:
    """Whether the owner on record is alive, though no lock of its own was seen."""
    if owner.get("host", _host()) == _host():
        return _lives(owner, path)
    age = _age(path)
    if age > -DEAD_AFTER:
        return age < DEAD_AFTER
    last = path.stat().st_mtime  # its clock is ahead: see whether the heart beats
    time.sleep(2.5 * HEARTBEAT)
    return path.exists() and path.stat().st_mtime != last


def _lives(owner: dict[str, str], path: Path) -> bool:
    """Whether the owner, of this machine, runs, and the folder is no copy of its own."""
    process, begun = owner.get("process", 0), owner.get("begun", "")
    if process == os.getpid() and begun == _begun(os.getpid()):  # of a folder that was moved meanwhile, too
        return _identity(path) in _held.values()
    runs = isinstance(process, int) and bool(begun) and _begun(process) == begun
    return runs and owner.get("folder", _identity(path)) == _identity(path)


def _identity(owner: Path) -> str:
    """What tells the folder of a record from a copy of it."""
    try:
        found = owner.parent.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def _begun(process: int) -> str:
    """When a process of this machine began, in ticks; empty where none runs."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ENDED else fields[19]
    except (OSError, IndexError):
        return ""


def _host() -> str:
    return socket.gethostname()


def _write_or_release(owner: Path, path: Path) -> None:
    """Put this process on record; leave no lock where that fails."""
    try:
        _write(owner)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _write(owner: Path) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now(UTC).isoformat(timespec="seconds")
    content = {
        "host": _host(),
        "process": os.getpid(),
        "begun": _begun(os.getpid()),
        "folder": _identity(owner),
        "since": since,
        "command": command,
    }
    write_atomically(owner, json.dumps(content).encode())


def _read(owner: Path) -> dict[str, str]:
    """Who holds the folder; empty where nobody is on record."""
    try:
        if not stat.S_ISREG(owner.lstat().st_mode) or owner.stat().st_size > LARGEST_RECORD:
            return {}
        found = json.loads(owner.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _age(owner: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system."""
    probe = owner.with_name(f".{owner.name}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - owner.stat().st_mtime
    except OSError:
        return float("inf")
    finally:
        with suppress(OSError):  # where nothing can be written, there is nothing to remove
            probe.unlink(missing_ok=True)


def _beat(owner: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(owner)


def _says(folder: Path, owner: dict[str, str]) -> str:
    who = f"process {owner.get('process', 'unknown')} on {owner.get('host', 'this host')}"
    since = f" since {owner['since']}" if "since" in owner else ""
    command = f" ({owner['command']})" if owner.get("command") else ""
    return f"{folder} is being written by {who}{since}{command}: wait for its end, or stop it"
