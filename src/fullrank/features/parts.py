"""Parts of a split that several processes write, and what becomes of each."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fullrank.atomic import write_atomically
from fullrank.errors import FullrankError, UsageError
from fullrank.terminal import say
from fullrank.training.meeting import Failure, Peer, named_ranks

ABSENT = 120.0  # seconds that a part is waited for that no process has begun
GONE = 3.0  # seconds that a part is waited for whose process has left it
REMOTE = 600.0  # the same for one of another machine, whose locks may not be seen here
SAID = 15.0  # seconds after which it is said that this process waits
PAUSE = 0.2  # seconds between two looks
TRIES = 5  # at a lock that another process may only be asking about


def part_name(rank: int | str, world: int) -> str:
    """Name of the folder of a process's part."""
    return f"part-{rank}-of-{world}"


def this_peer(rank: int) -> Peer:
    """This process, as others name it."""
    return Peer(rank, os.getpid(), socket.gethostname())


def record_of(part: Path) -> dict[str, Any]:
    """What a part's progress.json promises; {} where there is none."""
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = json.loads((part / "progress.json").read_text())
    return record


def leave_word(partial: Path, rank: int, world: int, error: BaseException) -> None:
    """Tell the processes that wait for this one's part why it does not come."""
    part = partial / part_name(rank, world)
    begun = any(partial.glob(part_name("*", world)))
    if not begun or record_of(part).get("done") or _is_held(part / "lock"):
        return
    said = " ".join(str(error).split()) or type(error).__name__
    line = said if isinstance(error, FullrankError) else f"{type(error).__name__}: {said}"
    record = {**record_of(part), "error": line, "process": asdict(this_peer(rank))}
    with suppress(OSError):  # of a full disk, as the error may be
        write_atomically(part / "progress.json", json.dumps(record).encode())


@dataclass(frozen=True)
class Parts:
    """Parts of one split, as the process sees them that writes one.

    Attributes:
        place: of the file that they are joined to.
        partial: the folder with the parts.
        rank, world: which process this is, and of how many.
        since: when it began; what others recorded before may be of a command that was killed.
    """

    place: Path
    partial: Path
    rank: int
    world: int
    since: float

    def wait(self) -> None:
        """Wait until all parts are done, or joined.

        Raises:
            FullrankError: one does not come; the message names it. The first that waits prints it.
        """
        begun, said = time.monotonic(), False
        seen: dict[int, tuple[dict[str, Any], float]] = {}
        while missing := self.missing():
            now = time.monotonic()
            for rank in missing:
                record, held = record_of(self.part(rank)), _is_held(self.part(rank) / "lock")
                if held or rank not in seen or seen[rank][0] != record:
                    seen[rank] = record, now
                if not held and now - seen[rank][1] > self._patience(rank, record):
                    waiting = [other for other in range(self.world) if other not in missing]
                    error = FullrankError(self._lost(rank, record))
                    error.said_elsewhere = self.rank != waiting[0]
                    raise error
            if not said and now - begun > SAID and self.rank == min(set(range(self.world)) - {*missing}):
                said = True
                say(f"note    waits for the part of {named_ranks(missing)} of {self.world}", sys.stderr)
            time.sleep(PAUSE)

    def part(self, rank: int) -> Path:
        """Folder of a process's part."""
        return self.partial / part_name(rank, self.world)

    def missing(self) -> list[int]:
        """Ranks whose parts are not done; none once all are joined."""
        found = [rank for rank in range(self.world) if not record_of(self.part(rank)).get("done")]
        return [] if self.place.exists() else found

    def lost(self) -> str:
        """Which other process has left its part, for the first that has not; else empty."""
        others = [rank for rank in self.missing() if rank != self.rank]
        records = {rank: record_of(self.part(rank)) for rank in others}
        lost = [r for r in others if self._is_new(r, records[r]) and not _is_held(self.part(r) / "lock")]
        first = min(set(range(self.world)) - {*lost})
        return self._lost(lost[0], records[lost[0]]) if lost and self.rank == first else ""

    def _is_new(self, rank: int, record: dict[str, Any]) -> bool:
        with suppress(OSError):
            return bool(record) and (self.part(rank) / "progress.json").stat().st_mtime >= self.since
        return False

    def _patience(self, rank: int, record: dict[str, Any]) -> float:
        """Seconds that a part is waited for, which no process holds here."""
        if not self._is_new(rank, record):
            return ABSENT
        if "error" in record:
            return 0.0
        return GONE if record.get("process", {}).get("host") == socket.gethostname() else REMOTE

    def _lost(self, rank: int, record: dict[str, Any]) -> str:
        split = self.place.name.partition(".")[0]
        line = f"rank {rank} of {self.world} has not begun its part"
        if self._is_new(rank, record) and "process" in record:
            line = Failure(Peer(**record["process"]), record.get("error", "")).line(self.world)
        return f"{line}; its part of {split} is missing: the same command in every process goes on"


def locked(path: Path, busy: str = "") -> IO[bytes]:
    """A file locked until it is closed; waits where no refusal is given."""
    file = path.open("wb")
    with suppress(ImportError):  # not on Windows, where nobody guards against two at once
        import fcntl

        for attempt in range(TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                break
            except OSError as error:
                if attempt + 1 == TRIES:
                    file.close()
                    raise UsageError(busy) from error
                time.sleep(PAUSE / TRIES)
    return file


def _is_held(path: Path) -> bool:
    """Whether a process of this machine has locked a file."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):  # where nobody can tell, it may be
        return True
    return False
