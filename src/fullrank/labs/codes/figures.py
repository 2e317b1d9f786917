"""What the lab of codes shows: measures over the size of the dictionary, curves, and images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fullrank.figures import Heat, Lines, Series, Table
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import cumulative, linear_end, relative
from fullrank.labs.codes.measures import loss_floor

__all__ = ["Read", "agreed", "chapters", "corrected", "sizes_of"]

Read = Callable[[Result], "float | None"]
ISOTROPIC = 0.5 * math.log(2 * math.pi * math.e)  # nats per dimension, of a Gaussian of variance 1


def sizes_of(results: Results) -> dict[int, str]:
    """Size of the dictionary to the name of its arm."""
    return {int(results[arm][0].run.config["options"]["num_codes"]): arm for arm in results.arms}


def agreed(result: Result, what: str) -> float | None:
    """A number of the agreement of codes with classes; None without labels."""
    found: float | None = (result.numbers["agreement"] or {}).get(what)
    return found


def corrected(result: Result) -> float | None:
    """Mixture entropy per dimension with 10 components, or with the number next to it."""
    found = result.numbers["mixture"]
    entropy: float | None = found[min(found, key=lambda k: abs(int(k) - 10))] if found else None
    return entropy


def chapters(results: Results) -> list[Chapter]:
    """Sizes, spectra, mixtures, covariances, adjacencies, and the loss above its floor."""
    return [_over_sizes(results), _spectra(results), _mixtures(results), *_images(results), _loss(results)]


def _over_sizes(results: Results) -> Chapter:
    sizes = sizes_of(results)

    def series(name: str, read: Read, dash: str = "solid") -> Series:
        xs = sorted(sizes)
        found = [{r.seed: read(r) for r in results[sizes[size]]} for size in xs]
        seeds = sorted({seed for by_seed in found for seed in by_seed})
        return Series(name, xs, [[by_seed.get(seed) for by_seed in found] for seed in seeds], dash)

    def over(title: str, note: str, y: str, *lines: Series, percent: bool = False) -> Lines:
        return Lines(title, note, "codes in the dictionary", y, lines, log_x=True, percent=percent)

    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            *(
                results.values(arm, read)
                for read in (
                    lambda r: r.last("erank_centred"),
                    lambda r: r.numbers["usage"]["perplexity"],
                    lambda r: agreed(r, "nmi"),
                    lambda r: agreed(r, "ami"),
                    linear_end,
                    lambda r: r.knn_end,
                )
            ),
        ]
        for arm in (sizes[size] for size in sorted(sizes))
    ]
    return Chapter(
        "Over the size of the dictionary",
        [
            over(
                "Effective rank",
                "Centred, on held-out images; over the number of directions.",
                "effective rank / d",
                series("embedding", lambda r: r.rank_share()),
                series("encoder's features", lambda r: r.rank_share("backbone")),
            ),
            over(
                "Clusters against classes",
                "An image belongs to its first code. AMI is NMI less what chance gives.",
                "agreement",
                series("NMI", lambda r: agreed(r, "nmi")),
                series("AMI", lambda r: agreed(r, "ami")),
            ),
            over(
                "Accuracy",
                "On the encoder's features.",
                "top-1",
                series("linear", linear_end),
                series("k-NN", lambda r: r.knn_end),
                percent=True,
            ),
            Table(
                "Dictionaries",
                "Rank of the embedding, centred. In use: codes, the exponential of the entropy of their use.",
                ("Dictionary", "Verdict", "Rank", "In use", "NMI", "AMI", "Linear", "k-NN"),
                rows,
            ),
        ],
        lede="The band is from the lowest seed to the highest.",
        layout="three",
    )


def _spectra(results: Results) -> Chapter:
    return Chapter(
        "Spectra of the embedding",
        [
            Lines(
                "Spectrum of the embedding",
                "Centred singular values over the largest.",
                "share of the directions",
                "singular value, relative",
                [relative(results, arm, "projector") for arm in results.arms],
                log_y=True,
            ),
            Lines(
                "Cumulative curve of the embedding",
                "Its mean height is the AUC: the higher, the more collapsed.",
                "share of the directions",
                "share of the spectrum they hold",
                [cumulative(results, arm, "projector") for arm in results.arms],
            ),
        ],
    )


def _mixtures(results: Results) -> Chapter:
    def entropy(which: str) -> list[Series]:
        return results.curves(lambda r: {int(k): value for k, value in r.numbers[which].items()})

    return Chapter(
        "Mixture entropy of the embedding",
        [
            Lines(
                "Mixture entropy, corrected",
                "A curve that falls as components are added: rows lie in clusters tighter than one Gaussian "
                "tells.",
                "components of the mixture",
                "entropy per dimension, nats",
                entropy("mixture"),
                {"isotropic Gaussian": ISOTROPIC},
                log_x=True,
            ),
            Lines(
                "Mixture entropy, as published",
                "Padded to 2,048 dimensions: only embeddings of one width compare.",
                "components of the mixture",
                "entropy, nats",
                entropy("legacy"),
                log_x=True,
            ),
        ],
    )


def _images(results: Results) -> list[Chapter]:
    """One seed's, since images have no mean."""
    shown = [("covariance", "dimension", "correlation"), ("adjacency", "image, by class", "cosine")]
    titles = {"covariance": "Covariance", "adjacency": "Adjacency"}
    ledes = {
        "covariance": "Of the first 64 dimensions, each scaled to a variance of 1; one seed. Decorrelated "
        "dimensions show a diagonal alone.",
        "adjacency": "Cosines between centred embeddings of held-out images, class after class; one seed. "
        "Blocks are images that are told apart no more.",
    }
    return [
        Chapter(
            f"{titles[what]} of the embedding",
            [
                Heat(f"{titles[what]}, {arm}", "", place, place, results[arm][0].numbers[what], label, True)
                for arm in results.arms
            ],
            lede=ledes[what],
        )
        for what, place, label in shown
    ]


def _loss(results: Results) -> Chapter:
    def floor(result: Result) -> float:
        config = result.run.config
        return loss_floor(int(config["options"]["num_codes"]), int(config["batch_size"]))

    def above(result: Result) -> dict[int, float]:
        return {epoch: loss - floor(result) for epoch, loss in result.loss.items()}

    rows: list[list[Any]] = [
        [
            arm,
            math.log(results[arm][0].run.config["options"]["num_codes"]),
            floor(results[arm][0]),
            results.values(arm, lambda r: r.loss_end),
            results.values(arm, lambda r: above(r)[max(r.loss)]),
        ]
        for arm in results.arms
    ]
    return Chapter(
        "The loss and its floor",
        [
            Lines(
                "Loss above its floor",
                "Less log(c / n), below which no batch of n images can be.",
                "epoch",
                "nats",
                results.curves(above),
                {"floor": 0.0},
            ),
            Lines(
                "Loss",
                "As it is logged: dictionaries of different sizes do not compare.",
                "epoch",
                "nats",
                results.curves(lambda r: r.loss),
            ),
            Table(
                "Floors",
                "log c: one answer for all images, or none. The floor: each image of a batch has a code.",
                ("Dictionary", "log c", "Floor", "Loss at the end", "Above the floor"),
                rows,
            ),
        ],
    )
