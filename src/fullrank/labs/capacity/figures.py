"""Figures of the lab of capacity: measures over shares of the data, and curves for each encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fullrank.figures import Lines, Series
from fullrank.labs._common.findings import Chapter
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

__all__ = ["arm_of", "chapters"]

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
    """Over shares of the data, then cumulative curves and spectra of each encoder, then all numbers."""
    arms = {encoder: {100 * share: arm_of(encoder, share) for share in shares} for encoder in encoders}

    def each(title: str, note: str, y: str, curve: Callable[..., Series], **how: object) -> Chapter:
        """A figure for each encoder, a curve for each share."""
        items = [
            Lines(
                f"{title}, {encoder}",
                note,
                "share of the directions",
                y,
                [curve(results, arm, name=f"{share:g} %") for share, arm in by_share.items()],
                **how,  # type: ignore[arg-type]
            )
            for encoder, by_share in arms.items()
        ]
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
