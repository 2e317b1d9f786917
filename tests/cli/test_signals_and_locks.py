"""A run that is asked to end checkpoints first; a run directory has one writer; a run appears whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cli.helpers import WIDTHS, call, records

LONG = (
    *("--limit", "96", "--backbone", "resnet8-w16", "--batch-size", "16"),
    *("--epochs", "4", "--level-every", "1", "--watch-every", "1"),
    *WIDTHS,
)


@contextmanager
def training(*words: str, run: Path, step: int) -> Iterator[subprocess.Popen[str]]:
    """A process that trains, once it has done so many steps."""
    command = [sys.executable, "-m", "fullrank", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in jobs of a shell's background
    )
    log, until = run / "metrics.jsonl", time.monotonic() + 240
    try:
        while not (log.exists() and f'"step": {step},' in log.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert call("train", "simsiam", *LONG, "--quiet", "--out", str(run)).code == 0
    return run


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_asked_to_end_checkpoints_its_step_and_says_how_to_go_on(
    number: signal.Signals, code: int, uninterrupted: Path, here: Path
) -> None:
    run = here / "run"
    with training("train", "simsiam", *LONG, "--quiet", "--out", str(run), run=run, step=8) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
        assert process.returncode == code
    done = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
    assert done >= 8
    assert f"stopped after step {done} of 24 by {number.name}; `fullrank resume {run}` continues" in error
    assert not list(run.glob(".*"))
    assert call("resume", str(run), "--quiet").code == 0
    assert records(run) == records(uninterrupted)


def test_the_second_of_two_resumes_is_told_who_is_at_work(here: Path) -> None:
    run = here / "run"
    with training("train", "simsiam", *LONG, "--quiet", "--out", str(run), run=run, step=3) as process:
        second = call("resume", str(run), "--quiet")
        assert process.poll() is None
    assert second.code == 2
    assert f"{run} is being written by process {process.pid} on" in second.err
    assert call("resume", str(run), "--quiet").code == 0  # the dead owner's lock is free


def test_a_run_that_was_killed_before_it_was_anything_can_be_trained_into(here: Path) -> None:
    run = here / "run"
    for part in ("checkpoints", "spectra", "figures"):
        (run / part).mkdir(parents=True)
    os.utime(run, (time.time() - 60, time.time() - 60))
    words = [*LONG, "--epochs", "1", "--quiet", "--out", str(run)]
    assert call("train", "simsiam", *words).code == 0
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("found", ["mine/notes.txt", "checkpoints/last.pt", "empty"])
def test_what_is_no_begun_run_is_never_trained_into(found: str, here: Path) -> None:
    run = here / "run"
    (run / found).mkdir(parents=True)
    called = call("train", "simsiam", *LONG, "--quiet", "--out", str(run))
    assert called.code == 2
    assert "exists already" in called.err
    assert (run / found).exists()


def test_a_run_directory_is_never_seen_without_its_configuration(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fullrank.atomic import write_atomically
    from fullrank.training import run_dir
    from fullrank.training.config import TrainConfig

    seen: list[bool] = []

    def watched(path: Path, content: bytes) -> None:
        seen.append((here / "run").exists())
        write_atomically(path, content)

    monkeypatch.setattr(run_dir, "write_atomically", watched)
    run = run_dir.RunDir.create(here / "run", TrainConfig())
    assert seen == [False, False]
    assert run.config().method == TrainConfig().method


def test_the_slower_of_two_trainings_leaves_the_directory_of_the_quicker_alone(here: Path) -> None:
    from fullrank.errors import UsageError
    from fullrank.training import run_dir
    from fullrank.training.config import TrainConfig

    write = run_dir.RunDir.write_environment

    begun: list[Path] = []

    def overtaken(self: run_dir.RunDir) -> None:  # another run is quicker, at the last moment
        write(self)
        begun.append(self.path)
        if len(begun) == 1:
            run_dir.RunDir.create(here / "run", TrainConfig(seed=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_dir.RunDir, "write_environment", overtaken)
        with pytest.raises(UsageError, match="exists already"):
            run_dir.RunDir.create(here / "run", TrainConfig(seed=2))
    assert run_dir.RunDir(here / "run").config().seed == 1
    assert {path.name for path in (here / "run").iterdir()} >= {"checkpoints", "spectra", "figures"}
    assert [path.name for path in here.iterdir()] == ["run"]


def test_a_checkpoint_that_the_disk_does_not_hold_is_one_line_and_leaves_no_part(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fullrank.training import run_dir
    from fullrank.training.config import TrainConfig

    run = run_dir.RunDir.create(here / "run", TrainConfig())
    run.checkpoints.write({"step": 1})

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*last\.pt"):
        run.checkpoints.write({"step": 2})
    left = sorted(path.name for path in (here / "run" / "checkpoints").iterdir())
    assert left == ["digests.json", "last.pt"]
    found = run.checkpoints.newest()
    assert found is not None and found.state == {"step": 1}
