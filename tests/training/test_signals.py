"""Signals that ask a run to end: noted once, obeyed at once the second time, undone afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from fullrank.training.signals import SIGNALS, StopRequest, stop_on_signals


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Default handlers, which jobs in the background of a shell do not have."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_ends_nothing(number: signal.Signals) -> None:
    with stop_on_signals() as request:
        os.kill(os.getpid(), number)
        assert request.received == number


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize(
    ("second", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_second_signal_ends_at_once(
    first: signal.Signals, second: signal.Signals, error: type[BaseException]
) -> None:
    def twice() -> None:
        with stop_on_signals():
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)

    with pytest.raises(error):
        twice()


def test_handlers_are_as_before_afterwards() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with stop_on_signals():
        assert all(signal.getsignal(number) != before[number] for number in SIGNALS)
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_beside_the_main_one_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[StopRequest] = []

    def work() -> None:
        with stop_on_signals() as request:
            assert signal.getsignal(signal.SIGTERM) == before
            seen.append(request)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0].received is None
