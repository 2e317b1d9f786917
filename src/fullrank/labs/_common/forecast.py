"""Downstream accuracy forecast from collapse and loss, with its error.

Li, Efros and Pathak 2022 (2209.15007) forecast accuracy without labels from the AUC of the cumulative
singular values together with the loss. Here the line is fitted to the runs at hand: `accuracy ~ a + b AUC +
c loss` by least squares, optionally with a ridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fullrank.errors import UsageError
from fullrank.report.run.reading import Run, read_run
from fullrank.training.run_dir import RunDir
from fullrank.untrusted.parsing import read_json, refusing

FEW = 8  # labelled runs
FEW_WARNING = f"{{}} labelled runs are few: below {FEW} a forecast and its interval are not to be trusted"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """A fitted line, its forecasts, and its leave-one-out error.

    Attributes:
        coefficients: of `intercept`, `auc` and, where it was given, `loss`, in the units of the input.
        labelled: runs that the line was fitted to.
        r2: share of the variance of their accuracies that the line explains.
        loo_r2: the same for predictions of runs left out; below 0 where their mean would do better. Both None
            where all accuracies are equal.
        loo_rmse: root mean square error of the runs left out, in the unit of the accuracies.
        loo_mae: their mean absolute error.
        left_out: [n], the prediction for each run from the others; NaN where the accuracy is not known.
        predicted: [n], on the line fitted to all.
        low: [n], lower end of the prediction interval.
        high: [n], its upper end.
        level: probability that the interval is to cover, where errors are normal.
        extrapolates: [n], whether a run lies further out than any that was fitted.
        warnings: what to keep in mind.
    """

    coefficients: dict[str, float]
    labelled: int
    r2: float | None
    loo_r2: float | None
    loo_rmse: float
    loo_mae: float
    left_out: Values
    predicted: Values
    low: Values
    high: Values
    level: float
    extrapolates: npt.NDArray[np.bool_]
    warnings: tuple[str, ...]


def forecast(
    auc: Sequence[float],
    accuracy: Sequence[float],
    groups: Sequence[str],
    loss: Sequence[float] | None = None,
    ridge: float = 0.0,
    level: float = 0.95,
) -> Forecast:
    """Fit accuracy to AUC and loss over runs, and forecast unknown accuracies.

    Args:
        auc: of the cumulative singular values, one for each run.
        accuracy: in whatever unit; NaN where it is not known.
        groups: method and backbone of each run, all the same: neither a loss nor a rank means the same
            accuracy elsewhere.
        loss: final, of each run; None fits the AUC alone.
        ridge: penalty on the squared slopes of the standardised AUC and loss, whose mean and spread are those
            of all labelled runs; 0 is ordinary least squares.
        level: of the prediction interval, in (0, 1): Student's t, with the residual degrees of freedom.

    Raises:
        UsageError: several methods or backbones, too few labelled runs, or values that no line can be fitted
            to.

    Example:
        >>> auc, accuracy = [0.5, 0.6, 0.7, 0.8, 0.9], [80.0, 71.0, 59.0, 51.0, float("nan")]
        >>> found = forecast(auc, accuracy, ["simsiam resnet18"] * 5)
        >>> round(float(found.predicted[-1]), 1), found.labelled, round(found.loo_rmse, 1)
        (40.5, 4, 1.5)
        >>> found.warnings
        ('4 labelled runs are few: below 8 a forecast and its interval are not to be trusted',)
    """
    from scipy.stats import t

    given = {"auc": auc} if loss is None else {"auc": auc, "loss": loss}
    names = tuple(given)
    features = _checked(given, accuracy, groups)
    if ridge < 0 or not 0 < level < 1:
        raise UsageError(f"a ridge is not negative and a level in (0, 1), not {ridge} and {level}")
    y = np.asarray(accuracy, dtype=np.float64)
    known = np.isfinite(y)
    _enough(features[known], names)

    centre, scale = features[known].mean(axis=0), features[known].std(axis=0)
    design = np.column_stack([np.ones(len(y)), (features - centre) / scale])
    X, known_y = design[known], y[known]
    penalty = np.diag([0.0] + [ridge] * len(names))
    inverse = np.linalg.inv(X.T @ X + penalty)
    beta = inverse @ X.T @ known_y
    predicted = design @ beta

    residuals = known_y - predicted[known]
    influence = np.einsum("ij,jk,ik->i", X, inverse, X)
    if (influence > 1 - 1e-9).any():
        raise UsageError("without one of the labelled runs the others cannot be fitted; add runs")
    left_out_errors = residuals / (1 - influence)
    left_out = np.full(len(y), np.nan)
    left_out[known] = known_y - left_out_errors

    freedom = len(known_y) - influence.sum()
    spread = np.sqrt((residuals**2).sum() / freedom)
    hat = inverse @ X.T @ X @ inverse
    margin = float(t.ppf(0.5 + level / 2, freedom)) * spread
    margin = margin * np.sqrt(1 + np.einsum("ij,jk,ik->i", design, hat, design))
    reach = np.einsum("ij,jk,ik->i", design, inverse, design)
    slopes = beta[1:] / scale
    total = float(((known_y - known_y.mean()) ** 2).sum())
    return Forecast(
        coefficients={"intercept": float(beta[0] - slopes @ centre)}
        | {name: float(slope) for name, slope in zip(names, slopes, strict=True)},
        labelled=len(known_y),
        r2=1 - float((residuals**2).sum()) / total if total else None,
        loo_r2=1 - float((left_out_errors**2).sum()) / total if total else None,
        loo_rmse=float(np.sqrt((left_out_errors**2).mean())),
        loo_mae=float(np.abs(left_out_errors).mean()),
        left_out=left_out,
        predicted=predicted,
        low=predicted - margin,
        high=predicted + margin,
        level=level,
        extrapolates=reach > influence.max() * (1 + 1e-9),
        warnings=(FEW_WARNING.format(len(known_y)),) * (len(known_y) < FEW),
    )


def _checked(given: dict[str, Sequence[float]], accuracy: Sequence[float], groups: Sequence[str]) -> Values:
    lengths = {len(values) for values in (*given.values(), accuracy, groups)}
    if len(lengths) > 1:
        raise UsageError("a forecast needs one AUC, loss, accuracy and group for each run")
    kinds = sorted(set(groups))
    if len(kinds) > 1:
        raise UsageError(
            f"a forecast holds for one method and backbone; "
            f"these runs are of {len(kinds)}: {', '.join(kinds)}"
        )
    features = np.column_stack([np.asarray(values, dtype=np.float64) for values in given.values()])
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        run, column = bad[0]
        raise UsageError(f"run {run + 1} has no {list(given)[column]} that is a finite number")
    return features


def _enough(features: Values, names: tuple[str, ...]) -> None:
    least = len(names) + 2  # as many as coefficients, and one more
    if len(features) < least:
        raise UsageError(
            f"a forecast from {' and '.join(names)} needs {least} runs of known accuracy, "
            f"here {'is' if len(features) == 1 else 'are'} {len(features)}"
        )
    for name, column in zip(names, features.T, strict=True):
        if np.ptp(column) <= 1e-12 * np.abs(column).max():
            raise UsageError(f"the {name} is the same in all labelled runs: nothing can be fitted to it")
    if np.linalg.matrix_rank(np.corrcoef(features.T).reshape(len(names), -1), tol=1e-9) < len(names):
        raise UsageError(f"{' and '.join(names)} are one line over the labelled runs; fit the auc alone")


Accuracy = Literal["probe", "knn", "linear"]
Which = Literal["runs", "encoders", "epochs"]


@dataclass(frozen=True)
class Point:
    """A run, or one epoch of it.

    Attributes:
        run: the run's directory, as it was given.
        epoch: counted from 1.
        group: method, backbone and data: what a forecast holds for.
        auc: of the cumulative singular values at a tap.
        loss: the mean training loss.
        accuracy: in [0, 1]; NaN where it is not known.
    """

    run: str
    epoch: int
    group: str
    auc: float
    loss: float
    accuracy: float


def points_of(
    runs: Sequence[str | Path], tap: str = "backbone", accuracy: Accuracy = "probe", which: Which = "runs"
) -> list[Point]:
    """AUC (at a tap; in the paper, of pooled features), loss and accuracy of runs.

    Args:
        accuracy: `probe` (the linear classifier trained beside the method) or `knn`, from the run's log, or
            `linear`, from what `fullrank evaluate all` wrote.
        which: each run's last epoch, the epochs whose `encoders` are kept, or all `epochs`.

    Raises:
        UsageError: no such run, or one without any AUC and loss at that tap.
    """
    return [point for path in runs for point in _points(Path(path), tap, accuracy, which)]


def fit_points(
    points: Sequence[Point], loss: bool = True, ridge: float = 0.0, level: float = 0.95
) -> Forecast:
    """Forecast of accuracy from the AUC, and the loss, of these points."""
    groups, losses = [point.group for point in points], [point.loss for point in points]
    auc, accuracy = [point.auc for point in points], [point.accuracy for point in points]
    return forecast(auc, accuracy, groups, losses if loss else None, ridge, level)


def _points(path: Path, tap: str, accuracy: Accuracy, which: Which) -> list[Point]:
    run = read_run(path)
    group = f"{run.config.get('method')} {run.config.get('backbone')} on {run.config.get('data')}"
    auc = {point.epoch: point.value for point in run.measures(tap, "auc") if point.value is not None}
    loss = {row.epoch: row.loss for row in run.epochs if row.loss is not None}
    known = _accuracies(run, accuracy)
    epochs = sorted(auc.keys() & loss.keys())
    if not epochs:
        raise UsageError(
            f"{path} has no epoch with a loss and an AUC at the tap {tap!r}; its taps are "
            f"{', '.join(run.taps) or 'none yet'}"
        )
    if which == "runs":
        epochs = epochs[-1:]
    elif which == "encoders":
        from fullrank.evaluation.table import encoders

        kept = encoders(RunDir.open(path))
        epochs = [epoch for epoch in epochs if epoch in kept]
    nan = float("nan")
    return [
        Point(str(path), epoch, group, auc[epoch], loss[epoch], known.get(epoch, nan)) for epoch in epochs
    ]


def _accuracies(run: Run, accuracy: Accuracy) -> dict[int, float]:
    if accuracy == "linear":
        rows = _evaluated(run.path / "evaluations" / "all.json")
        return {row["epoch"]: row["linear"]["top1"] for row in rows if "top1" in (row.get("linear") or {})}
    found = {row.epoch: row.accuracy(accuracy) for row in run.epochs}
    return {epoch: value for epoch, value in found.items() if value is not None}


def _evaluated(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with refusing(f"{path} is damaged (`fullrank evaluate all` writes it anew)"):
        rows: list[dict[str, Any]] = read_json(path)["rows"]
        if not all(isinstance(row, dict) and isinstance(row.get("epoch"), int) for row in rows):
            raise ValueError("its rows are none of epochs")
        return rows
