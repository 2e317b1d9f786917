"""A command of several runs that is asked to end says so in a line, and leaves no process behind."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fullrank import cli
from fullrank.jobs import once
from fullrank.jobs.job import Job
from fullrank.training.signals import EndedBySignal, StoppedError

WORKER = Path(__file__).with_name("ended_worker.py")
COMMANDS = ("adapt", "cure", "demo", "embed", "lab", "pick", "sweep")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_asked_to_end_says_how_it_goes_on_in_one_line(
    name: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(importlib.import_module(f"fullrank.cli.{name}"), "run", run)
    assert cli.main([name]) == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fullrank: stopped by {number.name}; ")
    assert "the same" in line or "anew" in line
    assert signal.getsignal(signal.SIGTERM) is before


def _processes_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[2]) == session and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are read from /proc")
@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "running"),
        pytest.param(signal.SIGINT, "running", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "starting", marks=pytest.mark.slow),
    ],
)
def test_a_pool_that_is_asked_to_end_asks_its_jobs_and_leaves_none_behind(
    number: signal.Signals, when: str, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        until = time.monotonic() + 240
        while len(list(tmp_path.glob("*.pid"))) < 2 if when == "running" else not _server(process.pid):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
        assert (process.returncode, out, error) == (7, f"ended by {number.name}\n", "")
        until = time.monotonic() + 30  # for the tracker of shared memory, which ends when all others have
        while _processes_of(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert _processes_of(process.pid) == []
        assert {file.stem for file in tmp_path.glob("*.asked")} == (
            {"a", "b"} if when == "running" else set()
        )
    finally:
        for left in _processes_of(process.pid):
            os.kill(left, signal.SIGKILL)


def _server(parent: int) -> bool:
    """Whether the server of forks has begun."""
    return any("forkserver" in Path(f"/proc/{pid}/cmdline").read_text() for pid in _processes_of(parent))


def test_a_job_that_is_asked_to_end_ends_all_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def run(job: Job, *_: object) -> str:
        done.append(job.name)
        raise StoppedError("stopped", signal.SIGTERM)

    monkeypatch.setattr(once, "_run", run)
    with pytest.raises(EndedBySignal):
        once.run_once([Job("a"), Job("b")], tmp_path, 1)
    assert done == ["a"]
