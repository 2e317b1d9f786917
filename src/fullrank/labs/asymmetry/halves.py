"""SimSiam's two halves: stop-gradient and predictor, each on and off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import TypeVar

import numpy as np

from fullrank.errors import UsageError
from fullrank.figures import Dots, Table
from fullrank.labs._common.findings import Chapter, Claim, holds, spread
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import (
    knn_end,
    knn_gain,
    knn_lines,
    last,
    level_lines,
    loss,
    loss_end,
    rank_share,
    ranks,
    spectrum_lines,
)

HALVES: Mapping[str, tuple[bool, bool]] = {
    "SimSiam": (True, True),
    "no stop-gradient": (False, True),
    "no predictor": (True, False),
    "neither": (False, False),
}
"""Arm to whether it has a stop-gradient, and a predictor."""

Levels = TypeVar("Levels", bound="tuple[bool, ...]")
AGREED = -0.95  # a mean cosine above 0.95 between views: "the loss runs to -1"


def claims(results: Results) -> list[Claim]:
    """Claims: SimSiam holds; without a half it collapses, loss near -1, k-NN lower."""
    whole = spread(results.values("SimSiam", knn_end))
    healthy = [result.verdict == "healthy" for result in results["SimSiam"]]
    found = [holds("SimSiam is judged healthy.", healthy, f"{results.kinds('SimSiam')}, k-NN {whole}")]
    for arm in [arm for arm in results.arms if arm != "SimSiam"]:
        losses, name = results.values(arm, loss_end), arm.capitalize()
        below = f"{name}: k-NN ends below SimSiam's."
        found += [
            holds(f"{name}: judged collapsed.", [r.collapsed for r in results[arm]], results.kinds(arm)),
            holds(
                f"{name}: the loss runs to −1 (below −0.95).",
                [loss < AGREED for loss in losses],
                f"loss {spread(losses)}",
                losses=losses,
            ),
            results.above(below, knn_end, "SimSiam", arm, "k-NN of SimSiam", "of this arm"),
        ]
    return found


def chapters(results: Results) -> list[Chapter]:
    """Curves and spectra of the four arms, then main effects and interaction."""
    first = Chapter(
        "Stop-gradient and predictor",
        [
            results.lines(
                "Loss (2x2)", "−1 is perfect agreement, which a constant has, too.", "negative cosine", loss
            ),
            knn_lines(results, "k-NN accuracy (2x2)"),
            level_lines(
                results, "Level (2x2)", "Of the projector's output on held-out images.", threshold=True
            ),
            results.lines("Effective rank (2x2)", "Of the projector's output, centred.", "directions", ranks),
            spectrum_lines(
                results,
                "Spectrum, centred (2x2)",
                "Of the projector's output. A cliff is a lost rank, a low curve a lost level.",
                "centred",
            ),
            spectrum_lines(
                results,
                "Spectrum of unit rows, not centred (2x2)",
                "Of the same; the first value is the mean direction where there is one.",
                "unit",
            ),
            results.table(
                "SimSiam taken apart",
                "At the last epoch; level and rank at the projector.",
                {
                    "Loss": loss_end,
                    "Level": last("level"),
                    "Rank / d": rank_share(),
                    "k-NN": knn_end,
                    "k-NN less untrained": knn_gain,
                },
            ),
        ],
    )
    return [first, *_effects(results)]


def _effects(results: Results) -> list[Chapter]:
    """Over the seeds that have all four arms; nothing where there is none."""
    whole = results.whole()
    if set(whole.arms) != set(HALVES):
        return []
    measured: dict[str, Read] = {"k-NN": knn_end, "level": last("level"), "rank / d": rank_share()}
    found = {}
    for name, read in measured.items():
        values = {HALVES[arm]: [float(read(r) or 0.0) for r in whole[arm]] for arm in whole.arms}
        found[name] = effects(("stop-gradient", "predictor"), values)
    contrasts = list(found["k-NN"])
    table = Table(
        "Main effects and interaction",
        "Mean where it is on less mean where it is off. Interaction: half of what either adds to the other.",
        ("Effect of", *measured),
        [[contrast, *(by_name[contrast] for by_name in found.values())] for contrast in contrasts],
    )
    dots = [
        Dots(f"Effects on {name} (2x2)", "A dot a seed.", f"change of {name}", values, {"none": 0.0})
        for name, values in found.items()
    ]
    return [Chapter("Main effects and their interaction", [*dots, table], layout="three")]


def effects(factors: Sequence[str], values: Mapping[Levels, Sequence[float]]) -> dict[str, list[float]]:
    """Main effects and pairwise interactions of a full factorial design, by seed.

    The effect of a factor is the mean of all arms where it is on less the mean of all where it is off. The
    interaction of two is half of what turning the second on adds to the effect of the first; both are the
    contrasts of Yates. `values` has what was measured, by seed, for each of the 2^k combinations.

    Raises:
        UsageError: a combination is missing, or has other seeds.

    Example:
        >>> arms = {(a, b): [1.0 * (a and b)] for a in (False, True) for b in (False, True)}
        >>> effects(["a", "b"], arms)  # a logical and: each matters only with the other
        {'a': [0.5], 'b': [0.5], 'a × b': [0.5]}
    """
    counts = {len(found) for found in values.values()}
    if len(values) != 2 ** len(factors) or len(counts) != 1:
        raise UsageError(f"{len(factors)} factors need {2 ** len(factors)} arms with the same seeds each")
    contrasts = [(i,) for i in range(len(factors))] + list(combinations(range(len(factors)), 2))
    found = {}
    for places in contrasts:
        signed = [
            prod(1 if levels[i] else -1 for i in places) * np.asarray(seeds, float)
            for levels, seeds in values.items()
        ]
        name = " × ".join(factors[i] for i in places)
        found[name] = [float(x) for x in np.sum(signed, axis=0) / (len(values) / 2)]
    return found
