"""Reading of `metrics.jsonl`, however long: thinned, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fullrank.training.records import EndRecord, Listener, RunRecord, parse_record
from fullrank.untrusted.paths import require_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 1 << 20
"""Bytes of a file that are searched at a time."""
MOST_LINE = 8 << 20
"""Bytes of a line beyond which it is no record."""
STEP, EPOCH = b'{"event": "step"', b'{"event": "epoch'
HEAD = 16  # bytes of these
MOST_STEPS, MOST_EPOCHS, MOST_OTHERS = 10_000, 5_000, 5_000
"""Records of a kind beyond which one in 2, 4, 8, ... is read, and the last one."""


@dataclass(frozen=True)
class RecordFile:
    """Records of a file in its order, and what of the file they are.

    Args:
        records: those that were read.
        damaged: lines among those looked at that are no record; the last line may be cut, and does not count.
        half: whether the file ends in half a line.
        every: of how many step records one was read.
        notes: one line each on what was thinned, and on half a line.
    """

    records: tuple[RunRecord, ...] = ()
    damaged: int = 0
    half: bool = False
    every: int = 1
    notes: tuple[str, ...] = ()


class _Lines:
    """Places of the lines of one kind: of all, or of one in 2, 4, 8, ... and the last."""

    def __init__(self, kind: str, most: int) -> None:
        self.kind, self.most = kind, most
        self.count, self.every, self.last = 0, 1, -1
        self._kept: list[int] = []

    def add(self, starts: NDArray[np.int64]) -> None:
        if not len(starts):
            return
        self._kept += starts[-self.count % self.every :: self.every].tolist()
        self.count += len(starts)
        self.last = int(starts[-1])
        while len(self._kept) > self.most:
            self._kept = self._kept[::2]
            self.every *= 2

    def places(self) -> list[int]:
        return self._kept if not self._kept or self._kept[-1] == self.last else [*self._kept, self.last]

    def note(self, name: str) -> str:
        return f"of {self.count:,} {self.kind} in {name} one in {self.every:,} is read, evenly, and the last"


def read_records(log: Path) -> RecordFile:
    """Read the records of a file, thinned where there are very many.

    All bytes are searched for the beginnings of lines; what is parsed is limited by `MOST_STEPS`,
    `MOST_EPOCHS` and `MOST_OTHERS`, which holds for all further lines. A missing file is an empty one.

    Raises:
        DataError: it is no regular file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "metrics.jsonl")
        ...     _ = log.write_text('{"event": "step", "epoch": 0, "step": 1}\\n{"st')
        ...     found = read_records(log)
        >>> [record.step for record in found.records], found.damaged, found.notes
        ([1], 0, ('metrics.jsonl ends in half a line, which is left out',))
    """
    if not log.exists():
        return RecordFile()
    records: list[RunRecord] = []
    damaged, half = 0, False
    with require_regular(log).open("rb") as file:
        kinds = _search(file)
        last = max(kind.last for kind in kinds)
        for start in sorted(place for kind in kinds for place in kind.places()):
            file.seek(start)
            line = file.readline(MOST_LINE)
            if (record := parse_record(line)) is not None:
                records.append(record)
            elif start == last and not line.endswith(b"\n"):
                half = True
            else:
                damaged += bool(line.strip())
    notes = [kind.note(log.name) for kind in kinds if kind.every > 1]
    notes += [f"{log.name} ends in half a line, which is left out"] * half
    return RecordFile(tuple(records), damaged, half, kinds[0].every, tuple(notes))


def _search(file: BufferedReader) -> tuple[_Lines, _Lines, _Lines]:
    """Find where lines begin: of steps, of epochs, and all others."""
    import numpy as np

    steps = _Lines("step records", MOST_STEPS)
    epochs = _Lines("epoch records", MOST_EPOCHS)
    others = _Lines("other lines", MOST_OTHERS)
    buffer = bytearray(BLOCK + HEAD)  # the lines that begin in a block, and the head of the one after it
    seen = np.frombuffer(buffer, np.uint8)
    heads = np.ndarray((BLOCK + 1,), f"S{HEAD}", buffer, strides=(1,))  # of every byte, without copying
    offset = 0
    while length := file.readinto(buffer):
        buffer[length:] = bytes(len(buffer) - length)
        starts = np.flatnonzero(seen[: min(length, BLOCK)] == ord("\n")) + 1
        starts = starts[starts < length]
        if offset == 0:
            starts = np.insert(starts, 0, 0)
        is_step = heads[starts] == STEP
        rest = starts[~is_step]
        is_epoch = heads[rest] == EPOCH
        for kind, found in ((steps, starts[is_step]), (epochs, rest[is_epoch]), (others, rest[~is_epoch])):
            kind.add(found + offset)
        offset += BLOCK
        file.seek(offset)
    return steps, epochs, others


def lines_backwards(log: Path, size: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a file's first `size` bytes, the last one first.

    Each has its end of line, where it is whole; one longer than `MOST_LINE` is given as an empty one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "metrics.jsonl")
        ...     _ = log.write_bytes(b"one\\ntwo\\nthr")
        ...     list(lines_backwards(log)), next(lines_backwards(log, 8))
        ([b'thr', b'two\\n', b'one\\n'], b'two\\n')
    """
    if not log.exists():
        return
    with require_regular(log).open("rb") as file:
        whole = file.seek(0, 2)
        end = whole if size is None else min(size, whole)
        while end > 0:
            start = _line_start(file, end - 1)
            file.seek(start)
            yield file.read(end - start) if end - start <= MOST_LINE else b""
            end = start


def _line_start(file: BinaryIO, end: int) -> int:
    """First byte of the line that the byte `end` belongs to."""
    while end > 0:
        start = max(0, end - BLOCK // 16)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def truncate_records(log: Path, size: int) -> None:
    """Drop what comes after the first `size` bytes, and a last line that was cut.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "metrics.jsonl")
        ...     _ = log.write_bytes(b"one\\ntwo\\nthree\\n")
        ...     truncate_records(log, 6)
        ...     log.read_bytes()
        b'one\\n'
    """
    if not log.exists():
        return
    with require_regular(log).open("rb+") as file:
        file.truncate(_line_start(file, min(size, file.seek(0, 2))))


def last_step(log: Path) -> int:
    """Optimiser steps done by the last whole line of `metrics.jsonl`; 0 without any."""
    whole = (parse_record(line) for line in lines_backwards(log) if line.endswith(b"\n"))
    return next((record.step for record in whole if record is not None), 0)


def has_ended(log: Path) -> bool:
    """Whether the last record of `metrics.jsonl` says that the run has ended."""
    return isinstance(parse_record(next(lines_backwards(log), b"")), EndRecord)


def size_without_end(log: Path, size: int) -> int:
    """Bytes of the records that a longer run keeps of the first `size`: no end."""
    line = next(lines_backwards(log, size), b"")
    return size - len(line) if isinstance(parse_record(line), EndRecord) else size


def follow(log: Path, position: int, notify: Listener) -> int:
    """Notify of whole lines of a growing file from a byte on; return the next byte.

    The file may not be there yet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log, seen = Path(folder, "metrics.jsonl"), []
        ...     _ = log.write_text('{"event": "step", "epoch": 0, "step": 1}\\n{"st')
        ...     follow(log, 0, seen.append), seen[0].step
        (41, 1)
    """
    if not log.exists():
        return position
    with log.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            record = parse_record(line)  # None where a resumed run cut the file under us
            if record is not None:
                notify(record)
    return position
