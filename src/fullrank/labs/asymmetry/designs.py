"""Asym-Siam's designs: each makes one side vary more than the other, and its mirror image the other side."""

from __future__ import annotations

from typing import Any

from fullrank.figures import Dots, Table
from fullrank.labs._common.claims import Claim, above, spread
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results

__all__ = ["DESIGNS", "ON_SOURCE", "ON_TARGET", "chapters", "claims", "words"]

DESIGNS = ("multicrop", "scalemix", "aug", "meanenc")
"""Presets of views `asym-NAME`, mirrored as `asym-NAME-target`."""

ON_SOURCE, ON_TARGET = "{}, as published", "{}, mirrored"


def claims(results: Results) -> list[Claim]:
    """Of each design: the source varies more for it, accuracy gains, and the mirror image does worse."""
    found = []
    for design in DESIGNS:
        arm, mirror = ON_SOURCE.format(design), ON_TARGET.format(design)
        base = "baseline" if design == "multicrop" else "one-sided"
        knn, less, other = (results.values(name, lambda r: r.knn_end) for name in (arm, base, mirror))
        more, even = (results.values(name, _ratio) for name in (arm, base))
        found += [
            above(f"{design}: the source varies more for it.", more, even, "source over target", base),
            above(f"{design}: k-NN gains.", knn, less, "k-NN", base),
            above(f"{design}: better than its mirror image.", knn, other, "k-NN", "mirrored"),
        ]
    return found


def chapters(part: str, results: Results) -> list[Chapter]:
    """Variance within an image on either side, and what the designs are worth."""
    sides = ("source", "target")
    variance = {f"{arm}: {side}": results.values(arm, side) for arm in results.arms for side in sides}
    untrained = {"untrained": results[0].knn[0]} if 0 in results[0].knn else {}
    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            *(results.values(arm, read) for read in (*sides, _ratio)),
            results.values(arm, lambda r: r.rank_share()),
            results.values(arm, lambda r: r.knn_end),
        ]
        for arm in results.arms
    ]
    return [
        Chapter(
            "Designs of Asym-Siam and their mirror images",
            [
                Dots(
                    "Variance within an image, source over target",
                    "Above 1 the source varies more, as it should.",
                    "variance of source / of target",
                    results.by_arm(_ratio),
                    {"equal": 1.0},
                ),
                Dots(
                    "k-NN of each design",
                    "As published, and with the two sides swapped.",
                    "k-NN top-1",
                    results.by_arm(lambda r: r.knn_end),
                    untrained,
                    percent=True,
                ),
                Dots(
                    "Variance within an image, each side",
                    "Mean squared distance of an image's unit encodings from their mean; 8 views.",
                    "variance within an image",
                    variance,
                ),
                Table(
                    "Sides",
                    "Multi-crop is held against the baseline, the others against the one-sided arm, which "
                    "sees as many views. V: variance within an image.",
                    ("Arm", "Verdict", "V source", "V target", "Ratio", "Rank / d", "k-NN"),
                    rows,
                ),
            ],
        )
    ]


def words(results: Results) -> str:
    """A sentence about all designs."""
    more = [arm for arm in results.arms if all(_ratio(result) > 1 for result in results[arm])]
    means = {arm: results.values(arm, lambda r: r.knn_end) for arm in results.arms}
    ordered = sorted(means, key=lambda arm: sum(means[arm]) / max(1, len(means[arm])))
    low, high = ordered[0], ordered[-1]
    return (
        f"The source's encodings vary more than the target's on every seed in {len(more)} of "
        f"{len(results.arms)} arms ({', '.join(more) or 'none'}). k-NN ranges from {spread(means[low])} "
        f"({low}) to {spread(means[high])} ({high})."
    )


def _ratio(result: Result) -> float:
    return float(result.numbers["source"] / max(result.numbers["target"], 1e-12))
