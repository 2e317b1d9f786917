"""Figures of the capacity lab: measures by data share, curves, and forecasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fullrank.errors import UsageError
from fullrank.figures import Lines, Series, Table
from fullrank.labs._common.findings import Chapter, Claim, holds
from fullrank.labs._common.forecast import Forecast, Point, fit_points, points_of
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import (
    auc_end,
    cumulative,
    knn_end,
    linear_end,
    loss_end,
    rank_share,
    relative,
)

OVER_SHARES: Sequence[tuple[str, str, str, Read]] = (
    ("AUC", "Of the encoder's features; higher is more collapsed.", "AUC", auc_end),
    (
        "Effective rank",
        "Of the same, over the number of directions.",
        "effective rank / d",
        rank_share("backbone"),
    ),
    ("Loss", "Of the last epoch, on the images that it was trained on.", "negative cosine", loss_end),
    (
        "Linear accuracy",
        "Of a linear classifier trained beside the encoder, on the same images.",
        "linear top-1",
        linear_end,
    ),
    (
        "k-NN accuracy",
        "With all training images as neighbours, whatever share the encoder saw.",
        "k-NN top-1",
        knn_end,
    ),
    (
        "Effective rank of the projector",
        "What the loss sees, over its directions.",
        "effective rank / d",
        rank_share(),
    ),
)
"""Title, note, label and value of each figure over shares of the data."""


def arm_of(encoder: str, share: float) -> str:
    """Name of the arm of an encoder and a share.

    Example:
        >>> arm_of("ResNet-18", 0.05)
        'ResNet-18, 5 %'
    """
    return f"{encoder}, {100 * share:g} %"


def chapters(results: Results, encoders: Sequence[str], shares: Sequence[float]) -> list[Chapter]:
    """Measures by data share, cumulative curves and spectra by encoder, all numbers."""
    arms = {encoder: {100 * share: arm_of(encoder, share) for share in shares} for encoder in encoders}

    def each(title: str, note: str, y: str, curve: Callable[..., Series], **how: Any) -> Chapter:
        """A figure for each encoder, a curve for each share."""
        items = []
        for encoder, by_share in arms.items():
            series = [curve(results, arm, name=f"{share:g} %") for share, arm in by_share.items()]
            items.append(Lines(f"{title}, {encoder}", note, "share of the directions", y, series, **how))
        return Chapter(title, items, lede="A line for each share of the data.", layout="three")

    over = [
        Lines(
            title,
            note,
            "share of the data, %",
            y,
            [results.over(by_share, encoder, what) for encoder, by_share in arms.items()],
            log_x=True,
            percent=y.endswith("top-1"),
        )
        for title, note, y, what in OVER_SHARES
    ]
    table = results.table(
        "Encoders and shares",
        "At the last epoch; AUC and rank of the encoder's features on held-out images.",
        {
            "AUC": auc_end,
            "Rank / d": rank_share("backbone"),
            "Loss": loss_end,
            "Linear": linear_end,
            "k-NN": knn_end,
        },
        head="Encoder and share",
        arms=[arm for by_share in arms.values() for arm in by_share.values() if len(results[arm])],
    )
    return [
        Chapter(
            "From a small share of the data to all of it",
            over,
            "A line for each encoder, the smallest first. The band is from the lowest seed to the highest.",
            layout="three",
        ),
        each(
            "Cumulative curves",
            "The mean height of a curve is the AUC: the higher, the more collapsed.",
            "share of the spectrum they hold",
            cumulative,
            y_range=(0.0, 1.02),
        ),
        each(
            "Spectra",
            "Centred singular values over the largest.",
            "singular value, relative",
            relative,
            log_y=True,
        ),
        Chapter("All numbers", [table]),
    ]


class Fitted(NamedTuple):
    """An encoder's runs, and the line fitted to them."""

    points: Sequence[Point]
    fit: Forecast


def forecasts(results: Results, encoders: Sequence[str]) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Fit linear accuracy by encoder, over shares and seeds; also give failed fits."""
    fitted: dict[str, Fitted] = {}
    refused: dict[str, str] = {}
    for encoder in encoders:
        runs = [result.folder / "run" for result in results if result.arm.startswith(f"{encoder}, ")]
        try:
            fitted[encoder] = Fitted(points := points_of(runs), fit_points(points))
        except UsageError as error:
            refused[encoder] = str(error)
    return fitted, refused


def forecast_claims(fitted: Mapping[str, Fitted]) -> list[Claim]:
    """Claims judged over encoders in place of seeds: those are the points of a fit."""
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
    """Leave-one-out forecasts against measurements, and fitted lines; [] if no fit."""
    if not fitted:
        return []
    series, auc, rows = list[Series](), list[Series](), list[list[Any]]()
    for name, (points, fit) in fitted.items():
        measured = [100 * point.accuracy for point in points]
        known = [(x, float(100 * y)) for x, y in zip(measured, fit.left_out, strict=True) if x == x]
        series.append(Series(name, [x for x, _ in known], [[y for _, y in known]], "points"))
        auc.append(Series(name, [point.auc for point in points], [measured], "points"))
        errors = fit.r2, fit.loo_r2, fit.loo_rmse, fit.loo_mae
        rows.append([name, fit.labelled, *fit.coefficients.values(), *errors])
    every = [x for one in series for x in one.x]
    ends = [min(every), max(every)]
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
                    auc,
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
