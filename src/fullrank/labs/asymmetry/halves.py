"""SimSiam's two halves: stop-gradient and predictor, each on and off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fullrank.collapse.thresholds import Thresholds
from fullrank.figures import Dots, Lines, Table
from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.effects import effects
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results

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
    whole = results.values("SimSiam", lambda r: r.knn_end)
    found = [
        holds(
            "SimSiam is judged healthy.",
            [r.verdict == "healthy" for r in results["SimSiam"]],
            f"{results.kinds('SimSiam')}, k-NN {spread(whole)}",
        )
    ]
    for arm in [arm for arm in results.arms if arm != "SimSiam"]:
        losses, name = results.values(arm, lambda r: r.loss_end), arm.capitalize()
        judged = [r.collapsed for r in results[arm]]
        knn = results.values(arm, lambda r: r.knn_end)
        found += [
            holds(f"{name}: judged collapsed.", judged, results.kinds(arm)),
            holds(
                f"{name}: the loss runs to −1 (below −0.95).",
                [loss < AGREED for loss in losses],
                f"loss {spread(losses)}",
                losses=losses,
            ),
            above(f"{name}: k-NN ends below SimSiam's.", whole, knn, "k-NN of SimSiam", "of this arm"),
        ]
    return found


def chapters(part: str, results: Results) -> list[Chapter]:
    """Curves and spectra of the four arms, then main effects and interaction."""
    level = Thresholds().level
    reads: tuple[Callable[[Result], float | None], ...] = (
        lambda r: r.loss_end,
        _level,
        _rank,
        lambda r: r.knn_end,
        lambda r: r.knn_gain,
    )
    rows: list[list[Any]] = [
        [arm, results.kinds(arm), *(results.values(arm, read) for read in reads)] for arm in results.arms
    ]
    first = Chapter(
        "Stop-gradient and predictor",
        [
            Lines(
                "Loss (2x2)",
                "−1 is perfect agreement, which a constant has, too.",
                "epoch",
                "negative cosine",
                results.curves(lambda r: r.loss),
            ),
            Lines(
                "k-NN accuracy (2x2)",
                "On backbone features; epoch 0 is the untrained network.",
                "epoch",
                "k-NN top-1",
                results.curves(lambda r: r.knn),
                percent=True,
            ),
            Lines(
                "Level (2x2)",
                "Of the projector's output on held-out images.",
                "epoch",
                "level (1 = isotropic)",
                results.curves(lambda r: r.along("level")),
                {f"below {level:g}: complete": level},
            ),
            Lines(
                "Effective rank (2x2)",
                "Of the projector's output, centred.",
                "epoch",
                "directions",
                results.curves(lambda r: r.along("erank_centred")),
            ),
            Lines(
                "Spectrum, centred (2x2)",
                "Of the projector's output. A cliff is a lost rank, a low curve a lost level.",
                "index (1 = largest)",
                "singular value",
                [results.spectrum(arm) for arm in results.arms],
                log_y=True,
            ),
            Lines(
                "Spectrum of unit rows, not centred (2x2)",
                "Of the same; the first value is the mean direction where there is one.",
                "index (1 = largest)",
                "singular value",
                [results.spectrum(arm, "unit") for arm in results.arms],
                log_y=True,
            ),
            Table(
                "SimSiam taken apart",
                "At the last epoch; level and rank at the projector.",
                ("Arm", "Verdict", "Loss", "Level", "Rank / d", "k-NN", "k-NN less untrained"),
                rows,
            ),
        ],
    )
    return [first, *_effects(results)]


def _effects(results: Results) -> list[Chapter]:
    """Over the seeds that have all four arms; nothing where there is none."""
    seeds = results.whole_seeds
    if not seeds or set(results.arms) != set(HALVES):
        return []
    measured: dict[str, Callable[[Result], float | None]] = {
        "k-NN": lambda r: r.knn_end,
        "level": _level,
        "rank / d": _rank,
    }
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


def _level(result: Result) -> float | None:
    return result.last("level")


def _rank(result: Result) -> float | None:
    return result.rank_share()
