"""`fullrank lab forecast RUN...`: accuracy from AUC and loss, over several runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tyro

from fullrank.cli.arguments import make_console, parse
from fullrank.errors import UsageError
from fullrank.terminal import say


@dataclass(frozen=True)
class ForecastOptions:
    """Fit accuracy to AUC and loss over runs, and forecast those without labels.

    Every run whose accuracy is known is also forecast from the others, which gives the error of a forecast.

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
    """Fit, forecast and print."""
    args = parse(ForecastOptions, words, "fullrank lab forecast")
    from fullrank.labs._common.forecast import fit_points, points_of

    if not args.runs:
        raise UsageError("name the runs to forecast from, as labs/capacity/cells/*/run")
    points = points_of(args.runs, args.tap, args.accuracy, args.points)
    fit = fit_points(points, args.loss, args.ridge, args.level)
    warnings = list(fit.warnings)
    if len({point.run for point in points}) < len(points):
        warnings.append("epochs of one run are alike, so that the errors left out are flattered")
    columns = {name: getattr(fit, name) for name in ("left_out", "predicted", "low", "high")}
    rows = [
        asdict(point)
        | {"accuracy": _plain(point.accuracy)}
        | {name: _plain(values[i]) for name, values in columns.items()}
        | {"extrapolates": bool(fit.extrapolates[i])}
        for i, point in enumerate(points)
    ]
    if args.json:
        names = ("coefficients", "labelled", "r2", "loo_r2", "loo_rmse", "loo_mae", "level")
        found = {"accuracy": args.accuracy, "tap": args.tap, "group": points[0].group}
        found |= {name: getattr(fit, name) for name in names}
        print(json.dumps({**found, "points": rows, "warnings": warnings}, indent=2))
        return 0
    make_console(130).print(_table(rows, args.level))
    slopes = " ".join(f"{value:+.4g} {name}" for name, value in list(fit.coefficients.items())[1:])
    say(f"line      {args.accuracy} = {fit.coefficients['intercept']:.4g} {slopes}, {points[0].group}")
    say(f"fit       {fit.labelled} points, R² {_r2(fit.r2)}")
    say(
        f"left out  R² {_r2(fit.loo_r2)}, root mean square error {100 * fit.loo_rmse:.1f} points, "
        f"mean absolute error {100 * fit.loo_mae:.1f} points"
    )
    for warning in warnings:
        say(f"warning   {warning}")
    return 0


def _table(rows: Sequence[dict[str, Any]], level: float) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("Run", overflow="fold")
    interval = f"{100 * level:g} % interval"
    for column in ("Epoch", "AUC", "Loss", "Measured", "Left out", "On the line", interval, ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        shares = [
            "–" if row[name] is None else f"{100 * row[name]:.1f} %"
            for name in ("accuracy", "left_out", "predicted", "low", "high")
        ]
        place = row["run"], str(row["epoch"]), f"{row['auc']:.3f}", f"{row['loss']:.3f}"
        table.add_row(*place, *shares[:3], " to ".join(shares[3:]), "extrapolated" * row["extrapolates"])
    return table


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _r2(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
