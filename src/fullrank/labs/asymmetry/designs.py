"""Asym-Siam's designs: each makes one side vary more, its mirror image the other."""

from __future__ import annotations

from fullrank.figures import Dots
from fullrank.labs._common.findings import Chapter, Claim, spread
from fullrank.labs._common.results import Read, Result, Results
from fullrank.labs._common.selectors import knn_dots, knn_end, rank_share, untrained

DESIGNS = ("multicrop", "scalemix", "aug", "meanenc")
"""Presets of views `asym-NAME`, mirrored as `asym-NAME-target`."""

ON_SOURCE, ON_TARGET = "{}, as published", "{}, mirrored"


def claims(results: Results) -> list[Claim]:
    """Claims by design: higher source variance, higher accuracy, a worse mirror image."""
    found = []
    for design in DESIGNS:
        arm, mirror = ON_SOURCE.format(design), ON_TARGET.format(design)
        base = "baseline" if design == "multicrop" else "one-sided"
        varies = f"{design}: the source varies more for it."
        better = f"{design}: better than its mirror image."
        found += [
            results.above(varies, _ratio, arm, base, "source over target", base),
            results.above(f"{design}: k-NN gains.", knn_end, arm, base, "k-NN", base),
            results.above(better, knn_end, arm, mirror, "k-NN", "mirrored"),
        ]
    return found


def chapters(results: Results) -> list[Chapter]:
    """Variance within an image on either side, and k-NN accuracy of the designs."""
    sides = ("source", "target")
    columns: dict[str, str | Read] = {f"V {side}": side for side in sides}
    columns |= {"Ratio": _ratio, "Rank / d": rank_share(), "k-NN": knn_end}
    variance = {f"{arm}: {side}": results.values(arm, side) for arm in results.arms for side in sides}
    return [
        Chapter(
            "Designs of Asym-Siam and their mirror images",
            [
                results.dots(
                    "Variance within an image, source over target",
                    "Above 1 the source varies more, as it should.",
                    "variance of source / of target",
                    _ratio,
                    {"equal": 1.0},
                ),
                knn_dots(
                    results,
                    "k-NN of each design",
                    "As published, and with the two sides swapped.",
                    untrained(results[:1]),
                ),
                Dots(
                    "Variance within an image, each side",
                    "Mean squared distance of an image's unit encodings from their mean; 8 views.",
                    "variance within an image",
                    variance,
                ),
                results.table(
                    "Sides",
                    "Multi-crop is held against the baseline, the others against the one-sided arm, which "
                    "sees as many views. V: variance within an image.",
                    columns,
                ),
            ],
        )
    ]


def summary(results: Results) -> str:
    """A sentence about all designs."""
    more = [arm for arm in results.arms if all(_ratio(result) > 1 for result in results[arm])]
    means = results.by_arm(knn_end)
    ordered = sorted(means, key=lambda arm: sum(means[arm]) / max(1, len(means[arm])))
    low, high = ordered[0], ordered[-1]
    return (
        f"The source's encodings vary more than the target's on every seed in {len(more)} of "
        f"{len(results.arms)} arms ({', '.join(more) or 'none'}). k-NN ranges from {spread(means[low])} "
        f"({low}) to {spread(means[high])} ({high})."
    )


def _ratio(result: Result) -> float:
    return float(result.numbers["source"] / max(result.numbers["target"], 1e-12))
