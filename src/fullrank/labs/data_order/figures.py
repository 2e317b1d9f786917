"""Figures of the lab of data orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fullrank.figures import Lines, Series, Table
from fullrank.images.data_order import DataOrder
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Read, Result, Results
from fullrank.labs._common.selectors import (
    along,
    auc_end,
    cumulative_lines,
    knn_end,
    knn_lines,
    linear,
    linear_end,
    loss,
    loss_end,
    null_end,
    rank_share,
    relative_lines,
    untrained,
)

HYBRID = ("iid", "single pass", "hybrid")
IMAGES = 10_000  # in which shares of images are counted


def images_in_use(config: Mapping[str, Any]) -> tuple[dict[int, float], dict[int, float]]:
    """Shares of the images drawn from, per epoch and cumulatively; epochs from 1.

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
    """Orders, training curves, hybrid (switched at `switch`) against iid, and the end."""
    return [_orders(results), _along(results), _hybrid(results, switch), _end(results)]


def _orders(results: Results) -> Chapter:
    def share(title: str, note: str, place: int) -> Lines:
        used = lambda result: images_in_use(result.run.config)[place]  # noqa: E731
        return results.lines(title, note, "share of the images", used, percent=True)

    return Chapter(
        "Which images when",
        [
            share("Images in use", "Share of the training images that an epoch draws its batches from.", 0),
            share("Images seen so far", "Share that some epoch until then drew from.", 1),
        ],
    )


def _along(results: Results) -> Chapter:
    def measured(title: str, note: str, y: str, metric: str, baseline: bool = False) -> Lines:
        level = null_end(results, metric, "backbone") if baseline else None
        references = {"isotropic": level} if level is not None else {}
        return results.lines(title, note, y, along(metric, "backbone"), references)

    return Chapter(
        "Along training",
        [
            results.lines(
                "Linear accuracy",
                "Of a linear classifier trained beside the encoder.",
                "linear top-1",
                linear,
                percent=True,
            ),
            knn_lines(
                results,
                "k-NN accuracy",
                "On the encoder's features; epoch 0 is the untrained network.",
                untrained(results),
            ),
            results.lines(
                "Loss", "On the images in use: collapse need not show here.", "negative cosine", loss
            ),
            measured("AUC", "Higher is more collapsed; 1 is rank one.", "AUC", "auc", True),
            measured("Effective rank", "Directions in use, centred.", "directions", "erank_centred", True),
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
    some = results.where(lambda result: result.arm in HYBRID)
    marks = {"hybrid goes over to all images": float(switch)} if switch else {}
    return Chapter(
        "Hybrid against multi-epoch",
        [
            some.lines(
                "Linear accuracy, hybrid against multi-epoch",
                "The hybrid is the single pass until the mark, and iid from there on.",
                "linear top-1",
                linear,
                marks=marks,
                percent=True,
            ),
            some.lines(
                "AUC, hybrid against multi-epoch",
                "Of the encoder's features; higher is more collapsed.",
                "AUC",
                along("auc", "backbone"),
                marks=marks,
            ),
        ],
    )


def _end(results: Results) -> Chapter:
    def used(result: Result) -> float:
        return images_in_use(result.run.config)[1][int(result.run.config["epochs"])]

    columns: dict[str, Read] = {
        "AUC": auc_end,
        "Rank / d": rank_share("backbone"),
        "Linear": linear_end,
        "k-NN": knn_end,
        "Loss": loss_end,
    }
    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            f"{used(results[arm][0]):.0%}",
            *(results.values(arm, read) for read in columns.values()),
            results[arm][0].run.epochs[-1].step,
        ]
        for arm in results.arms
    ]
    straight = Series("isotropic", [0.0, 1.0], [[0.0, 1.0]], "dot")  # of equal singular values
    return Chapter(
        "At the end",
        [
            relative_lines(
                results, "Spectrum", "Of the encoder's features, centred, over the largest value."
            ),
            cumulative_lines(
                results,
                "Cumulative curve",
                "Its mean height is the AUC; the straight line has none collapsed.",
                more=[straight],
            ),
            Table(
                "Orders",
                "At the last epoch, on held-out images; AUC and rank of the encoder's features.",
                ("Order", "Verdict", "Images seen", *columns, "Steps"),
                rows,
            ),
        ],
    )
