"""`fullrank lab forecast RUN...`: points of any set of runs, refusals, warnings and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cli.helpers import call
from fullrank.labs._common.forecast import forecast, points_of
from labs.fake_runs import write_run


def runs(tmp_path: Path, n: int = 9, **config: Any) -> list[str]:
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        auc, loss = 0.6 + 0.03 * i, -0.9 + 0.02 * float(rng.uniform())
        accuracy = 1.4 - auc + loss / 10 + 0.01 * float(rng.standard_normal())
        found.append(
            str(write_run(tmp_path / f"run{i}", [0.9, 0.5, auc], [0.1, 0.2, accuracy], loss, **config))
        )
    return found


def test_the_answer_is_the_fit_to_every_runs_last_epoch(tmp_path: Path) -> None:
    called = call("lab", "forecast", *runs(tmp_path), "--json")
    printed = json.loads(called.out)
    points = printed["points"]
    auc, loss, accuracy = ([point[key] for point in points] for key in ("auc", "loss", "accuracy"))
    fit = forecast(auc, accuracy, ["one"] * 9, loss=loss)
    assert [point["epoch"] for point in points] == [2] * 9 and auc == pytest.approx(0.6 + 0.03 * np.arange(9))
    assert printed["loo_rmse"] == pytest.approx(fit.loo_rmse) and printed["coefficients"] == pytest.approx(
        fit.coefficients
    )
    assert [point["left_out"] for point in points] == pytest.approx(fit.left_out.tolist())
    assert printed["group"] == "simsiam resnet8-w4 on shapes" and printed["warnings"] == []


def test_a_run_without_labels_is_forecast_with_an_interval(tmp_path: Path) -> None:
    unlabelled = write_run(tmp_path / "unlabelled", [0.9, 0.7], [None, None], -0.89)
    printed = json.loads(call("lab", "forecast", *runs(tmp_path), str(unlabelled), "--json").out)
    last = printed["points"][-1]
    assert (printed["labelled"], last["accuracy"], last["left_out"]) == (9, None, None)
    assert last["low"] < last["predicted"] < last["high"] and last["predicted"] == pytest.approx(
        0.61, abs=0.03
    )


def test_runs_of_two_backbones_or_data_sets_are_refused_in_one_line(tmp_path: Path) -> None:
    first = runs(tmp_path / "a", 4)
    for config in ({"backbone": "resnet18"}, {"data": "cifar10"}):
        other = runs(tmp_path / next(iter(config)), 4, **config)
        called = call("lab", "forecast", *first, *other)
        assert called.code == 2 and len(called.err.splitlines()) == 1
        assert "holds for one method and backbone; these runs are of 2" in called.err


def test_fewer_than_eight_labelled_runs_are_warned_of(tmp_path: Path) -> None:
    called = call("lab", "forecast", *runs(tmp_path, 7))
    assert called.code == 0
    assert "warning   7 labelled runs are few: below 8 a forecast" in called.out
    assert "left out  R²" in called.out and "95 % interval" in called.out


def test_epochs_of_one_run_may_be_the_points_and_are_said_to_flatter(tmp_path: Path) -> None:
    printed = json.loads(call("lab", "forecast", *runs(tmp_path, 5), "--points", "epochs", "--json").out)
    assert [(point["epoch"]) for point in printed["points"]] == [1, 2] * 5
    assert any("are flattered" in warning for warning in printed["warnings"])


def test_encoders_that_were_kept_may_be_the_points(tmp_path: Path) -> None:
    paths = runs(tmp_path, 5)
    for path in paths:
        (Path(path) / "encoders").mkdir()
        weights = {"w": np.zeros(1, np.float32)}
        save_file(weights, Path(path) / "encoders" / "epoch_0001.safetensors", metadata={"epoch": "1"})
    points = points_of(paths, which="encoders")
    assert [(point.run, point.epoch, point.auc) for point in points] == [(path, 1, 0.5) for path in paths]


def test_an_evaluated_accuracy_is_taken_from_what_evaluate_all_wrote(tmp_path: Path) -> None:
    paths = runs(tmp_path, 5)
    for i, path in enumerate(paths):
        rows = [{"epoch": 1, "linear": {"top1": 0.0}}, {"epoch": 2, "linear": {"top1": 0.1 * i}, "knn": {}}]
        (Path(path) / "evaluations").mkdir()
        (Path(path) / "evaluations" / "all.json").write_text(json.dumps({"subject": path, "rows": rows}))
    printed = json.loads(call("lab", "forecast", *paths, "--accuracy", "linear", "--json").out)
    assert [point["accuracy"] for point in printed["points"]] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name the runs to forecast from"),
        (("nowhere",), "no such run directory: nowhere"),
        (
            ("RUN", "--tap", "predictor"),
            "no epoch with a loss and an AUC at the tap 'predictor'; its taps are backbone",
        ),
        (("RUN",), "needs 4 runs of known accuracy, here is 1"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    run = runs(tmp_path, 1)[0]
    called = call("lab", "forecast", *(run if word == "RUN" else word for word in words))
    assert called.code == 2 and says in called.err and len(called.err.splitlines()) == 1


def test_help_tells_the_options_with_an_example() -> None:
    called = call("lab", "forecast", "--help")
    assert called.code == 0 and "Example: fullrank lab forecast" in called.out and "--ridge" in called.out
