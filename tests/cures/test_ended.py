"""A real cure that is ended on its way, at any moment, and called again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cures.test_branch import CONFIG
from fullrank.training.config import TrainConfig
from fullrank.training.run import train

LOST = replace(
    CONFIG, batch_size=16, epochs=4, lr=0.4,
    options={**CONFIG.options, "stop_gradient": False, "output_bn": False},
)  # fmt: skip
LONGEST = 600.0  # seconds of one call, or of what it leaves behind


def call(folder: Path, *more: str) -> subprocess.Popen[str]:
    words = ["-m", "fullrank", "cure", "run", "--epochs", "3", "--json", "--jobs", "2", *more]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def whole(folder: Path, *more: str) -> dict[str, Any]:
    """The result of a cure that nobody ends, without places."""
    process = call(folder, *more)
    printed, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, complaints
    found: dict[str, Any] = json.loads(printed)
    assert Path(folder, found["page"]).is_file()
    return found


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal to a cure; what it says. All of its processes end."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    complaints = process.communicate(timeout=LONGEST)[1]
    until = time.monotonic() + LONGEST
    while group_is_alive(process.pid):
        assert time.monotonic() < until, "a process was left behind"
        time.sleep(0.05)
    return complaints


def group_is_alive(group: int) -> bool:
    """Whether a process of a group runs; one that has ended and waits to be noticed does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.02)


def collapsed_run(folder: Path, config: TrainConfig) -> None:
    folder.mkdir()
    train(config, folder / "run")


needs_processes = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")


@pytest.mark.slow
@needs_processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_cure_that_is_ended_leaves_no_process_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "ended"
    collapsed_run(folder, LOST)
    begun = call(folder, "--most", "1", "--seeds", "1")
    wait_for(folder, "run/cure/cells/*/run/checkpoints/last.pt", begun)
    complaints = end(begun, number)
    assert "Traceback" not in complaints
    found = whole(folder, "--most", "1", "--seeds", "1")
    assert [len(arm["runs"]) for arm in found["arms"]] == [1, 1]


@pytest.mark.slow
@needs_processes
@pytest.mark.parametrize("seed", range(3))
def test_a_cure_that_is_ended_at_random_moments_ends_with_the_table_that_it_would_have_had(
    tmp_path: Path, seed: int
) -> None:
    config, more = replace(LOST, limit=256, watch_images=200, knn_bank=200), ("--most", "2", "--seeds", "2")
    for name in ("whole", "ended"):
        collapsed_run(tmp_path / name, config)
    began = time.monotonic()
    expected = whole(tmp_path / "whole", *more)
    took, chance = time.monotonic() - began, random.Random(seed)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP):
        process = call(tmp_path / "ended", *more)
        until = time.monotonic() + chance.uniform(0.1, 0.7) * took
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is not None:
            process.communicate()
            break
        assert "Traceback" not in end(process, number)
    assert whole(tmp_path / "ended", *more) == expected
