"""`fullrank audit` of many files by several processes: what one process finds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.helpers import call, refused

SHARDS = 40
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of unlike lengths, sorted by class in part, with copies and rows far from all others."""
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    centres = 2 * rng.standard_normal((5, 24))
    for k in range(SHARDS):
        n = int(rng.integers(20, 400))
        labels = np.full(n, k % 5) if k % 2 else rng.integers(0, 5, n)
        z = rng.standard_normal((n, 24)) * np.linspace(2, 0.1, 24) + centres[labels]
        if k in (7, 30):
            z[3:9] *= 500
        if k == 12:
            z[:15] = z[0]
        np.savez(folder / f"part-{k}.npz", features=z.astype(np.float32), labels=labels)
    return folder


def ran(words: list[str], out: Path, code: int = 0) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, "--out", str(out), "--no-page"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads((out / "audit.json").read_text())
    return found


def numbers(value: Any, place: str = "") -> dict[str, Any]:
    """All of an audit by place, but for seconds."""
    if isinstance(value, dict):
        parts = [numbers(each, f"{place}.{key}") for key, each in value.items() if key != "seconds"]
        return {key: each for part in parts for key, each in part.items()}
    if isinstance(value, list):
        return numbers({str(k): each for k, each in enumerate(value)}, place)
    return {place: value}


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return numbers(ran(["-m", "fullrank", "audit", str(folder)], tmp_path_factory.mktemp("one") / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param("2 by itself", marks=pytest.mark.acceptance), "3 by torchrun"])
def test_processes_find_what_one_finds(folder: Path, alone: dict[str, Any], tmp_path: Path, how: str) -> None:
    words = ["-m", "fullrank", "audit", str(folder)]
    words = [*words, "--processes", "2"] if how.startswith("2") else [*TORCHRUN, "3", *words]
    found = numbers(ran(words, tmp_path / "out"))
    assert found.keys() == alone.keys() and sum(isinstance(each, float) for each in alone.values()) > 100
    for place, value in alone.items():
        wanted = pytest.approx(value, rel=1e-10, abs=1e-12) if isinstance(value, float) else value
        assert found[place] == wanted, place


def helper_of(pid: int) -> int:
    """The process that a command has started to help it, once it is there."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"fullrank" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[2:3]:
                return int(child)
    return 0


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_command(folder: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "fullrank",
        "audit",
        str(folder),
        "--processes",
        "2",
        "--out",
        str(tmp_path / "o"),
    ]
    command = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    while not (helper := helper_of(command.pid)):
        time.sleep(0.02)
    os.kill(helper, signal.SIGKILL)
    _, said = command.communicate(timeout=120)
    named = (
        rf"rank 1 of 2 \(process {helper} on \S+\) died without a word, as of kill -9 .*; rank 0 ends with it"
    )
    assert command.returncode == 1 and re.search(named, said)


def test_numbers_of_processes_that_make_no_sense_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "must not be negative" in refused("audit", str(folder), "--processes", "-1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "leave --processes out" in refused("audit", str(folder), "--processes", "2")


def test_helpers_of_torchrun_leave_an_encoder_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    called = call("audit", "timm:resnet18", "--data", "nowhere")
    assert (called.code, called.out) == (0, "")
