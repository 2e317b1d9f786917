"""`fullrank lab forecast RUN...`: accuracy from AUC and loss, over any set of runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError

if TYPE_CHECKING:
    from fullrank.labs._common.forecast import Forecast
    from fullrank.labs._common.forecast_points import Point

__all__ = ["ForecastOptions", "run"]


@dataclass(frozen=True)
class ForecastOptions:
    """Fits accuracy to AUC and loss over runs of one method and backbone, and forecasts those without labels.

    Every run whose accuracy is known is also forecast from the others: that error is a forecast's worth.

    Example: fullrank lab forecast labs/capacity/cells/*4-channels*/run

    Attributes:
        runs: run directories, of one method, backbone and data set.
        points: runs (each run's last epoch), encoders (epochs whose encoders are kept) or epochs (all).
        accuracy: probe (the linear classifier trained beside the method) or knn, as the run logged them, or
            linear, as `fullrank evaluate all` wrote it.
        tap: where the AUC is taken.
        loss: fit the loss, too, and not the AUC alone.
        ridge: penalty on the squared slopes of the standardised AUC and loss; 0: least squares.
        level: of the prediction interval, in (0, 1).
        json: print one object: coefficients, errors, points, warnings.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    points: Literal["runs", "encoders", "epochs"] = "runs"
    accuracy: Literal["probe", "knn", "linear"] = "probe"
    tap: str = "backbone"
    loss: bool = True
    ridge: float = 0.0
    level: float = 0.95
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Fits, forecasts and prints."""
    args = parse(ForecastOptions, words, "fullrank lab forecast")
    from fullrank.labs._common.forecast_points import fit_points, points_of

    if not args.runs:
        raise UsageError("name the runs to forecast from, as labs/capacity/cells/*/run")
    points = points_of(args.runs, args.tap, args.accuracy, args.points)
    fit = fit_points(points, args.loss, args.ridge, args.level)
    warnings = list(fit.warnings)
    if len({point.run for point in points}) < len(points):
        warnings.append("epochs of one run are alike, so that the errors left out are flattered")
    if args.json:
        print(json.dumps(_as_dict(args, points, fit, warnings), indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=130, highlight=False)
    console.print(_table(args, points, fit))
    slopes = " ".join(f"{value:+.4g} {name}" for name, value in list(fit.coefficients.items())[1:])
    print(f"line      {args.accuracy} = {fit.coefficients['intercept']:.4g} {slopes}, {points[0].group}")
    print(f"fit       {fit.labelled} points, R² {_r2(fit.r2)}")
    print(
        f"left out  R² {_r2(fit.loo_r2)}, root mean square error {100 * fit.loo_rmse:.1f} points, "
        f"mean absolute error {100 * fit.loo_mae:.1f} points"
    )
    for warning in warnings:
        print(f"warning   {warning}")
    return 0


def _table(args: ForecastOptions, points: Sequence[Point], fit: Forecast) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("Run", overflow="fold")
    interval = f"{100 * args.level:g} % interval"
    for column in ("Epoch", "AUC", "Loss", "Measured", "Left out", "On the line", interval, ""):
        table.add_column(column, justify="right", no_wrap=True)
    for i, point in enumerate(points):
        table.add_row(
            point.run,
            str(point.epoch),
            f"{point.auc:.3f}",
            f"{point.loss:.3f}",
            _percent(point.accuracy),
            _percent(fit.left_out[i]),
            _percent(fit.predicted[i]),
            f"{_percent(fit.low[i])} to {_percent(fit.high[i])}",
            "extrapolated" if fit.extrapolates[i] else "",
        )
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def _r2(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _as_dict(
    args: ForecastOptions, points: Sequence[Point], fit: Forecast, warnings: Sequence[str]
) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    rows = [
        {
            **asdict(point),
            "accuracy": plain(point.accuracy),
            "left_out": plain(fit.left_out[i]),
            "predicted": float(fit.predicted[i]),
            "low": float(fit.low[i]),
            "high": float(fit.high[i]),
            "extrapolates": bool(fit.extrapolates[i]),
        }
        for i, point in enumerate(points)
    ]
    names = ("coefficients", "labelled", "r2", "loo_r2", "loo_rmse", "loo_mae", "level")
    return {
        "accuracy": args.accuracy,
        "tap": args.tap,
        "group": points[0].group,
        **{name: getattr(fit, name) for name in names},
        "points": rows,
        "warnings": list(warnings),
    }
