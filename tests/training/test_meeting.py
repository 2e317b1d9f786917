"""Processes that do not come are named, within the time that is given them."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from fullrank import launchers
from fullrank.errors import FullrankError, UsageError
from fullrank.launchers import UNNAMED, Processes
from fullrank.training.meeting import meet
from fullrank.training.orphans import PARENT, child_of_this, parent_has_ended

WORDS = "--timeout-minutes 1"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def coming(port: int, world: int, ranks: list[int], seconds: float) -> Iterator[dict[int, object]]:
    """Some ranks of so many, each in a thread, and what became of each."""
    found: dict[int, object] = {}

    def come(rank: int) -> None:
        try:
            processes = Processes(world, world, UNNAMED, rank, rank)
            found[rank] = meet(processes, "127.0.0.1", port, timedelta(seconds=seconds), WORDS)
        except FullrankError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield found
    found.clear()  # the first one's store ends last


def test_who_has_come_is_known_by_rank_process_and_host(port: int) -> None:
    with coming(port, 3, [2, 0, 1], 60) as found:
        (first, *others) = (found[rank].peers for rank in range(3))  # type: ignore[attr-defined]
        assert [(peer.rank, peer.pid, peer.host) for peer in first] == [
            (rank, os.getpid(), socket.gethostname()) for rank in range(3)
        ]
        assert all(other == first[:1] for other in others)


@pytest.mark.parametrize(
    ("world", "ranks", "missing"),
    [(2, [0], "rank 1"), (4, [0, 2], "ranks 1 and 3"), (12, [0], "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more")],
)
def test_all_that_have_come_name_those_that_have_not(
    world: int, ranks: list[int], missing: str, port: int
) -> None:
    line = f"the {world} processes have not met within {WORDS}: {missing} did not come"
    with coming(port, world, ranks, 1) as found:
        assert found == dict.fromkeys(ranks, line)


@pytest.mark.parametrize(("host", "says"), [("127.0.0.1", ""), ("no.such.host.invalid", ", a name that")])
def test_a_first_process_that_nobody_finds_is_named_with_its_place(host: str, says: str, port: int) -> None:
    with pytest.raises(FullrankError, match=f"rank 0 at {host}:{port}{says}.* did not come") as refused:
        meet(Processes(2, 2, UNNAMED, 1, 1), host, port, timedelta(seconds=1), WORDS)
    assert "\n" not in str(refused.value)


def test_a_first_process_that_is_not_where_the_others_seek_it_is_told(port: int) -> None:
    with pytest.raises(UsageError, match="MASTER_ADDR must be an address of the machine of rank 0"):
        meet(Processes(2, 2, UNNAMED, 0, 0), "no.such.host.invalid", port, timedelta(seconds=1), WORDS)


def test_a_port_that_is_in_use_is_refused_at_once() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of this machine is in use.* set MASTER_PORT"):
            meet(Processes(2, 2, UNNAMED, 0, 0), "127.0.0.1", port, timedelta(minutes=9), WORDS)


def test_who_waits_says_for_whom(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launchers, "WAITING", 0.5)
    with coming(port, 3, [0, 1], 2):
        pass
    # on a busy machine rank 1 may come after it is said
    assert re.search(r"rank 0 waits for (rank 2|ranks 1 and 2): WORLD_SIZE is 3", capsys.readouterr().err)


def test_a_process_knows_whether_the_one_that_started_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with child_of_this():
        assert os.environ[PARENT] == str(os.getpid())
    assert PARENT not in os.environ and not parent_has_ended()
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not parent_has_ended()
    monkeypatch.setenv(PARENT, str(os.getpid()))
    assert parent_has_ended()
