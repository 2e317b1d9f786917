"""One writer at a time for a run, a sweep, a lab or a store."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from fullrank.errors import BusyError

try:
    import fcntl
except ImportError:  # not on Windows, where the heartbeat decides
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 10.0  # seconds between two signs of life
DEAD_AFTER = 90.0  # seconds without one, after which an owner on another host is taken for dead


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for writing until the end of the context.

    The operating system releases the lock of a process that ends, however it ends. Where hosts share a folder
    but not its locks, the owner's heartbeat decides: one older than `DEAD_AFTER` is taken over.

    Raises:
        BusyError: another process writes into the folder; it is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, sole_writer(Path(folder)):
        ...     with sole_writer(Path(folder)):  # doctest: +ELLIPSIS
        ...         pass
        Traceback (most recent call last):
            ...
        fullrank.errors.BusyError: ... is being written by process ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / ".lock", folder / ".owner.json"
    descriptor = _acquire(path)
    if descriptor is None:
        raise BusyError(_says(folder, _read(owner)))
    _held.add(descriptor)
    try:
        before = _read(owner)
        if before.get("host", _host()) != _host() and _age(owner) < DEAD_AFTER:
            raise BusyError(_says(folder, before))
        _write(owner)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(owner, stop), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            owner.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # while it is held: another's is never removed
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


_held: set[int] = set()


def _close_in_child() -> None:
    """Leave the locks to the parent: a worker that outlives it must not hold them."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


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


def _host() -> str:
    return socket.gethostname()


def _write(owner: Path) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"host": _host(), "process": os.getpid(), "since": since, "command": command}
    partial = owner.with_name(f".{owner.name}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(owner)


def _read(owner: Path) -> dict[str, str]:
    """Who holds the folder; empty where nobody is on record."""
    try:
        found = json.loads(owner.read_text())
    except (OSError, ValueError):
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
