"""CPLearn with small and large dictionaries: what a dictionary that is too small does to the embedding."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar

from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import comparable, linear_end
from fullrank.labs.codes import measures as measures
from fullrank.labs.codes.figures import Read, agreed, chapters, corrected, sizes_of

__all__ = ["Codes"]

LAPTOP = {
    "data": "shapes",
    "run": {
        "recipe": "shapes/cplearn",
        "limit": 2048,
        "epochs": 10,
        "lr": 0.02,
        "knn_every": 2,
        "diagnostics_every": 0,
        # as spread scores at the start as those of the published 2,048 dimensions and batches of 64
        "options": {"temperature": "reference", "temperature_rows": 4},
    },
    "sizes": [10, 128, 1024, 4096],
    "components": [1, 2, 5, 10, 20, 50, 100],
}
PAPER = {
    "data": "cifar10",
    "run": {"recipe": "cifar10/cplearn", "knn_every": 50, "watch_every": 20},
    "sizes": [10, 128, 1024, 16384],
    "components": [10, 20, 50, 100, 200],
}
TINY = {
    "data": "shapes",
    "run": {**LAPTOP["run"], "limit": 128, "batch_size": 64, "epochs": 2, "warmup_epochs": 0},  # type: ignore[dict-item]
    "sizes": [10, 256],
    "components": [1, 10],
}


@LABS.register("codes")
class Codes(Lab):
    """CPLearn over the size of its dictionary."""

    title = "How many codes keep an embedding from collapse?"
    paper = "Sansone et al., “Collapse-Proof Non-Contrastive Self-Supervised Learning” (CPLearn, 2410.04959)"
    says = (
        "A fixed dictionary of random signs, uniformly used, excludes complete and cluster collapse. With "
        "many more codes than dimensions it also excludes dimensional collapse, and with many more than "
        "clusters collapse within them: NMI, accuracy, rank and mixture entropy grow with the dictionary, "
        "the covariance becomes diagonal and the blocks of the adjacency shrink."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each size; the seed also decides the dictionary."""
        for size in preset["sizes"]:
            options = {**preset["run"].get("options", {}), "num_codes": size, "dictionary_seed": seed}
            train = {**preset["run"], "data": preset["data"], "options": options}
            arguments = {"components": preset["components"]}
            yield Job(f"{size:,} codes", seed, train, measures.of_codes, arguments)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Measures over the size of the dictionary, spectra, mixtures, images, and the loss's floor."""
        notes = [
            "A linear head on F features fills F directions, and the tanh behind it the rest only faintly.",
            "NMI grows with the number of clusters by chance alone; AMI is NMI less what chance gives.",
            "The loss cannot fall below log(c / n) for c codes and batches of n images (0 for c up to n), so "
            "losses are compared above it.",
            "Mixture entropy is per dimension, on principal axes scaled as one. As published, the embedding "
            "is scaled by its extremes and padded to 2,048 dimensions, which adds −5.49 nats for each.",
        ]
        return Findings(chapters(results), _claims(comparable(results)), _words(results), notes)


def _claims(results: Results) -> list[Claim]:
    """The largest dictionary against the smallest, seed by seed, and rank from size to size."""
    if len(sizes := sizes_of(results)) < 2:
        return []
    small, large = sizes[min(sizes)], sizes[max(sizes)]
    rank = {arm: results.values(arm, _rank) for arm in results.arms}
    in_order = [rank[sizes[size]] for size in sorted(sizes)]
    steps = [all(a < b for a, b in pairwise(by_size)) for by_size in zip(*in_order, strict=True)]
    told = ", ".join(f"{size:,}: {spread(rank[sizes[size]])}" for size in sorted(sizes))

    def larger(text: str, what: str, read: Read, reverse: bool = False) -> Claim:
        values = [results.values(arm, read) for arm in (large, small)]
        if reverse:
            return above(text, values[1], values[0], f"{what} with {small}", f"with {large}")
        return above(text, values[0], values[1], f"{what} with {large}", f"with {small}")

    return [
        larger("A larger dictionary gives a higher rank.", "effective rank", _rank),
        holds("Rank grows from each size to the next.", steps, f"effective rank with {told}"),
        larger("A larger dictionary gives a higher NMI.", "NMI", lambda r: agreed(r, "nmi")),
        larger("It does so beyond chance.", "AMI", lambda r: agreed(r, "ami")),
        larger("A larger dictionary gives a higher linear accuracy.", "linear", linear_end),
        larger("A larger dictionary keeps clusters wide.", "entropy of 10 components", corrected),
        larger(
            "A larger dictionary decorrelates dimensions.",
            "mean correlation between dimensions",
            lambda r: r.numbers["off_diagonal"],
            reverse=True,
        ),
    ]


def _rank(result: Result) -> float | None:
    return result.last("erank_centred")


def _words(results: Results) -> str:
    told = [
        f"{arm}: {results.kinds(arm)}, rank {spread(results.values(arm, _rank))} of "
        f"{results[arm][0].width()}, "
        f"AMI {spread(results.values(arm, lambda r: agreed(r, 'ami')))}, "
        f"linear {spread(results.values(arm, linear_end))}"
        for arm in results.arms
    ]
    sizes = sizes_of(results)
    small = sizes[min(sizes)]
    used = spread(results.values(small, lambda r: r.numbers["usage"]["perplexity"]))
    return (
        f"{'; '.join(told)}. Of the smallest dictionary {used} codes are in use; with them k-NN "
        f"is {spread(results.values(small, lambda r: r.knn_end))}, with the largest dictionary "
        f"{spread(results.values(sizes[max(sizes)], lambda r: r.knn_end))}."
    )
