"""Forecasts of accuracy: equal to independent fits, intervals that cover, refused where they mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from fullrank.errors import UsageError
from fullrank.labs._common.forecast import forecast


def runs(n: int, seed: int = 0, noise: float = 1.0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    auc, loss = rng.uniform(0.5, 0.9, n), rng.uniform(-1, -0.7, n)
    return auc, loss, 90 - 60 * auc - 20 * loss + noise * rng.standard_normal(n)


def fit(n: int = 12, seed: int = 0, noise: float = 1.0, **options: Any) -> Any:
    auc, loss, accuracy = runs(n, seed, noise)
    return forecast(auc, accuracy, ["simsiam r18"] * n, loss=loss, **options)


def test_least_squares_and_leaving_out_are_those_of_scikit_learn() -> None:
    auc, loss, accuracy = runs(12)
    X, model = np.column_stack([auc, loss]), LinearRegression()
    left_out = cross_val_predict(model, X, accuracy, cv=LeaveOneOut())
    found, model = fit(), model.fit(X, accuracy)
    assert found.predicted == pytest.approx(model.predict(X))
    assert found.coefficients["auc"] == pytest.approx(model.coef_[0])
    assert found.coefficients["intercept"] == pytest.approx(model.intercept_)
    assert found.r2 == pytest.approx(model.score(X, accuracy))
    assert found.left_out == pytest.approx(left_out)
    assert found.loo_rmse == pytest.approx(((left_out - accuracy) ** 2).mean() ** 0.5)
    assert found.loo_mae == pytest.approx(np.abs(left_out - accuracy).mean())
    assert found.loo_r2 == pytest.approx(r2_score(accuracy, left_out))


def test_a_ridge_and_leaving_out_are_those_of_scikit_learn() -> None:
    auc, loss, accuracy = runs(9)
    X = np.column_stack([auc, loss])
    X, model = (X - X.mean(0)) / X.std(0), Ridge(alpha=3.0)
    found = fit(9, ridge=3.0)
    assert found.predicted == pytest.approx(model.fit(X, accuracy).predict(X))
    assert found.left_out == pytest.approx(cross_val_predict(model, X, accuracy, cv=LeaveOneOut()))


def test_the_interval_of_one_predictor_is_that_of_the_textbook() -> None:
    """y +- t s sqrt(1 + 1 / n + (x - mean x)^2 / sum (x - mean x)^2), with n - 2 degrees of freedom."""
    auc, _, accuracy = runs(10)
    given = [*accuracy[:-2], np.nan, np.nan]
    found = forecast(auc, given, ["byol"] * 10, level=0.9)
    x, line = auc[:-2], stats.linregress(auc[:-2], accuracy[:-2])
    residuals = accuracy[:-2] - line.intercept - line.slope * x
    s = np.sqrt((residuals**2).sum() / 6)
    far = (auc - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    margin = stats.t.ppf(0.95, 6) * s * np.sqrt(1 + 1 / 8 + far)
    assert found.predicted == pytest.approx(line.intercept + line.slope * auc)
    assert found.high - found.predicted == pytest.approx(margin)
    assert found.predicted - found.low == pytest.approx(margin)


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = []
    for seed in range(400):
        auc, loss, accuracy = runs(13, seed)
        given = [*accuracy[:-1], np.nan]
        found = forecast(auc, given, ["simsiam"] * 13, loss=loss, level=0.8)
        covered.append(found.low[-1] < accuracy[-1] < found.high[-1])
    assert np.mean(covered) == pytest.approx(0.8, abs=0.06)


def test_runs_of_unknown_accuracy_are_forecast_and_change_nothing_else() -> None:
    auc, loss, accuracy = runs(12)
    unknown, losses = [*accuracy, np.nan, np.nan], [*loss, -0.9, -0.85]
    more, found = forecast([*auc, 0.6, 2.0], unknown, ["simsiam r18"] * 14, loss=losses), fit()
    assert more.labelled == 12
    assert more.coefficients == pytest.approx(found.coefficients)
    assert more.loo_rmse == pytest.approx(found.loo_rmse)
    assert np.isnan(more.left_out[12:]).all()
    assert more.extrapolates.tolist() == [False] * 13 + [True]  # further out than all others
    line = found.coefficients
    assert more.predicted[12] == pytest.approx(line["intercept"] + 0.6 * line["auc"] - 0.9 * line["loss"])


def test_several_methods_are_refused_in_one_line() -> None:
    auc, loss, accuracy = runs(10)
    says = "^a forecast holds for one method and backbone; these runs are of 2: byol r18, simsiam r18$"
    with pytest.raises(UsageError, match=says):
        forecast(auc, accuracy, ["simsiam r18"] * 6 + ["byol r18"] * 4, loss=loss)


@pytest.mark.parametrize(("n", "warned"), [(7, True), (8, False)])
def test_few_runs_are_warned_of(n: int, warned: bool) -> None:
    assert [f"{n} labelled runs are few" in warning for warning in fit(n).warnings] == [True] * warned


@pytest.mark.parametrize(
    ("n", "with_loss", "says"),
    [
        (3, True, "a forecast from auc and loss needs 4 runs of known accuracy, here are 3"),
        (2, False, "a forecast from auc needs 3 runs of known accuracy, here are 2"),
        (1, False, "a forecast from auc needs 3 runs of known accuracy, here is 1"),
    ],
)
def test_too_few_runs_to_fit_are_refused(n: int, with_loss: bool, says: str) -> None:
    auc, loss, accuracy = runs(n)
    with pytest.raises(UsageError, match=says):
        forecast(auc, accuracy, ["a"] * n, loss=loss if with_loss else None)
    least = n + 1 if with_loss else 3
    auc, loss, accuracy = runs(least)
    assert forecast(auc, accuracy, ["a"] * least, loss=loss if with_loss else None).labelled == least


def refused(auc: list[float], loss: list[float] | None, **options: Any) -> str:
    accuracy = [float(k) for k in range(len(auc))]
    with pytest.raises(UsageError) as error:
        forecast(auc, accuracy, ["a"] * len(auc), loss=loss, **options)
    return str(error.value)


def test_what_no_line_can_be_fitted_to_is_refused() -> None:
    auc = [0.5, 0.6, 0.8, 0.7, 0.65]
    assert "the auc is the same in all labelled runs" in refused([0.7] * 5, None)
    assert "the loss is the same in all labelled runs" in refused(auc, [-1.0] * 5)
    assert "auc and loss are one line over the labelled runs" in refused(auc, [2 * a - 3 for a in auc])
    assert "without one of the labelled runs the others cannot be fitted" in refused([0.5] * 4 + [0.6], None)
    assert "run 2 has no loss that is a finite number" in refused(auc, [0.0, np.nan, 0.1, 0.2, 0.3])
    assert "one AUC, loss, accuracy and group for each run" in refused(auc, [0.0])
    assert "a ridge is not negative and a level in (0, 1)" in refused(auc, None, level=1.0)


def test_equal_accuracies_have_no_share_of_variance() -> None:
    auc, loss, _ = runs(6)
    found = forecast(auc, [50.0] * 6, ["a"] * 6, loss=loss)
    assert (found.r2, found.loo_r2) == (None, None)
    assert found.predicted == pytest.approx([50.0] * 6)
