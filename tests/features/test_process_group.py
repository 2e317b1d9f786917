"""Processes that share a command end with the reason of the one that failed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.features import process_group
from fullrank.features.embeddings import PART_BYTES, count_parts
from fullrank.features.process_group import sharing
from fullrank.training.meeting import Failure, Peer
from processes import results_of

WORKER = Path(__file__).with_name("failing_worker.py")


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("data", "rank 1 of 2 failed: photos: 9 of 9 images cannot be decoded", "code 2"),
        ("memory", "rank 1 of 2 failed: MemoryError: 9 bytes", "9 bytes"),
    ],
)
def test_the_first_process_says_why_another_one_failed(
    kind: str, first: str, second: str, tmp_path: Path
) -> None:
    found = results_of(WORKER, 2, tmp_path / kind)
    assert [each["said"] for each in found] == [first, second]


def test_no_more_processes_are_started_than_there_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []

    @contextmanager
    def start(words: Sequence[str], number: int) -> Iterator[None]:
        started.append(number)
        yield

    monkeypatch.setattr(process_group, "_started", start)
    monkeypatch.setattr(process_group, "_met", lambda rank, size: iter([Peers(alone=True)]))
    for files in (1, 3, 8):
        (tmp_path / f"{files}.npy").touch()
        with sharing([], 6, lambda: count_parts(tmp_path)):
            pass
        (tmp_path / f"{files}b.npy").touch()
    assert started == [3, 5]
    said = capsys.readouterr().err
    assert "1 process reads this, not 6" in said and "3 processes read this, not 6" in said


def test_a_large_file_is_shared_and_a_small_or_missing_one_is_not(tmp_path: Path) -> None:
    small, large = tmp_path / "small.npy", tmp_path / "large.npy"
    small.touch()
    with large.open("wb") as file:
        file.truncate(3 * PART_BYTES)
    assert [count_parts(path) for path in (tmp_path / "none.npy", small, large)] == [0, 1, 3]


@pytest.mark.parametrize("number", [257, 100_000, 10**15])
def test_processes_that_no_machine_holds_are_refused(number: int) -> None:
    with pytest.raises(UsageError, match="256 on one machine are the most"), sharing([], number):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_a_process_of_this_machine_that_died_is_named(reaped: bool) -> None:
    host = socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    peers = [Peer(0, os.getpid(), host), Peer(1, os.getppid(), host), Peer(2, ended.pid, host)]
    assert process_group._dead(peers, 0, 3) == ""
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        ended.communicate()
    line = f"rank 2 of 3 (process {ended.pid} on {host}) died without a word, as of kill -9 or for want of"
    assert process_group._dead(peers, 0, 3) == f"{line} memory; rank 0 ends with it"
    elsewhere = [replace(peer, host="node7") for peer in peers]
    assert process_group._dead(elsewhere, 0, 3) == ""
    ended.communicate()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "died without a word, as of kill -9 or for want of memory"),
        (-15, "was ended by SIGTERM"),
        (-11, "was ended by SIGSEGV"),
        (3, "ended with exit code 3"),
    ],
)
def test_the_end_of_a_process_is_said_in_the_same_words_by_all_commands(code: int, said: str) -> None:
    assert Failure(Peer(1, 7, "node"), code=code).line(2) == f"rank 1 of 2 (process 7 on node) {said}"


DYING = """
import os, signal
from fullrank.features.process_group import sharing
with sharing(["audit"]) as peers:
    if peers.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    peers.sums(1.0)
"""


@pytest.mark.slow
def test_a_process_of_another_launcher_that_is_killed_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = []
    for rank in "01":
        environment = os.environ | place | {"RANK": rank, "LOCAL_RANK": rank}
        command = [sys.executable, "-c", DYING]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    started[1].wait(120)
    said = started[0].communicate(timeout=60)[1]
    assert f"rank 1 of 2 (process {started[1].pid} on {socket.gethostname()}) died without a word" in said
