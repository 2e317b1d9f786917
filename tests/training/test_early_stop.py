"""Early stop: a run ends when its label-free score rises no more, and leaves its best encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fullrank.cli import main
from fullrank.collapse import Report
from fullrank.collapse.label_free_score import expected_points, read_weights
from fullrank.encoders.runs import encoder_header
from fullrank.errors import UsageError
from fullrank.training.records import EpochRecord
from fullrank.training.run import resume
from fullrank.training.run_dir import RunDir
from training.test_loop import config, cut_run, records, run


def scores(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> None:
    """Let the panels of a run score so, the untrained network's first."""
    coming: Iterator[float | None] = iter(values)

    def score(report: Report) -> float | None:
        return next(coming)

    monkeypatch.setattr("fullrank.training.epoch_end.label_free_score", score)


def epoch_of_encoder(path: Path) -> int:
    return int(encoder_header(RunDir.open(path))["epoch"])


@pytest.mark.parametrize(
    ("values", "ends", "best"),
    [
        ((9, 1, 3, 2, 2, 7), 4, 2),  # the untrained network's score does not count
        ((0, 3, 2, 1, 9, 9), 3, 1),
        ((0, 3, 3, 3, 1, 2), 5, 1),  # as good is neither better nor worse
    ],
)
def test_a_run_ends_after_so_many_panels_without_a_better_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: tuple[float, ...], ends: int, best: int
) -> None:
    scores(monkeypatch, *values)
    outcome = run(tmp_path / "run", epochs=5, early_stop=2)
    assert (outcome.reason, outcome.record.epoch) == ("stopped early", ends)
    assert epoch_of_encoder(tmp_path / "run") == best


def test_a_run_that_came_to_its_last_epoch_leaves_its_best_encoder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 0, 1, 5, 2)
    assert run(tmp_path / "run", epochs=3, early_stop=4).reason == "finished"
    assert epoch_of_encoder(tmp_path / "run") == 2


def test_without_it_the_last_encoder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0, 5, 1, 1)
    assert run(tmp_path / "run", epochs=3).reason == "finished"
    assert epoch_of_encoder(tmp_path / "run") == 3
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_panels_without_a_score_neither_stop_a_run_nor_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, None, 3, None, None, 1)
    assert run(tmp_path / "run", epochs=4, early_stop=2).reason == "finished"
    assert epoch_of_encoder(tmp_path / "run") == 1


def test_a_run_that_was_cut_remembers_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0, 5, 2, 1, 1)
    cut_run(tmp_path / "run", 7, epochs=5, early_stop=2)
    scores(monkeypatch, 1, 1, 1, 1)
    outcome = resume(tmp_path / "run")
    assert (outcome.reason, outcome.record.epoch) == ("stopped early", 3)
    assert epoch_of_encoder(tmp_path / "run") == 1


def test_a_run_that_stopped_early_goes_on_when_it_is_to_be_more_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 0, 5, 2, 1, 9)
    assert run(tmp_path / "run", epochs=4, early_stop=2).reason == "stopped early"
    assert resume(tmp_path / "run", changes={"early_stop": 4}).reason == "finished"
    assert epoch_of_encoder(tmp_path / "run") == 4


def test_the_command_line_says_which_encoder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores(monkeypatch, 0, 5, 2, 1)
    small = ("--limit", "192", "--batch-size", "64", "--backbone", "resnet8-w16", "--knn-every", "0")
    words = ["train", "simsiam", *small, "--epochs", "9", "--early-stop", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert "encoder that of epoch 1, which had the best label-free score" in capsys.readouterr().out


def test_few_held_out_images_are_said_to_decide_little(tmp_path: Path) -> None:
    notes: list[str] = []
    run(tmp_path / "run", [lambda record: notes.extend(getattr(record, "notes", ()))], epochs=1, early_stop=2)
    assert any("goes by views of 64 held-out images, and is little sure" in note for note in notes)


def test_every_panel_records_the_score_of_the_backbone(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    epochs: list[dict[str, Any]] = [r for r in records(tmp_path / "run") if r["event"] == EpochRecord.event]
    for record in epochs:
        measures = {name: m["value"] for name, m in record["panels"]["backbone"]["measures"].items()}
        assert record["score"] == pytest.approx(expected_points(measures, read_weights(), "panel"))
    assert len(epochs) == 2


def test_panels_beside_training_are_refused_where_they_decide(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="take --panels between, or leave --on-collapse and --early-stop out"
    ):
        run(tmp_path / "run", epochs=1, early_stop=2, panels="beside")
    assert list(tmp_path.iterdir()) == [], "nothing is written before that"


def test_a_negative_patience_is_refused() -> None:
    with pytest.raises(UsageError, match="--early-stop must not be negative"):
        config(early_stop=-1)
