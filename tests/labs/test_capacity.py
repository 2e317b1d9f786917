"""The lab of capacity: shares of the data, claims that numbers decide, and a forecast for each encoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullrank.labs import LABS
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import auc_end, loss_end
from fullrank.labs.capacity.lab import shares_of
from fullrank.training.setup import data_order
from labs.fake_runs import write_run

LAB = LABS["capacity"]()
PRESET = {
    "data": "shapes",
    "run": {"epochs": 10},
    "encoders": {"small": "resnet8-w4", "large": "resnet8-w16"},
    "chunks": [1, 10],
}


def found(tmp_path: Path, seeds: int = 4, sign: float = 1.0) -> Results:
    """AUC rises with the share, for the small encoder most; accuracy falls with AUC and loss."""
    rng, results = np.random.default_rng(0), []
    for encoder, slope in (("small", 0.2), ("large", 0.05)):
        for share in (0.1, 1.0):
            for seed in range(seeds):
                auc = 0.7 + sign * slope * share + 0.01 * float(rng.uniform())
                loss = -0.8 + 0.1 * float(rng.uniform())
                accuracy = 0.5 - auc - loss + 1e-4 * float(rng.standard_normal())
                folder = tmp_path / f"{encoder}-{share}-{seed}"
                backbone = PRESET["encoders"][encoder]  # type: ignore[index]
                write_run(folder / "run", [0.9, auc], [0.1, accuracy], loss, backbone=backbone, seed=seed)
                results.append(Result("", f"{encoder}, {100 * share:g} %", seed, folder))
    return Results(results)


def findings(tmp_path: Path, **more: Any) -> Findings:
    return LAB.analyse(found(tmp_path, **more), PRESET)


@pytest.mark.parametrize("preset", list(LAB.presets))
def test_an_encoder_sees_its_share_of_the_images_and_takes_as_many_steps_as_any_other(preset: str) -> None:
    settings, n = LAB.presets[preset], 120_000
    jobs = list(LAB.jobs(settings, "", 0))
    shares = list(shares_of(settings)) * len(settings["encoders"])
    orders = [data_order(job.config(), n) for job in jobs]
    assert [len(order.chunk(0)) for order in orders] == [math.ceil(n * share - 1e-9) for share in shares]
    assert len({order.steps for order in orders}) == 1
    assert len({job.config().backbone for job in jobs}) == len(settings["encoders"])


@pytest.mark.parametrize(("sign", "verdict"), [(1.0, "confirmed"), (-1.0, "not confirmed")])
def test_only_a_small_encoder_that_collapses_on_more_data_confirms_the_paper(
    tmp_path: Path, sign: float, verdict: str
) -> None:
    verdicts = [claim.verdict for claim in findings(tmp_path, sign=sign).claims]
    assert verdicts == [verdict] * 4 + ["confirmed"]


def test_the_forecast_of_each_encoder_is_that_of_least_squares_without_the_run(tmp_path: Path) -> None:
    results = found(tmp_path)
    series = LAB.analyse(results, PRESET).figures()["Forecast of runs left out"].series  # type: ignore[union-attr]
    small = [result for result in results if result.arm.startswith("small")]
    X = np.array([[1.0, auc_end(result), loss_end(result)] for result in small])
    y = np.array([result.run.epochs[-1].accuracy("probe") for result in small])
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        beta = np.linalg.lstsq(X[others], y[others], rcond=None)[0]
        assert series[0].ys[0][i] == pytest.approx(100 * X[i] @ beta, abs=1e-6)
    assert series[0].x == pytest.approx(100 * y) and series[1].name == "large"


def test_few_runs_are_warned_of_and_too_few_get_no_forecast_but_a_note(tmp_path: Path) -> None:
    few = findings(tmp_path / "two", seeds=2)
    assert any("small: 4 labelled runs are few" in note for note in few.notes)
    none = findings(tmp_path / "one", seeds=1)
    assert any(
        "No forecast for small: a forecast from auc and loss needs 4 runs" in note for note in none.notes
    )
    assert "Forecast of runs left out" not in none.figures()
    assert none.claims[-1].verdict == "not decidable"


def test_the_figures_hold_auc_over_shares_and_a_cumulative_curve_for_each_encoder_and_share(
    tmp_path: Path,
) -> None:
    figures: dict[str, Any] = dict(findings(tmp_path).figures())
    small = figures["AUC"].series[0]
    assert small.name == "small" and small.x == pytest.approx([10.0, 100.0]) and len(small.ys) == 4
    assert all(few < every for few, every in small.ys)
    assert [series.name for series in figures["Cumulative curves, large"].series] == ["10 %", "100 %"]
