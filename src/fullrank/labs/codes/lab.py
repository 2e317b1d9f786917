"""CPLearn with small and large dictionaries: the effect of one too small."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Claim, Findings, holds, spread
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import knn_end, last, linear_end
from fullrank.labs.codes import measures
from fullrank.labs.codes.figures import agreement, chapters, corrected, sizes_of


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
    presets: ClassVar = read_presets(__file__)

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each size; the seed also decides the dictionary."""
        for size in preset["sizes"]:
            options = {**preset["run"].get("options", {}), "num_codes": size, "dictionary_seed": seed}
            train = {**preset["run"], "data": preset["data"], "options": options}
            arguments = {"components": preset["components"]}
            yield Job(f"{size:,} codes", seed, train, measures.of_codes, arguments)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Measures over dictionary size, spectra, mixtures, images, and the loss's floor."""
        notes = [
            "A linear head on F features fills F directions, and the tanh behind it the rest only faintly.",
            "NMI grows with the number of clusters by chance alone; AMI is NMI less what chance gives.",
            "The loss cannot fall below log(c / n) for c codes and batches of n images (0 for c up to n), so "
            "losses are compared above it.",
            "Mixture entropy is per dimension, on principal axes scaled as one. As published, the embedding "
            "is scaled by its extremes and padded to 2,048 dimensions, which adds −5.49 nats for each.",
        ]
        return Findings(chapters(results), _claims(results.whole()), _summary(results), notes)


RANK = last("erank_centred")


def _claims(results: Results) -> list[Claim]:
    if len(sizes := sizes_of(results)) < 2:
        return []
    small, large = sizes[min(sizes)], sizes[max(sizes)]
    in_order = [results.values(arm, RANK) for arm in sizes.values()]
    steps = [all(a < b for a, b in pairwise(by_size)) for by_size in zip(*in_order, strict=True)]
    ranks = ", ".join(f"{size:,}: {spread(rank)}" for size, rank in zip(sizes, in_order, strict=True))

    def larger(text: str, name: str, what: Read, high: str = large, low: str = small) -> Claim:
        return results.above(text, what, high, low, f"{name} with {high}", f"with {low}")

    return [
        larger("A larger dictionary gives a higher rank.", "effective rank", RANK),
        holds("Rank grows from each size to the next.", steps, f"effective rank with {ranks}"),
        larger("A larger dictionary gives a higher NMI.", "NMI", agreement("nmi")),
        larger("It does so beyond chance.", "AMI", agreement("ami")),
        larger("A larger dictionary gives a higher linear accuracy.", "linear", linear_end),
        larger("A larger dictionary keeps clusters wide.", "entropy of 10 components", corrected),
        larger(
            "A larger dictionary decorrelates dimensions.",
            "mean correlation between dimensions",
            lambda result: result.numbers["off_diagonal"],
            high=small,
            low=large,
        ),
    ]


def _summary(results: Results) -> str:
    arms = [
        f"{arm}: {results.kinds(arm)}, rank {spread(results.values(arm, RANK))} of "
        f"{results[arm][0].width()}, {results.spreads(arm, {'AMI': agreement('ami'), 'linear': linear_end})}"
        for arm in results.arms
    ]
    small, *_, large = [*sizes_of(results).values()] * 2
    used = spread(results.values(small, lambda result: result.numbers["usage"]["perplexity"]))
    return (
        f"{'; '.join(arms)}. Of the smallest dictionary {used} codes are in use; with them k-NN "
        f"is {spread(results.values(small, knn_end))}, with the largest dictionary "
        f"{spread(results.values(large, knn_end))}."
    )
