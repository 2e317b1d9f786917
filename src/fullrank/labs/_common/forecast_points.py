"""What a forecast is made from: AUC, loss and accuracy of any set of runs, or of encoders that they kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fullrank.errors import UsageError
from fullrank.evaluation.table import encoders
from fullrank.labs._common.forecast import Forecast, forecast
from fullrank.report.run.reading import Run, read_run
from fullrank.training.run_dir import RunDir

__all__ = ["Accuracy", "Point", "Which", "fit_points", "points_of"]

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
    """AUC (at a tap; the paper's is of the pooled features), loss and accuracy of runs.

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
    """The forecast of accuracy from the AUC, and the loss, of these points."""
    return forecast(
        [point.auc for point in points],
        [point.accuracy for point in points],
        [point.group for point in points],
        [point.loss for point in points] if loss else None,
        ridge,
        level,
    )


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
        kept = encoders(RunDir.open(path))
        epochs = [epoch for epoch in epochs if epoch in kept]
    nan = float("nan")
    return [
        Point(str(path), epoch, group, auc[epoch], loss[epoch], known.get(epoch, nan)) for epoch in epochs
    ]


def _accuracies(run: Run, accuracy: Accuracy) -> dict[int, float]:
    """By epoch, where they are known."""
    if accuracy == "linear":
        rows = _evaluated(run.path / "evaluations" / "all.json")
        return {row["epoch"]: row["linear"]["top1"] for row in rows if "top1" in (row.get("linear") or {})}
    found = {row.epoch: row.accuracy(accuracy) for row in run.epochs}
    return {epoch: value for epoch, value in found.items() if value is not None}


def _evaluated(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is damaged: write it again with `fullrank evaluate all`") from None
    return rows
