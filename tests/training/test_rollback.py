"""What a run does when it has collapsed and was told to roll back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fullrank.collapse import Report, Verdict
from fullrank.report.run.reading import read_run
from fullrank.training.held_out import HeldOutEvaluator
from training.test_loop import records, run


def judged(kinds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the panels of trained networks say these kinds, one after the other, the last one for ever."""
    real, left = HeldOutEvaluator.panel, list(kinds)

    def panel(self: HeldOutEvaluator, trained: bool) -> Report:
        report = real(self, trained)
        if not trained:
            return report
        kind: Any = left.pop(0) if len(left) > 1 else left[0]
        return dataclasses.replace(report, verdict=Verdict(kind, "projector", "as the test has it"))

    monkeypatch.setattr(HeldOutEvaluator, "panel", panel)


OPTIONS: dict[str, Any] = {
    "on_collapse": "rollback", "patience": 1, "epochs": 4, "schedule": "constant",
    "knn_every": 0, "probe": "off",  # an accuracy that rises by chance would make the collapse transient
}  # fmt: skip


def test_it_goes_back_to_the_healthy_epoch_and_on_at_a_tenth_of_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(["healthy", "complete", "healthy"], monkeypatch)
    outcome = run(tmp_path / "a", **OPTIONS)
    assert outcome.reason == "finished"
    rows = records(tmp_path / "a")
    at = next(index for index, row in enumerate(rows) if row["event"] == "rollback")
    assert rows[at]["epoch"] == 1
    before = [row["lr"] for row in rows[:at] if row["event"] == "step"]
    after = [row["lr"] for row in rows[at:] if row["event"] == "step"]
    assert after[0] == pytest.approx(0.1 * before[-1])
    assert [row["epoch"] for row in rows[at:] if row["event"] == "epoch"] == [2, 3, 4]
    seen = read_run(tmp_path / "a")  # as the page shows it
    assert [row.epoch for row in seen.epochs] == [0, 1, 2, 3, 4]
    assert seen.damaged == 0


def test_it_goes_back_once_and_stops_when_it_collapses_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(["healthy", "complete"], monkeypatch)
    outcome = run(tmp_path / "a", **OPTIONS)
    assert outcome.reason == "collapsed"
    assert [row["event"] for row in records(tmp_path / "a")].count("rollback") == 1


def test_without_a_healthy_checkpoint_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(["complete"], monkeypatch)
    assert run(tmp_path / "a", **OPTIONS).reason == "collapsed"
    assert not any(row["event"] == "rollback" for row in records(tmp_path / "a"))
