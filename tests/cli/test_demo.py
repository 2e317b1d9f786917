"""`fullrank demo` tells a healthy run from collapsed ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.helpers import call
from fullrank.errors import FullrankError
from fullrank.jobs.job import Job, Notify
from fullrank.labs._common import demo
from fullrank.report.run.summary import Summary
from fullrank.training.records import EpochRecord, StepRecord

COLLAPSED = {"complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment"}


def shown(*words: str) -> dict[str, Any]:
    """The demo's object, from a process of its own: it starts others."""
    command = [sys.executable, "-m", "fullrank", "demo", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_directory_of_somebody_elses_is_refused(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "work.txt").write_text("work")
    called = call("demo", "--out", "mine")
    assert called.code == 2 and called.err == "fullrank: mine exists already: take another --out\n"
    assert [path.name for path in (here / "mine").iterdir()] == ["work.txt"]


@pytest.mark.slow
@pytest.mark.acceptance
def test_the_healthy_arm_is_told_from_the_collapsed_ones_one_of_which_has_the_best_loss(here: Path) -> None:
    found = shown("--out", "out")
    healthy, *others = found["arms"]
    assert healthy["verdict"] == "healthy", healthy["why"]
    assert {arm["verdict"] for arm in others} <= COLLAPSED, others
    assert min(others, key=lambda arm: arm["loss"])["loss"] < healthy["loss"]
    assert [arm["name"] for arm in found["arms"]] == list(demo.ARMS)
    for arm in found["arms"]:
        assert {"name", "verdict", "loss", "level", "rank", "knn"} <= arm.keys()
        assert (here / arm["run"] / "report.html").is_file()
    assert (here / found["page"]).is_file()


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> list[Summary]:
    """Summaries that the demo closes with, in place of training its arms."""
    summaries: list[Summary] = []
    listed = iter(range(len(demo.ARMS)))
    monkeypatch.setattr(demo, "train_arms", lambda *_: None)
    monkeypatch.setattr(demo, "raw_pixel_knn", lambda: 0.5)
    monkeypatch.setattr(demo, "write_comparison", lambda *_, **__: Path("index.html"))
    monkeypatch.setattr(demo, "read_run", lambda path: SimpleNamespace(path=path))
    monkeypatch.setattr(demo, "summarise", lambda run, name: summaries[next(listed)])
    return summaries


def arm(name: str, loss: float, kind: str) -> Summary:
    summary = Summary(name)
    summary.losses, summary.verdict = [loss], {"kind": kind, "why": "", "tap": "projector"}
    return summary


@pytest.mark.parametrize(
    ("kind", "line"), [("healthy", "No arm collapsed"), ("complete", "A collapsed run has the best loss")]
)
def test_the_closing_line_says_whether_a_collapsed_arm_has_the_best_loss(
    arms: list[Summary], kind: str, line: str
) -> None:
    arms += [arm(name, -0.1 * i, kind if i else "healthy") for i, name in enumerate(demo.ARMS)]
    called = call("demo", "--out", "out", "--quiet")
    assert called.code == 0 and line in called.out
    assert ("best loss" in called.out) is (kind == "complete")


def test_a_failing_arm_is_reported_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_commands(jobs: list[Job], runs: Any, logs: Any, at_once: int, notify: Notify) -> None:
        notify(jobs[1], "failed", "it diverged")
        raise AssertionError("the others were waited for")

    monkeypatch.setattr(demo, "run_commands", run_commands)
    with pytest.raises(FullrankError, match=r"^the arm 'no predictor' failed: it diverged$"):
        demo.train_arms(demo.make_room(here / "out", True), 0, 1, "quiet", int)


@pytest.mark.parametrize(("epochs", "short"), [(1, True), (3, True), (9, True), (10, False), (0, False)])
def test_a_demo_with_few_epochs_says_that_it_is_too_short(
    arms: list[Summary], epochs: int, short: bool
) -> None:
    arms += [arm(name, -0.1, "healthy") for name in demo.ARMS]
    called = call("demo", "--out", "out", "--epochs", str(epochs))
    assert called.code == 0 and ("too short for a verdict" in called.out) is short


def test_after_the_first_epoch_the_demo_says_once_how_long_all_of_it_takes(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_commands(jobs: list[Job], runs: Any, logs: Any, at_once: int, notify: Notify) -> None:
        for job in jobs[:2]:
            for step in (1, 11, 31):
                notify(job, "running", StepRecord(step=step, loss=0.0, time={"elapsed": step / 10}))
            notify(job, "running", EpochRecord(epoch=1, step=31, loss=0.0, time={"elapsed": 3.1}))

    monkeypatch.setattr(demo, "run_commands", run_commands)
    monkeypatch.setattr(demo, "cores", lambda: 2)
    demo.train_arms(demo.make_room(here / "out", True), 0, 10, "plain", int)
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("all 4 arms take about")
    ]
    assert len(lines) == 1 and lines[0].endswith("1 min 00 s of it left")  # 1,209 steps, a tenth each, by two


@pytest.mark.parametrize("steps", [[], [1]])
def test_nothing_is_estimated_before_steps_were_timed(steps: list[int]) -> None:
    first = Summary("SimSiam")
    for step in steps:
        first.take(StepRecord(step=step, loss=0.0, time={"elapsed": 1.0}))
    assert demo.Pace(100, 2).seconds_left([first, Summary("other")]) is None
