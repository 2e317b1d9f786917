"""Implicit variance regularisation toys: jobs, claims and figures (2, 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from fullrank.figures import Lines, Series
from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Chapter, Claim, Findings, holds, spread
from fullrank.labs._common.results import Result, Results
from fullrank.labs.eigenmodes.toy_networks import (
    convergence,
    figure_5,
    figure_panels,
    largest_probes,
    simulate,
)
from fullrank.labs.eigenmodes.toy_steps import Activation, Distance

PUBLISHED_SEED = 2  # that of the paper's notebook; ours begin with it
RECORDS, POINTS = 100, 60  # that are kept of eigenvalues and of trajectories
NAMES = {"nosg": "no stop-gradient", "nopred": "no predictor", "base": "DirectPred", "iso": "IsoLoss"}
FIGURES: Mapping[Activation, str] = {"identity": "Figure 2, linear", "relu": "Figure 6, ReLU"}
TWO_NEURONS = "two neurons, {}"
RATES = ("Spread", "Unfinished", "First mode, steps", "Last mode, steps")  # columns, by their first word


def jobs(preset: Settings, part: str, seed: int) -> Iterable[Job]:
    """One job for each network of Figures 2 and 6, and for each distance of Figure 5."""
    own = preset["toys"]
    for activation in FIGURES:
        for place, toy in enumerate(figure_panels(activation, own["preset"])):
            arm = _arm(toy.setting.arm, toy.setting.distance, activation)
            arguments = {"activation": activation, "place": place, "seed": seed, **own}
            yield Job(arm, seed, measure=panel, arguments=arguments, part=part)
    for distance in get_args(Distance):
        arguments = {"distance": distance, "seed": seed, **own}
        yield Job(TWO_NEURONS.format(distance), seed, measure=two_neurons, arguments=arguments, part=part)


def _arm(arm: str, distance: str, activation: str) -> str:
    return f"{NAMES[arm]}, {distance}, {'linear' if activation == 'identity' else 'ReLU'}"


def panel(activation: Activation, place: int, seed: int, preset: Any, steps: int = 0) -> dict[str, Any]:
    """Train one network of Figure 2 or 6, and a two-neuron one for trajectories.

    Returns:
        `steps` and `eigenvalues`, at 100 places along training; `spread`, `unfinished` and the `first` and
        `last` mode's step of `convergence`; `paths` of 20 inputs' outputs, each [points, 2].
    """
    toy = figure_panels(activation, preset, PUBLISHED_SEED + seed)[place]
    toy = replace(toy, steps=steps or toy.steps)
    trained = simulate(toy)
    rate = convergence(trained)
    small = replace(toy, in_dim=6, out_dim=2)
    weights = small.initial_weights()
    paths = simulate(small, weights, largest_probes(weights)).outputs
    kept, points = (_thinned(len(found), n) for found, n in ((trained.steps, RECORDS), (paths, POINTS)))
    return {
        "steps": trained.steps[kept].tolist(),
        "eigenvalues": _rounded(trained.eigenvalues[kept]),
        "spread": rate.spread,
        "unfinished": rate.unfinished,
        "first": float(np.nanmin(rate.steps)),
        "last": float(np.nanmax(rate.steps)),
        "paths": [_rounded(path) for path in paths[points].transpose(1, 0, 2)],
    }


def two_neurons(distance: Distance, seed: int, preset: Any, steps: int = 0) -> dict[str, Any]:
    """Train the networks of Figure 5: `steps`, `eigenvalues` [3 starts, places, 2]."""
    found = []
    for toy, weights in figure_5(preset, PUBLISHED_SEED + seed):
        if toy.setting.distance == distance:
            found.append(simulate(replace(toy, steps=steps or toy.steps), weights))
    kept = _thinned(len(found[0].steps), RECORDS)
    return {
        "steps": found[0].steps[kept].tolist(),
        "eigenvalues": [_rounded(trained.eigenvalues[kept]) for trained in found],
    }


def _thinned(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _rounded(values: np.ndarray) -> list[Any]:
    """Four digits: what a figure shows."""
    return np.vectorize(lambda value: float(f"{value:.4g}"), otypes=[float])(values).tolist()  # type: ignore[no-any-return]


def findings(results: Results) -> Findings:
    """Figures 2, 5 and 6, and how evenly modes converge in every setting."""
    sentences = []
    for base, iso in _pairs():
        spreads = [spread(results.values(arm, "spread")) for arm in (base, iso)]
        sentences.append(f"{iso.partition(', ')[2]}: DirectPred {spreads[0]}, IsoLoss {spreads[1]}")
    seen = f"Toys, spread of ln steps over modes: {'; '.join(sentences)}."
    return Findings(_chapters(results), claims(results), seen)


def _pairs() -> list[tuple[str, str]]:
    return [
        (_arm("base", distance, activation), _arm("iso", distance, activation))
        for activation in FIGURES
        for distance in get_args(Distance)
    ]


def claims(results: Results) -> list[Claim]:
    """Claims: IsoLoss modes converge more evenly; `nosg` ones decay, `nopred` stay."""
    found = []
    for base, iso in _pairs():
        if not {base, iso} <= set(results.arms):
            continue
        text = f"{iso.partition(', ')[2]}: IsoLoss's modes converge at more equal rates than DirectPred's."
        claim = results.above(text, "spread", base, iso, "spread of ln steps, DirectPred", "IsoLoss")
        left = [results.values(arm, "unfinished") for arm in (base, iso)]
        if any(map(any, left)):
            more = f"; modes unfinished {spread(left[0])} and {spread(left[1])} of 10"
            claim = replace(claim, evidence=claim.evidence + more)
        found.append(claim)
    for arm, text, most in (
        ("nosg", "without a stop-gradient the mean eigenvalue halves or worse", 0.5),
        ("nopred", "without a predictor modes do not grow", 1.1),
    ):
        ends = [_ends(result) for result in results[_arm(arm, "euclidean", "identity")]]
        if ends:
            before, after = ([pair[place] for pair in ends] for place in (0, 1))
            evidence = f"mean eigenvalue {spread(before)} before, {spread(after)} after"
            smaller = [end < most * start for start, end in ends]
            found.append(holds(f"linear, euclidean: {text}.", smaller, evidence))
    return found


def _ends(result: Result) -> tuple[float, float]:
    eigenvalues = result.numbers["eigenvalues"]
    return float(np.mean(eigenvalues[0])), float(np.mean(eigenvalues[-1]))


def _chapters(results: Results) -> list[Chapter]:
    found = []
    for activation, title in FIGURES.items():
        known = [
            (arm, distance, name)
            for arm in NAMES
            for distance in get_args(Distance)
            if (name := _arm(arm, distance, activation)) in results.arms
        ]
        found += [
            Chapter(
                f"{title}: eigenvalues",
                [_eigenvalues(results, arm, distance, name) for arm, distance, name in known],
                "Of W Wᵀ along training, ten modes. Left: the Euclidean distance; right: the cosine.",
                ordered=True,
            ),
            Chapter(
                f"{title}: trajectories of outputs",
                [_paths(results, name) for _, _, name in known],
                "The 20 largest of 5,000 inputs through two neurons, first seed; the mark is the end. "
                "The laptop's 2,000 samples a step make the cosine's paths unsteady.",
                ordered=True,
            ),
        ]
    table = results.table(
        "How evenly modes converge",
        "Spread: standard deviation over modes of ln(steps until half of the way is gone); 0 is one rate for "
        "all. Modes that never got there count as if they had at the end, so that it is a lower bound.",
        {
            "Spread": "spread",
            "Unfinished": "unfinished",
            "First mode, steps": "first",
            "Last mode, steps": "last",
        },
        head="Network",
        verdict=False,
        arms=[arm for arm in results.arms if not arm.startswith("two neurons")],
    )
    return [*found, _figure_5(results), Chapter("Rates of convergence", [table])]


def _eigenvalues(results: Results, arm: str, distance: str, name: str) -> Lines:
    own = results[name]
    steps = own[0].numbers["steps"]
    filled = [_filled(result, steps) for result in own]
    series = [  # the axis ends above 1e-3
        Series(
            f"mode {k + 1}", steps, [[row[k] if row[k] > 1e-3 else None for row in rows] for rows in filled]
        )
        for k in range(len(filled[0][0]))
    ]
    ends = {"1": 1.0} if distance == "euclidean" and arm != "nopred" else {}
    title, limits = f"Eigenvalues: {name}", (1e-2, 10.0)
    return Lines(title, "", "step", "eigenvalue", series, ends, log_y=True, y_range=limits)


def _filled(result: Result, steps: list[int]) -> list[list[float]]:
    """Records at these steps, the first seed's; a network that diverged has fewer."""
    rows = dict[int, list[float]](zip(result.numbers["steps"], result.numbers["eigenvalues"], strict=True))
    nothing = [0.0] * len(next(iter(rows.values())))
    return [rows.get(step, nothing) for step in steps]


def _paths(results: Results, name: str) -> Lines:
    paths = results[name][0].numbers["paths"]
    shown = [Series("path", [x for x, _ in path], [[y for _, y in path]]) for path in paths]
    ends = [Series("end", [path[-1][0]], [[path[-1][1]]], "points") for path in paths]
    return Lines(f"Trajectories: {name}", "", "output 1", "output 2", [*shown, *ends])


def _figure_5(results: Results) -> Chapter:
    items = []
    starts = ("W", "2 W", "another, standard normal / 2")
    for distance in get_args(Distance):
        if not (own := results[TWO_NEURONS.format(distance)]):
            continue
        numbers = own[0].numbers
        series = [
            Series(start, numbers["steps"], [[row[mode] for row in rows]], dash)
            for start, rows in zip(starts, numbers["eigenvalues"], strict=True)
            for mode, dash in enumerate(("solid", "dash"))
        ]
        ends = {"1": 1.0} if distance == "euclidean" else {}
        items.append(Lines(f"Two neurons, {distance}", "", "step", "eigenvalue", series, ends))
    return Chapter(
        "Figure 5: two neurons from three starts",
        items,
        "DirectPred, linear, first seed; the second eigenvalue is dashed. Euclidean modes end at 1, the "
        "cosine's meet anywhere.",
    )
