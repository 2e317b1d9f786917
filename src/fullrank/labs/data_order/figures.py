"""What the lab of data orders shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fullrank.figures import Lines, Series, Table
from fullrank.images.data_order import DataOrder
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import (
    auc_end,
    cumulative,
    linear,
    linear_end,
    null_end,
    relative,
    untrained,
)

__all__ = ["chapters", "images_in_use"]

HYBRID = ("iid", "single pass", "hybrid")
IMAGES = 10_000  # in which shares of images are counted


def images_in_use(config: Mapping[str, Any]) -> tuple[dict[int, float], dict[int, float]]:
    """Shares of the images that each epoch draws from, and that any epoch so far drew from; epochs from 1.

    Args:
        config: of a run, as `config.yaml` holds it.

    Example:
        >>> config = {"epochs": 2, "order": "single-pass", "chunk_size": 1, "rounds": 1, "seed": 0}
        >>> images_in_use(config)
        ({1: 0.5, 2: 0.5}, {1: 0.5, 2: 1.0})
    """
    order = DataOrder(
        IMAGES,
        batch_size=1,
        epochs=config["epochs"],
        kind=config["order"],
        chunk_size=config["chunk_size"],
        n_rounds=config["rounds"],
        switch_epoch=config.get("switch_epoch", 1),
        seed=config["seed"],
    )
    now, so_far, seen = {}, {}, np.zeros(IMAGES, bool)
    for epoch in range(order.epochs):
        chunk = order.chunk(epoch)
        seen[chunk] = True
        now[epoch + 1], so_far[epoch + 1] = len(chunk) / IMAGES, float(seen.mean())
    return now, so_far


def chapters(results: Results, switch: int | None) -> list[Chapter]:
    """Orders, what they do along training, hybrid against multi-epoch, and the end.

    Args:
        results: of all arms.
        switch: epochs of the hybrid's single pass.
    """
    return [_orders(results), _along(results), _hybrid(results, switch), _end(results)]


def _orders(results: Results) -> Chapter:
    def share(place: int, arm: str) -> Series:
        return results.curve(arm, lambda r: images_in_use(r.run.config)[place])

    return Chapter(
        "Which images when",
        [
            Lines(
                "Images in use",
                "Share of the training images that an epoch draws its batches from.",
                "epoch",
                "share of the images",
                [share(0, arm) for arm in results.arms],
                percent=True,
            ),
            Lines(
                "Images seen so far",
                "Share that some epoch until then drew from.",
                "epoch",
                "share of the images",
                [share(1, arm) for arm in results.arms],
                percent=True,
            ),
        ],
    )


def _along(results: Results) -> Chapter:
    def measured(title: str, note: str, y: str, measure: str, null: str = "") -> Lines:
        level = null_end(results, measure, "backbone") if null else None
        curves = results.curves(lambda r: r.along(measure, "backbone"))
        return Lines(title, note, "epoch", y, curves, {null: level} if level is not None else {})

    return Chapter(
        "Along training",
        [
            Lines(
                "Linear accuracy",
                "Of a linear classifier trained beside the encoder.",
                "epoch",
                "linear top-1",
                results.curves(linear),
                percent=True,
            ),
            Lines(
                "k-NN accuracy",
                "On the encoder's features; epoch 0 is the untrained network.",
                "epoch",
                "k-NN top-1",
                results.curves(lambda r: r.knn),
                untrained(results),
                percent=True,
            ),
            Lines(
                "Loss",
                "On the images in use: collapse need not show here.",
                "epoch",
                "negative cosine",
                results.curves(lambda r: r.loss),
            ),
            measured("AUC", "Higher is more collapsed; 1 is rank one.", "AUC", "auc", "isotropic"),
            measured(
                "Effective rank", "Directions in use, centred.", "directions", "erank_centred", "isotropic"
            ),
            measured(
                "Participation ratio",
                "Directions that carry the variance.",
                "directions",
                "participation_ratio",
            ),
        ],
        lede="Mean over seeds; the band is from the lowest to the highest.",
        layout="three",
    )


def _hybrid(results: Results, switch: int | None) -> Chapter:
    arms = [arm for arm in HYBRID if arm in results.arms]
    marks = {"hybrid goes over to all images": float(switch)} if switch else {}
    return Chapter(
        "Hybrid against multi-epoch",
        [
            Lines(
                "Linear accuracy, hybrid against multi-epoch",
                "The hybrid is the single pass until the mark, and iid from there on.",
                "epoch",
                "linear top-1",
                [results.curve(arm, linear) for arm in arms],
                marks=marks,
                percent=True,
            ),
            Lines(
                "AUC, hybrid against multi-epoch",
                "Of the encoder's features; higher is more collapsed.",
                "epoch",
                "AUC",
                [results.curve(arm, lambda r: r.along("auc", "backbone")) for arm in arms],
                marks=marks,
            ),
        ],
    )


def _end(results: Results) -> Chapter:
    def used(result: Result) -> float:
        return images_in_use(result.run.config)[1][int(result.run.config["epochs"])]

    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            f"{used(results[arm][0]):.0%}",
            *(
                results.values(arm, read)
                for read in (
                    auc_end,
                    lambda r: r.rank_share("backbone"),
                    linear_end,
                    lambda r: r.knn_end,
                    lambda r: r.loss_end,
                )
            ),
            results[arm][0].run.epochs[-1].step,
        ]
        for arm in results.arms
    ]
    return Chapter(
        "At the end",
        [
            Lines(
                "Spectrum",
                "Of the encoder's features, centred, over the largest value.",
                "share of the directions",
                "singular value, relative",
                [relative(results, arm) for arm in results.arms],
                log_y=True,
            ),
            Lines(
                "Cumulative curve",
                "Its mean height is the AUC; the straight line has none collapsed.",
                "share of the directions",
                "share of the spectrum they hold",
                [*(cumulative(results, arm) for arm in results.arms), _straight()],
            ),
            Table(
                "Orders",
                "At the last epoch, on held-out images; AUC and rank of the encoder's features.",
                ("Order", "Verdict", "Images seen", "AUC", "Rank / d", "Linear", "k-NN", "Loss", "Steps"),
                rows,
            ),
        ],
    )


def _straight() -> Series:
    """The cumulative curve of equal singular values."""
    return Series("isotropic", [0.0, 1.0], [[0.0, 1.0]], "dot")
