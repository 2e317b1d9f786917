"""The ten runs of the reference's script, five methods with and without EMA, as published and matched.

As published, the runs without a moving average have another optimiser, rate and memory of the correlation
than those with one, and BYOL another weight decay than the rest: what is blamed on the average may be theirs.
The matched comparison gives all runs the settings of those without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fullrank.figures import Dots, Table
from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.lab import Settings
from fullrank.labs._common.results import Result, Results

__all__ = ["METHODS", "arms", "chapters", "claims", "words"]

METHODS = {
    "BYOL": "byol",
    "DirectPred": "directpred",
    "DirectCopy": "directcopy",
    "IsoLoss": "isoloss",
    "IsoCopy": "isocopy",
}
"""Names to recipes; with `-noema` those without a moving average. BYOL without one they call SimSiam."""

MATCHED = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4}
MEMORY = {"correlation_momentum": 0.5}  # of all methods with a closed form


def arms(own: Settings) -> Iterable[tuple[str, dict[str, Any]]]:
    """Ten runs as published, and the six of the matched comparison that are not among them."""
    for name, recipe in METHODS.items():
        heads = {**own["options"], **(own["byol"] if recipe == "byol" else {})}
        for average, suffix in (("EMA", ""), ("no EMA", "-noema")):
            run = {"recipe": own["recipe"].format(recipe + suffix), **own["run"]}
            yield f"{name}, {average}", {**run, "options": heads}
            if suffix and recipe != "byol":
                continue  # it has these settings already
            memory = {} if recipe == "byol" else MEMORY
            yield f"{name}, {average}, matched", {**run, **MATCHED, "options": {**heads, **memory}}


def _matched(results: Results, name: str, average: str) -> str:
    """The arm of the matched comparison, which may be that of the published one."""
    arm = f"{name}, {average}, matched"
    return arm if arm in results.arms else f"{name}, {average}"


def claims(results: Results) -> list[Claim]:
    """IsoLoss and IsoCopy train without a moving average, and better than their counterparts."""
    found = []
    for ours, other in (("IsoLoss", "DirectPred"), ("IsoCopy", "DirectCopy")):
        arm, against = f"{ours}, no EMA", f"{other}, no EMA"
        knn = results.values(arm, _knn)
        found += [
            holds(
                f"{ours} trains without a moving average.",
                [r.verdict == "healthy" and (r.knn_gain or 0.0) > 0 for r in results[arm]],
                f"{results.kinds(arm)}, k-NN {spread(knn)}, above untrained by "
                f"{spread(results.values(arm, lambda r: r.knn_gain))}",
            ),
            above(
                f"Without a moving average {ours} does better than {other}.",
                knn,
                results.values(against, _knn),
                f"k-NN, {ours}",
                other,
            ),
        ]
    return found


def chapters(results: Results) -> list[Chapter]:
    """What the average is worth, confounded and matched."""
    rows: list[list[Any]] = []
    gaps: dict[str, list[float | None]] = {}
    for name in METHODS:
        row: list[Any] = [name]
        for told, pair in (
            ("as published", (f"{name}, EMA", f"{name}, no EMA")),
            ("matched", tuple(_matched(results, name, average) for average in ("EMA", "no EMA"))),
        ):
            gap = _gap(results, *pair)
            gaps[f"{name}, {told}"] = gap
            row += [results.values(pair[0], _knn), results.values(pair[1], _knn), gap]
        rows.append(row)
    by_arm = results.by_arm(_knn)
    kinds: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            results.values(arm, lambda r: r.last("erank_centred")),
            results.values(arm, _knn),
        ]
        for arm in results.arms
    ]
    return [
        Chapter(
            "The ten runs, as published and matched",
            [
                Dots(
                    "What the moving average is worth",
                    "k-NN with it less k-NN without it, seed by seed.",
                    "change of k-NN",
                    gaps,
                    {"none": 0.0},
                    percent=True,
                ),
                Dots("k-NN of all runs", "On backbone features.", "k-NN top-1", by_arm, percent=True),
                Table(
                    "With and without a moving average",
                    "As published: LARS with it, SGD without; other rates, other memory of the correlation. "
                    "Matched: SGD at 0.1, decay 1e-4, memory 0.5 for all.",
                    ("Method", "EMA", "No EMA", "Gap", "EMA, matched", "No EMA, matched", "Gap, matched"),
                    rows,
                ),
                Table("All runs", "At the end.", ("Run", "Verdict", "Effective rank", "k-NN"), kinds),
            ],
        )
    ]  # fmt: skip


def _gap(results: Results, with_it: str, without: str) -> list[float | None]:
    """By seed that has both."""
    knn = {arm: {r.seed: _knn(r) for r in results[arm]} for arm in (with_it, without)}
    seeds = sorted(knn[with_it].keys() & knn[without].keys())
    pairs = [(knn[with_it][seed], knn[without][seed]) for seed in seeds]
    return [None if a is None or b is None else a - b for a, b in pairs]


def _knn(result: Result) -> float | None:
    return result.knn_end


def words(results: Results) -> str:
    """What the average is worth in either comparison."""
    told = []
    for name in METHODS:
        confounded = _gap(results, f"{name}, EMA", f"{name}, no EMA")
        matched = _gap(results, *(_matched(results, name, average) for average in ("EMA", "no EMA")))
        told.append(f"{name} {spread(confounded)} as published, {spread(matched)} matched")
    return f"k-NN that the moving average adds: {'; '.join(told)}."
