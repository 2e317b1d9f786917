"""Both ends of an adaptation: what is left is the adapted encoder, or the start to the last bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import fullrank
from adaptation.helpers import Adapt, history, same, weights
from fullrank.adaptation import loop
from fullrank.adaptation.decision import Finding
from fullrank.adaptation.result import Adaptation, read_result
from fullrank.encoders.runs import encoder_header
from fullrank.training.run_dir import RunDir


def test_an_encoder_that_is_not_taken_leaves_the_start_to_the_last_bit(start: Path, adapt: Adapt) -> None:
    result = adapt(keep=1.0)
    assert not result.adapted
    assert result.epoch == 0
    assert same(weights(result.path), weights(start))


def test_an_encoder_that_is_taken_is_that_of_the_best_panel(
    start: Path, adapt: Adapt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "decide", lambda findings: True)
    rising = [0.0, 0.1, 0.3, 0.2, 0.1]
    monkeypatch.setattr(
        loop,
        "compared",
        lambda *_: {"score": rising.pop(0), "coherence": 0.0, "collapsed": 0.0, "kept": 1.0, "cka": 1.0},
    )
    result = adapt(labels="report")
    kept = torch.load(result.path / "checkpoints" / "best.pt", weights_only=True)
    assert (result.adapted, result.epoch, kept["progress"]["epoch"]) == (True, 2, 2)
    assert encoder_header(RunDir(result.path))["epoch"] == 2
    backbone = {
        name.removeprefix("backbone."): value
        for name, value in kept["method"].items()
        if name.startswith("backbone.")
    }
    assert same(weights(result.path), backbone)
    assert not same(weights(result.path), weights(start))


def test_too_few_images_train_nothing_and_say_so(start: Path, adapt: Adapt) -> None:
    result = adapt(limit=32, batch_size=8)
    assert not result.adapted
    assert "too few images to judge by: 32 held-out ones where 80 are needed" in result.sentence
    assert result.findings == () and result.untested[2].startswith("An adapted encoder")
    assert [record.epoch for record in history(result.path)] == [0]
    assert same(weights(result.path), weights(start))


def test_numbers_that_stop_being_finite_leave_the_start(start: Path, adapt: Adapt) -> None:
    result = adapt(lr=1e12, settings=("options.proj_output_dim=8", "warmup_epochs=0"))
    assert not result.adapted
    assert same(weights(result.path), weights(start))


def test_a_backbone_that_is_frozen_is_compared_as_equal_to_the_start(adapted: Adaptation) -> None:
    first, heads, *_ = history(adapted.path)
    assert heads.values["stage"] == 0.0
    assert heads.values["kept"] == first.values["kept"] == 1.0
    assert heads.values["score"] == first.values["score"]


def test_the_result_is_read_as_it_was_written(adapted: Adaptation) -> None:
    assert read_result(adapted.path) == adapted


def test_the_result_is_plain_json(adapted: Adaptation) -> None:
    read = json.loads(json.dumps(adapted.as_dict(), allow_nan=False))
    assert read["adapted"] is adapted.adapted
    assert {found["name"] for found in read["findings"]} >= {"gain", "kept", "collapse", "knn"}


def test_labels_of_training_images_are_asked_too(adapted: Adaptation) -> None:
    knn = adapted.finding("knn")
    assert knn is not None
    assert knn.images == adapted.images["train"] + adapted.images["choose"] + adapted.images["judge"]


def test_labels_that_only_report_decide_nothing(adapt: Adapt) -> None:
    knn = adapt(labels="report").finding("knn")
    assert isinstance(knn, Finding)
    assert knn.passed is None


def test_the_run_directory_is_one_like_any(adapted: Adaptation, tmp_path: Path) -> None:
    exported = fullrank.export(adapted.path, "torch", tmp_path / "E")
    audited = fullrank.audit(adapted.path, metrics="level")
    resumed = fullrank.resume(adapted.path)
    assert exported.difference == 0.0
    assert math.isfinite(audited.verdict.probability or 0.0)
    assert resumed.reason == ("adapted" if adapted.adapted else "not adapted")
    assert read_result(adapted.path) == adapted


def test_it_stops_where_the_score_no_longer_rises(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    falling = iter([1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    monkeypatch.setattr(
        loop,
        "compared",
        lambda *_: {"score": next(falling), "coherence": 0.0, "collapsed": 0.0, "kept": 1.0, "cka": 1.0},
    )
    result = adapt(patience=2, epochs=6)
    assert [record.epoch for record in history(result.path)] == [0, 1, 2, 3]
    assert "had not risen in 2 panels" in result.why_stopped


def test_the_pages_say_how_it_ended(adapted: Adaptation) -> None:
    page = (adapted.path / "adaptation.html").read_text()
    assert ("Adapted" if adapted.adapted else "Do not adapt") in page
    assert "What was not tested" in page
    assert "Adaptation ended" in (adapted.path / "report.html").read_text()
