"""Figures of the codes lab: measures over dictionary size, curves, and images."""

from __future__ import annotations

import math
from typing import Any

from fullrank.figures import Heat, Lines, Table
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Read, Result, Results
from fullrank.labs._common.selectors import (
    cumulative_lines,
    knn_end,
    last,
    linear_end,
    loss,
    loss_end,
    rank_share,
    relative_lines,
)
from fullrank.labs.codes.measures import loss_floor

ISOTROPIC = 0.5 * math.log(2 * math.pi * math.e)  # nats per dimension, of a Gaussian of variance 1


def sizes_of(results: Results) -> dict[float, str]:
    """Size of the dictionary to the name of its arm, smallest first."""
    sizes = {int(results[arm][0].run.config["options"]["num_codes"]): arm for arm in results.arms}
    return dict(sorted(sizes.items()))


def agreement(what: str) -> Read:
    """A number of the agreement of codes with classes; None without labels."""
    return lambda result: (result.numbers["agreement"] or {}).get(what)


def corrected(result: Result) -> float | None:
    """Mixture entropy per dimension with 10 components, or with the number next to it."""
    found = result.numbers["mixture"]
    entropy: float | None = found[min(found, key=lambda k: abs(int(k) - 10))] if found else None
    return entropy


def chapters(results: Results) -> list[Chapter]:
    """Sizes, spectra, mixtures, covariances, adjacencies, and loss above its floor."""
    heights = "Centred singular values over the largest."
    auc = "Its mean height is the AUC: the higher, the more collapsed."
    spectra = [
        relative_lines(results, "Spectrum of the embedding", heights, "projector"),
        cumulative_lines(results, "Cumulative curve of the embedding", auc, "projector"),
    ]
    return [
        _over_sizes(results),
        Chapter("Spectra of the embedding", spectra),
        _mixtures(results),
        *_images(results),
        _loss(results),
    ]


def _over_sizes(results: Results) -> Chapter:
    sizes = sizes_of(results)

    def over(title: str, note: str, y: str, values: dict[str, Read], percent: bool = False) -> Lines:
        series = [results.over(sizes, name, what) for name, what in values.items()]
        return Lines(title, note, "codes in the dictionary", y, series, log_x=True, percent=percent)

    return Chapter(
        "Over the size of the dictionary",
        [
            over(
                "Effective rank",
                "Centred, on held-out images; over the number of directions.",
                "effective rank / d",
                {"embedding": rank_share(), "encoder's features": rank_share("backbone")},
            ),
            over(
                "Clusters against classes",
                "An image belongs to its first code. AMI is NMI less what chance gives.",
                "agreement",
                {"NMI": agreement("nmi"), "AMI": agreement("ami")},
            ),
            over(
                "Accuracy",
                "On the encoder's features.",
                "top-1",
                {"linear": linear_end, "k-NN": knn_end},
                percent=True,
            ),
            results.table(
                "Dictionaries",
                "Rank of the embedding, centred. In use: codes, the exponential of the entropy of their use.",
                {
                    "Rank": last("erank_centred"),
                    "In use": lambda result: result.numbers["usage"]["perplexity"],
                    "NMI": agreement("nmi"),
                    "AMI": agreement("ami"),
                    "Linear": linear_end,
                    "k-NN": knn_end,
                },
                head="Dictionary",
                arms=sizes.values(),
            ),
        ],
        lede="The band is from the lowest seed to the highest.",
        layout="three",
    )


def _mixtures(results: Results) -> Chapter:
    def entropy(title: str, note: str, y: str, which: str, references: dict[str, float]) -> Lines:
        series = results.curves(lambda r: {int(k): value for k, value in r.numbers[which].items()})
        return Lines(title, note, "components of the mixture", y, series, references, log_x=True)

    falls = (
        "A curve that falls as components are added: rows lie in clusters tighter than one Gaussian tells."
    )
    width = "Padded to 2,048 dimensions: only embeddings of one width compare."
    gaussian, per_dimension = {"isotropic Gaussian": ISOTROPIC}, "entropy per dimension, nats"
    return Chapter(
        "Mixture entropy of the embedding",
        [
            entropy("Mixture entropy, corrected", falls, per_dimension, "mixture", gaussian),
            entropy("Mixture entropy, as published", width, "entropy, nats", "legacy", {}),
        ],
    )


def _images(results: Results) -> list[Chapter]:
    """One seed's, since images have no mean."""
    ledes = {
        "Covariance": "Of the first 64 dimensions, each scaled to a variance of 1; one seed. Decorrelated "
        "dimensions show a diagonal alone.",
        "Adjacency": "Cosines between centred embeddings of held-out images, class after class; one seed. "
        "Blocks are images that are told apart no more.",
    }
    axes = {"Covariance": ("dimension", "correlation"), "Adjacency": ("image, by class", "cosine")}
    return [
        Chapter(
            f"{title} of the embedding",
            [
                Heat(f"{title}, {arm}", "", place, place, results[arm][0].numbers[title.lower()], label, True)
                for arm in results.arms
            ],
            lede=ledes[title],
        )
        for title, (place, label) in axes.items()
    ]


def _loss(results: Results) -> Chapter:
    def floor(result: Result) -> float:
        config = result.run.config
        return loss_floor(int(config["options"]["num_codes"]), int(config["batch_size"]))

    def above(result: Result) -> dict[int, float]:
        return {epoch: value - floor(result) for epoch, value in result.loss.items()}

    rows: list[list[Any]] = [
        [
            arm,
            math.log(results[arm][0].run.config["options"]["num_codes"]),
            floor(results[arm][0]),
            results.values(arm, loss_end),
            results.values(arm, lambda r: above(r)[max(r.loss)]),
        ]
        for arm in results.arms
    ]
    return Chapter(
        "The loss and its floor",
        [
            results.lines(
                "Loss above its floor",
                "Less log(c / n), below which no batch of n images can be.",
                "nats",
                above,
                {"floor": 0.0},
            ),
            results.lines(
                "Loss", "As it is logged: dictionaries of different sizes do not compare.", "nats", loss
            ),
            Table(
                "Floors",
                "log c: one answer for all images, or none. The floor: each image of a batch has a code.",
                ("Dictionary", "log c", "Floor", "Loss at the end", "Above the floor"),
                rows,
            ),
        ],
    )
