"""Signals that ask a run to end: once after the step in progress, twice at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fullrank.errors import FullrankError

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]


class StoppedError(FullrankError):
    """A run ended early, for a signal asked for it; exit code 128 and its number."""

    def __init__(self, message: str, received: signal.Signals) -> None:
        super().__init__(message)
        self.received, self.exit_code = received, 128 + received


class EndedBySignal(KeyboardInterrupt):
    """A command of several runs is to end, for a signal asked for it."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.received = received


class StopRequest:
    """Whether a signal has asked for the end.

    Attributes:
        received: the first signal; None as long as there was none.
        at_once: called as it comes, for what cannot wait until somebody asks.
    """

    received: signal.Signals | None = None
    at_once: Callable[[], object] = staticmethod(lambda: None)

    def receive(self, number: int, _: FrameType | None) -> None:
        """Take note of the first signal; give in to the second."""
        if self.received is None:
            self.received = signal.Signals(number)
            self.at_once()
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Collect SIGINT, SIGTERM, SIGHUP and SIGUSR1 while the context lasts.

    A signal that was ignored before stays so, as SIGHUP under nohup. Beside the main thread nothing changes,
    for only that one gets signals.

    Example:
        >>> import os
        >>> with stop_on_signals() as request:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     request.received.name
        'SIGTERM'
    """
    request = StopRequest()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `EndedBySignal` for SIGTERM and SIGHUP while the context lasts.

    What was ignored before stays so. Beside the main thread nothing changes.

    Example:
        >>> import os
        >>> try:
        ...     with ended_by_signals():
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ... except KeyboardInterrupt as ended:
        ...     print(ended)
        SIGTERM
    """

    def end(number: int, _: FrameType | None) -> None:
        raise EndedBySignal(signal.Signals(number))

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number.name in ("SIGTERM", "SIGHUP") and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
