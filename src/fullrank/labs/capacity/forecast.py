"""The forecast of the lab of capacity: accuracy from AUC and loss, for each encoder by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fullrank.errors import UsageError
from fullrank.figures import Lines, Series, Table
from fullrank.labs._common.claims import Claim, holds
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.forecast import Forecast
from fullrank.labs._common.forecast_points import Point, fit_points, points_of
from fullrank.labs._common.results import Results

__all__ = ["Fitted", "forecast_chapter", "forecast_claims", "forecasts"]


@dataclass(frozen=True)
class Fitted:
    """An encoder's runs, and the line fitted to them."""

    points: Sequence[Point]
    fit: Forecast


def forecasts(results: Results, encoders: Sequence[str]) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Fits each encoder's linear accuracy, over shares and seeds; also which could not be fitted, and why."""
    fitted: dict[str, Fitted] = {}
    refused: dict[str, str] = {}
    for encoder in encoders:
        runs = [result.folder / "run" for result in results if result.arm.startswith(f"{encoder}, ")]
        try:
            points = points_of(runs)
            fit = fit_points(points)
        except UsageError as error:
            refused[encoder] = str(error)
        else:
            fitted[encoder] = Fitted(points, fit)
    return fitted, refused


def forecast_claims(fitted: Mapping[str, Fitted]) -> list[Claim]:
    """Judged over encoders in place of seeds: those are the points of a fit."""
    scores = {name: found.fit.loo_r2 for name, found in fitted.items() if found.fit.loo_r2 is not None}
    claim = holds(
        "AUC and loss forecast the accuracy of a run left out better than the mean of the others does.",
        [score > 0 for score in scores.values()],
        "R² of runs left out: " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()),
        scores=scores,
    )
    evidence = claim.evidence.replace(" seed", " encoder") if scores else "no encoder has runs enough"
    return [replace(claim, evidence=evidence)]


def forecast_chapter(fitted: Mapping[str, Fitted]) -> list[Chapter]:
    """Forecasts of runs left out against what was measured, and the fitted lines; none without a fit."""
    if not fitted:
        return []
    pairs = {
        name: [(100 * p.accuracy, 100 * y) for p, y in zip(found.points, found.fit.left_out, strict=True)]
        for name, found in fitted.items()
    }
    known = {name: [(x, float(y)) for x, y in found if x == x] for name, found in pairs.items()}
    every = [x for found in known.values() for x, _ in found]
    series = [
        Series(name, [x for x, _ in found], [[y for _, y in found]], "points")
        for name, found in known.items()
    ]
    ends = [min(every), max(every)]
    rows = [[name, *_numbers(found.fit)] for name, found in fitted.items()]
    return [
        Chapter(
            "Accuracy forecast from AUC and loss",
            [
                Lines(
                    "Forecast of runs left out",
                    "Each run by the line that is fitted to the other runs of its encoder; right on the "
                    "diagonal.",
                    "linear top-1 measured, %",
                    "linear top-1 forecast, %",
                    [*series, Series("as measured", ends, [ends], "dot")],
                ),
                Lines(
                    "AUC and accuracy",
                    "What there is to forecast from: a point a run.",
                    "AUC of the encoder's features",
                    "linear top-1, %",
                    [
                        Series(
                            name,
                            [p.auc for p in found.points],
                            [[100 * p.accuracy for p in found.points]],
                            "points",
                        )
                        for name, found in fitted.items()
                    ],
                ),
                Table(
                    "Fitted lines",
                    "Linear accuracy (0 to 1) = intercept + slope × AUC + slope × loss, least squares over "
                    "shares and seeds. Left out: each run by the line through the others.",
                    (
                        "Encoder",
                        "Runs",
                        "Intercept",
                        "Slope, AUC",
                        "Slope, loss",
                        "R²",
                        "R², left out",
                        "Root mean square error, left out",
                        "Mean absolute error, left out",
                    ),
                    rows,
                ),
            ],
            lede="One line for each encoder: neither a loss nor an AUC means the same accuracy in another.",
        )
    ]


def _numbers(fit: Forecast) -> list[float | None]:
    return [fit.labelled, *fit.coefficients.values(), fit.r2, fit.loo_r2, fit.loo_rmse, fit.loo_mae]
