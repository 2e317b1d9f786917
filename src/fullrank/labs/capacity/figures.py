"""What the lab of capacity shows: measures over shares of the data, and curves for each encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fullrank.figures import Lines, Series, Table
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import auc_end, cumulative, linear_end, relative

__all__ = ["Read", "arm_of", "chapters"]

Read = Callable[[Result], "float | None"]


def arm_of(encoder: str, share: float) -> str:
    """How the arm of an encoder and a share is called.

    Example:
        >>> arm_of("ResNet-18", 0.05)
        'ResNet-18, 5 %'
    """
    return f"{encoder}, {100 * share:g} %"


def chapters(results: Results, encoders: Sequence[str], shares: Sequence[float]) -> list[Chapter]:
    """Over shares of the data, then cumulative curves and spectra of each encoder, then all numbers."""
    return [
        _over_shares(results, encoders, shares),
        _per_encoder(
            results,
            encoders,
            shares,
            "Cumulative curves",
            cumulative,
            "share of the spectrum they hold",
            "The mean height of a curve is the AUC: the higher, the more collapsed.",
        ),
        _per_encoder(
            results,
            encoders,
            shares,
            "Spectra",
            relative,
            "singular value, relative",
            "Centred singular values over the largest.",
        ),
        _table(results, encoders, shares),
    ]


def _over_shares(results: Results, encoders: Sequence[str], shares: Sequence[float]) -> Chapter:
    def over(title: str, note: str, y: str, read: Read, percent: bool = False) -> Lines:
        series = [_series(results, encoder, shares, read) for encoder in encoders]
        return Lines(title, note, "share of the data, %", y, series, log_x=True, percent=percent)

    return Chapter(
        "From a small share of the data to all of it",
        [
            over("AUC", "Of the encoder's features; higher is more collapsed.", "AUC", auc_end),
            over(
                "Effective rank",
                "Of the same, over the number of directions.",
                "effective rank / d",
                lambda r: r.rank_share("backbone"),
            ),
            over(
                "Loss",
                "Of the last epoch, on the images that it was trained on.",
                "negative cosine",
                lambda r: r.loss_end,
            ),
            over(
                "Linear accuracy",
                "Of a linear classifier trained beside the encoder, on the same images.",
                "linear top-1",
                linear_end,
                percent=True,
            ),
            over(
                "k-NN accuracy",
                "With all training images as neighbours, whatever share the encoder saw.",
                "k-NN top-1",
                lambda r: r.knn_end,
                percent=True,
            ),
            over(
                "Effective rank of the projector",
                "What the loss sees, over its directions.",
                "effective rank / d",
                lambda r: r.rank_share(),
            ),
        ],
        lede="A line for each encoder, the smallest first. The band is from the lowest seed to the highest.",
        layout="three",
    )


def _series(results: Results, encoder: str, shares: Sequence[float], read: Read) -> Series:
    """A value of an encoder over shares, of all its seeds."""
    found = [{r.seed: read(r) for r in results[arm_of(encoder, share)]} for share in shares]
    seeds = sorted({seed for by_seed in found for seed in by_seed})
    ys = [[by_seed.get(seed) for by_seed in found] for seed in seeds]
    return Series(encoder, [100 * share for share in shares], ys)


def _per_encoder(
    results: Results,
    encoders: Sequence[str],
    shares: Sequence[float],
    title: str,
    curve: Callable[..., Series],
    y: str,
    note: str,
) -> Chapter:
    items = [
        Lines(
            f"{title}, {encoder}",
            note,
            "share of the directions",
            y,
            [curve(results, arm_of(encoder, share), name=f"{100 * share:g} %") for share in shares],
            log_y=title == "Spectra",
            y_range=(0.0, 1.02) if title == "Cumulative curves" else None,
        )
        for encoder in encoders
    ]
    return Chapter(title, items, lede="A line for each share of the data.", layout="three")


def _table(results: Results, encoders: Sequence[str], shares: Sequence[float]) -> Chapter:
    reads: tuple[Read, ...] = (
        auc_end,
        lambda r: r.rank_share("backbone"),
        lambda r: r.loss_end,
        linear_end,
        lambda r: r.knn_end,
    )
    rows: list[list[Any]] = [
        [arm, results.kinds(arm), *(results.values(arm, read) for read in reads)]
        for encoder in encoders
        for share in shares
        if len(results[arm := arm_of(encoder, share)])
    ]
    columns = ("Encoder and share", "Verdict", "AUC", "Rank / d", "Loss", "Linear", "k-NN")
    note = "At the last epoch; AUC and rank of the encoder's features on held-out images."
    return Chapter("All numbers", [Table("Encoders and shares", note, columns, rows)])
