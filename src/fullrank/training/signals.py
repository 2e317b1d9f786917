"""Signals that ask a run to end: once after the step in progress, twice at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
        self.exit_code = 128 + received


class StopRequest:
    """Whether a signal has asked for the end.

    Attributes:
        received: the first signal; None as long as there was none.
    """

    received: signal.Signals | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Take note of the first signal; give in to the second."""
        if self.received is None:
            self.received = signal.Signals(number)
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
