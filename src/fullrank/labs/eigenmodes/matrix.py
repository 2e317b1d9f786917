"""The reference's ten runs: five methods with and without EMA, published, matched.

As published, the runs without a moving average have another optimiser, rate and memory of the correlation
than those with one, and BYOL another weight decay than the rest: what is blamed on the average may be theirs.
The matched comparison gives all runs the settings of those without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fullrank.figures import Dots, Table
from fullrank.jobs.job import Settings
from fullrank.labs._common.findings import Chapter, Claim, Findings, spread
from fullrank.labs._common.results import Results
from fullrank.labs._common.selectors import knn_dots, knn_end, last
from fullrank.labs.eigenmodes.deep import without_average

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
    """Ten runs as published, and the six further ones of the matched comparison."""
    for name, recipe in METHODS.items():
        heads = {**own["options"], **(own["byol"] if recipe == "byol" else {})}
        for average, suffix in (("EMA", ""), ("no EMA", "-noema")):
            run = {"recipe": own["recipe"].format(recipe + suffix), **own["run"]}
            yield f"{name}, {average}", {**run, "options": heads}
            if suffix and recipe != "byol":
                continue  # it has these settings already
            memory = {} if recipe == "byol" else MEMORY
            yield f"{name}, {average}, matched", {**run, **MATCHED, "options": {**heads, **memory}}


def findings(results: Results) -> Findings:
    """Gain by the moving average, as published and matched."""
    claims: list[Claim] = []
    for ours, other in (("IsoLoss", "DirectPred"), ("IsoCopy", "DirectCopy")):
        arm, against = f"{ours}, no EMA", f"{other}, no EMA"
        text = f"Without a moving average {ours} does better than {other}."
        claims += [
            without_average(results, ours),
            results.above(text, knn_end, arm, against, f"k-NN, {ours}", other),
        ]
    gaps: dict[str, list[float | None]] = {}
    rows, sentences = list[list[Any]](), []
    for name in METHODS:
        published = f"{name}, EMA", f"{name}, no EMA"
        pairs = {"as published": published, "matched": tuple(_matched(results, arm) for arm in published)}
        own = {kind: _gap(results, *pair) for kind, pair in pairs.items()}
        gaps |= {f"{name}, {kind}": gap for kind, gap in own.items()}
        values = [
            [*(results.values(arm, knn_end) for arm in pair), own[kind]] for kind, pair in pairs.items()
        ]
        rows.append([name, *values[0], *values[1]])
        sentences.append(f"{name} " + ", ".join(f"{spread(gap)} {kind}" for kind, gap in own.items()))
    items: list[Any] = [
        Dots(
            "What the moving average is worth",
            "k-NN with it less k-NN without it, seed by seed.",
            "change of k-NN",
            gaps,
            {"none": 0.0},
            percent=True,
        ),
        knn_dots(results, "k-NN of all runs", "On backbone features."),
        Table(
            "With and without a moving average",
            "As published: LARS with it, SGD without; other rates, other memory of the correlation. "
            "Matched: SGD at 0.1, decay 1e-4, memory 0.5 for all.",
            ("Method", "EMA", "No EMA", "Gap", "EMA, matched", "No EMA, matched", "Gap, matched"),
            rows,
        ),
        results.table(
            "All runs", "At the end.", {"Effective rank": last("erank_centred"), "k-NN": knn_end}, head="Run"
        ),
    ]
    seen = f"k-NN that the moving average adds: {'; '.join(sentences)}."
    return Findings([Chapter("The ten runs, as published and matched", items)], claims, seen)


def _matched(results: Results, arm: str) -> str:
    return f"{arm}, matched" if f"{arm}, matched" in results.arms else arm


def _gap(results: Results, with_it: str, without: str) -> list[float | None]:
    """By seed that has both."""
    knn = {arm: {r.seed: knn_end(r) for r in results[arm]} for arm in (with_it, without)}
    seeds = sorted(knn[with_it].keys() & knn[without].keys())
    pairs = [(knn[with_it][seed], knn[without][seed]) for seed in seeds]
    return [None if a is None or b is None else a - b for a, b in pairs]
