"""A run killed at any moment and resumed leaves what an uninterrupted one leaves, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.helpers import WIDTHS, call, kill_at, records, refused, save_images

STEPS = 6  # in an epoch
LONG = (
    *("--limit", "96", "--backbone", "resnet8-w16", "--batch-size", "16"),
    *("--epochs", "3", "--level-every", "1", "--watch-every", "1"),
    *WIDTHS,
)
Uninterrupted = Callable[..., Path]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """Trains method and options to the end, each combination once."""
    made: dict[tuple[str, ...], Path] = {}

    def get(*words: str) -> Path:
        if words not in made:
            made[words] = tmp_path_factory.mktemp("whole") / "run"
            assert call("train", *words, "--quiet", "--out", str(made[words])).code == 0
        return made[words]

    return get


def weights(run: Path) -> dict[str, Any]:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return dict(state["method"])


def assert_same(run: Path, whole: Path) -> None:
    assert records(run) == records(whole)
    ours, theirs = weights(run), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "event"),
    [
        ("after", {"event": "epoch", "epoch": 0}),
        ("after", {"event": "step", "step": 8}),
        ("amid", {"event": "step", "step": 8}),
        ("after", {"event": "epoch", "epoch": 1}),
        ("checkpoint", {"event": "epoch", "epoch": 1}),
        ("amid", {"event": "end"}),
        ("checkpoint", {"event": "end"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_killed_run_resumed_equals_an_uninterrupted_one(
    where: str, event: dict[str, Any], uninterrupted: Uninterrupted, here: Path
) -> None:
    run = here / "run"
    kill_at(["train", "simsiam", *LONG, "--quiet", "--out", str(run)], where, event)
    assert call("resume", str(run), "--quiet").code == 0
    assert_same(run, uninterrupted("simsiam", *LONG))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_a_run_killed_after_a_checkpoint_in_mid_epoch_goes_on_from_there(
    method: str, uninterrupted: Uninterrupted, here: Path
) -> None:
    run, words = here / "run", (method, *LONG, "--checkpoint-every", "4")
    kill_at(["train", *words, "--quiet", "--out", str(run)], "after", {"event": "step", "step": 10})
    at = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
    assert at % STEPS, "the checkpoint is not of mid-epoch"
    resumed = call("resume", str(run))
    where = f"note    goes on after epoch 1 of 3, step {at} of 18, from {run / 'checkpoints' / 'last.pt'}"
    assert resumed.code == 0 and where in resumed.out.splitlines()
    assert_same(run, uninterrupted(*words))  # BYOL's target network is among the weights


@pytest.mark.slow
def test_a_run_killed_twice_still_comes_out_the_same(uninterrupted: Uninterrupted, here: Path) -> None:
    run = here / "run"
    kill_at(["train", "simsiam", *LONG, "--quiet", "--out", str(run)], "after", {"event": "step", "step": 4})
    kill_at(["resume", str(run), "--quiet"], "checkpoint", {"event": "epoch", "epoch": 2})
    assert call("resume", str(run), "--quiet").code == 0
    assert_same(run, uninterrupted("simsiam", *LONG))


def test_no_half_written_file_is_left_after_resuming(here: Path) -> None:
    run = here / "run"
    words = ["train", "simsiam", *LONG, "--quiet", "--out", str(run)]
    kill_at(words, "checkpoint", {"event": "epoch", "epoch": 1})
    assert list(run.rglob("*.partial")), "nothing was half-written"
    assert call("resume", str(run), "--quiet").code == 0
    assert not list(run.rglob("*.partial"))


def test_resuming_a_run_that_has_ended_says_so_and_changes_no_record(
    uninterrupted: Uninterrupted,
) -> None:
    whole = uninterrupted("simsiam", *LONG)
    before = (whole / "metrics.jsonl").read_bytes()
    called = call("resume", str(whole))
    assert called.code == 0 and "had ended already (finished)" in called.out
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_kill_9_from_outside(uninterrupted: Uninterrupted, here: Path) -> None:
    run = here / "run"
    command = [sys.executable, "-m", "fullrank", "train", "simsiam", *LONG, "--quiet", "--out", str(run)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, until = run / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and b'"step": 7,' in log.read_bytes()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert b'"event": "end"' not in log.read_bytes(), "it had ended before it was killed"
    assert call("resume", str(run), "--quiet").code == 0
    assert_same(run, uninterrupted("simsiam", *LONG))


def test_other_images_than_before_are_refused(here: Path) -> None:
    save_images("flat", 60)
    words = (
        "--data",
        "flat",
        "--image-size",
        "16",
        "--backbone",
        "resnet8-w16",
        "--batch-size",
        "16",
        *WIDTHS,
    )
    kill_at(
        ["train", "simsiam", *words, "--epochs", "3", "--out", "run"], "after", {"event": "epoch", "epoch": 1}
    )
    save_images("flat", 70)
    line = refused("resume", "run")
    assert "began with 54 training images, and there are 63 now" in line
