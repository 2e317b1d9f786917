"""Progress of long work, reported to whoever listens: a command on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from fullrank.errors import printable
from fullrank.options import OnProgress

EVERY = 30.0  # seconds between two lines about long work, where no line can be rewritten
_LISTENER: ContextVar[OnProgress | None] = ContextVar("listener", default=None)


def report_progress(task: str, done: int, total: int) -> None:
    """Tell the listener, if any, how far a task is; a total of 0 is not known."""
    if (listener := _LISTENER.get()) is not None:
        listener(task, done, total)


@contextmanager
def listening(listener: OnProgress) -> Iterator[None]:
    """Have a function called with all progress that is reported within.

    Example:
        >>> with listening(lambda task, done, total: print(f"{task}: {done} of {total}")):
        ...     report_progress("decoding images", 3, 9)
        decoding images: 3 of 9
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class ProgressLine:
    """A line on a terminal, rewritten in place: what is done, how far, time left.

    Tasks of less than `patience` seconds do not show.

    Example:
        >>> import io
        >>> line = ProgressLine(screen := io.StringIO(), patience=0)
        >>> line("embedding", 50, 200)
        >>> screen.getvalue().removeprefix(ProgressLine.CLEAR).split(", ")[0]
        'embedding  50 of 200'
        >>> line.close()
    """

    CLEAR = "\r\x1b[2K"
    REFRESH = 0.1  # seconds between two states of the line

    def __init__(self, stream: TextIO, patience: float = 2.0) -> None:
        self.stream, self.patience = stream, patience
        self.task, self.begun, self.shown_at = "", 0.0, 0.0

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show how far a task is, where it takes long."""
        now = time.monotonic()
        if task != self.task:
            self.task, self.begun = task, now
        spent = now - self.begun
        if spent < self.patience or now - self.shown_at < self.REFRESH:
            return
        self.shown_at = now
        self.stream.write(f"{self.CLEAR}{_how_far(task, done, total, spent)}")
        self.stream.flush()

    def close(self) -> None:
        """Clear the line."""
        if self.shown_at:
            self.stream.write(self.CLEAR)
            self.stream.flush()


class PlainProgress:
    """Lines in a file or pipe about long work, one in `every` seconds at most.

    Example:
        >>> import io
        >>> lines = PlainProgress(log := io.StringIO(), every=0)
        >>> lines("embedding", 50, 200)
        >>> log.getvalue().split(", ")[0]
        'embedding  50 of 200'
    """

    def __init__(self, stream: TextIO, every: float = EVERY) -> None:
        self.stream, self.every = stream, every
        self.task, self.begun, self.written_at = "", 0.0, 0.0

    def __call__(self, task: str, done: int, total: int) -> None:
        """Write how far a task is, where one is due."""
        now = time.monotonic()
        if task != self.task:
            self.task, self.begun = task, now
            self.written_at = max(self.written_at, now)
        if now - self.written_at >= self.every:
            self.written_at = now
            print(_how_far(task, done, total, now - self.begun), file=self.stream, flush=True)

    def close(self) -> None:
        """Leave what is written."""


def _how_far(task: str, done: int, total: int, spent: float) -> str:
    text = f"{printable(task)}  {done:,}"
    if not total:
        return text
    return f"{text} of {total:,}, {_clock(spent * (total - done) / max(done, 1))} left"


def _clock(seconds: float) -> str:
    """Seconds as 0:07 or 1:02:03.

    Example:
        >>> _clock(7.4), _clock(3723)
        ('0:07', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
