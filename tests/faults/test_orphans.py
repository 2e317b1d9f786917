"""Nothing goes on training after the process that started it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.cases import TRAINING
from faults.harness import wait_until
from fullrank.errors import BusyError
from fullrank.lock import sole_writer
from fullrank.training.record_files import last_step

LONG = ("--epochs", "4000", "--watch-every", "4000", "--checkpoint-minutes", "0")


def started(*words: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fullrank", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def is_free(run: Path) -> bool:
    """Whether nobody writes into a run."""
    try:
        with sole_writer(run):
            return True
    except BusyError:
        return False


def descendants(process: int) -> list[int]:
    """The processes that a process started, and theirs."""
    children = [
        int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _parent(stat) == process
    ]
    return [*children, *(each for child in children for each in descendants(child))]


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_runs_of_a_sweep_that_is_killed_end_with_it(here: Path, number: signal.Signals) -> None:
    process = started(
        *("sweep", "simsiam", "--over", "lr=0.01,0.02", *TRAINING, *LONG),
        *("--out", "grid", "--jobs", "2"),
    )
    runs = [here / "grid" / f"lr={rate}" for rate in ("0.01", "0.02")]
    wait_until(lambda: all(last_step(run / "metrics.jsonl") > 3 for run in runs), 240)
    children = descendants(process.pid)
    process.send_signal(number)
    process.wait(60)
    wait_until(lambda: not any(is_running(child) for child in children), 60)
    assert all(is_free(run) for run in runs)


@pytest.mark.parametrize("devices", ["2"])
def test_the_other_processes_of_a_run_end_with_the_first(here: Path, devices: str) -> None:
    process = started("train", "simsiam", *TRAINING, *LONG, "--devices", devices, "--out", "run")
    wait_until(lambda: last_step(here / "run" / "metrics.jsonl") > 3, 240)
    children = descendants(process.pid)
    assert children
    process.kill()
    process.wait(60)
    wait_until(lambda: not any(is_running(child) for child in children), 60)
    assert is_free(here / "run")
