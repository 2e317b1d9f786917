"""SimSiam's two halves: stop-gradient and predictor, each on and off."""

from __future__ import annotations

from collections.abc import Mapping

from fullrank.collapse.thresholds import Thresholds
from fullrank.figures import Dots, Lines, Table
from fullrank.labs._common.claims import Claim, holds, spread
from fullrank.labs._common.effects import effects
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import (
    along,
    knn_end,
    knn_gain,
    knn_lines,
    last,
    loss,
    loss_end,
    rank_share,
)

__all__ = ["HALVES", "chapters", "claims"]

HALVES: Mapping[str, tuple[bool, bool]] = {
    "SimSiam": (True, True),
    "no stop-gradient": (False, True),
    "no predictor": (True, False),
    "neither": (False, False),
}
"""Arm to whether it has a stop-gradient, and a predictor."""

AGREED = -0.95  # a mean cosine above 0.95 between views: "the loss runs to -1"


def claims(results: Results) -> list[Claim]:
    """SimSiam holds; with a half taken away it collapses, its loss runs to -1 and k-NN suffers."""
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
    level = Thresholds().level
    first = Chapter(
        "Stop-gradient and predictor",
        [
            results.lines(
                "Loss (2x2)", "−1 is perfect agreement, which a constant has, too.", "negative cosine", loss
            ),
            knn_lines(
                results, "k-NN accuracy (2x2)", "On backbone features; epoch 0 is the untrained network."
            ),
            results.lines(
                "Level (2x2)",
                "Of the projector's output on held-out images.",
                "level (1 = isotropic)",
                along("level"),
                {f"below {level:g}: complete": level},
            ),
            results.lines(
                "Effective rank (2x2)",
                "Of the projector's output, centred.",
                "directions",
                along("erank_centred"),
            ),
            *(
                Lines(title, note, "index (1 = largest)", "singular value", results.spectra(form), log_y=True)
                for form, title, note in (
                    (
                        "centred",
                        "Spectrum, centred (2x2)",
                        "Of the projector's output. A cliff is a lost rank, a low curve a lost level.",
                    ),
                    (
                        "unit",
                        "Spectrum of unit rows, not centred (2x2)",
                        "Of the same; the first value is the mean direction where there is one.",
                    ),
                )
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
    seeds = results.whole_seeds
    if not seeds or set(results.arms) != set(HALVES):
        return []
    measured: dict[str, Read] = {"k-NN": knn_end, "level": last("level"), "rank / d": rank_share()}
    found = {}
    for name, read in measured.items():
        values = {
            HALVES[arm]: [float(read(r) or 0.0) for r in results[arm] if r.seed in seeds]
            for arm in results.arms
        }
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
