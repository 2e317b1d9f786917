"""Figures of a comparison: one colour for each arm, the same in all.

An arm of several seeds is a thin line for each of them and their mean; an arm that is no run has no curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from fullrank.encoders.hooks import FEATURES
from fullrank.figures import Heat, Lines, Series, curve
from fullrank.figures.style import ARM_COLOURS, GREY
from fullrank.report.compare.arms import Arm, Comparison
from fullrank.report.curves import (
    FLOOR,
    INDEX,
    MOST_POINTS,
    noise_curve,
    relative,
    spectrum_curve,
    spectrum_over_time,
    thin,
)
from fullrank.report.run.figures import LEVEL, accuracies, by_form, level_range, level_references
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import threshold_of

Arms = Mapping[str, Sequence[Run]]
Curve = tuple[Sequence[float], Sequence[float | None]]
PROBES = {
    "knn_same": "k-NN, same images",
    "linear_top1": "linear",
    "knn_top1": "k-NN, evaluated",
    "finetune_top1": "fine-tuned",
    "cluster_nmi": "NMI of clusters",
}


def arm_colour(index: int) -> str:
    """Colour of the arm at this place."""
    return ARM_COLOURS[index % len(ARM_COLOURS)]


def loss(arms: Arms) -> Lines:
    """Training loss of every arm."""

    def losses(run: Run) -> Curve:
        return thin([row.step for row in run.steps], [row.loss for row in run.steps], most)

    most = max(300, MOST_POINTS // max(1, sum(map(len, arms.values())) // 2))
    methods = {str(run.config.get("method")) for run in chain.from_iterable(arms.values())}
    note = "Not smoothed. The loss alone does not tell learning from collapse."
    note += " Losses of different methods have different scales." if len(methods) > 1 else ""
    note += " A thin line for each seed, and their mean." if any(len(a) > 1 for a in arms.values()) else ""
    return Lines("Loss", note, "step", "training loss", _curves(arms, losses, marker="line", width=1.6))


def knn(arms: Arms, baselines: Mapping[str, float]) -> Lines:
    """k-NN accuracy of every arm, with baselines such as raw pixels as level lines."""
    series = _curves(arms, lambda run: accuracies(run, "knn"))
    last = max((x for s in series for x in s.x), default=0)
    held = [
        curve(name, [0, last], [value] * 2, GREY, ("dot", "dash")[place % 2], width=1.4, marker="none")
        for place, (name, value) in enumerate(baselines.items())
    ]
    note = "What the representation is worth, on each run's own choice of held-out images."
    y = "k-NN top-1 accuracy"
    shown = [*series, *held] if series else []
    return Lines("k-NN accuracy", note, "epoch", y, shown, percent=True, y_range=(0, None))


def level(arms: Arms) -> dict[tuple[str, ...], Lines]:
    """Normalized std (level) of every arm on held-out images, by tap."""
    by_tap = _by_tap(arms, "level")
    thresholds = {threshold_of(run.verdict) for run in chain.from_iterable(arms.values())}
    references = level_references(thresholds.pop() if len(thresholds) == 1 else None)
    y_range = level_range([series for found in by_tap.values() for series in found])
    note = "On held-out images. Falling to 0 is complete collapse."
    return {
        key: Lines("Level", note, "epoch", LEVEL, series, references, y_range=y_range)
        for key, series in by_tap.items()
    }


def ranks(arms: Arms) -> dict[tuple[str, ...], Lines]:
    """Centred effective rank of every arm, beside noise of the same n and d, by tap."""
    note = "Centred. Under complete collapse it is the rank of the noise."
    y = "effective rank, centred (directions)"
    figures: dict[tuple[str, ...], Lines] = {}
    for (tap,), series in _by_tap(arms, "erank_centred").items():
        noise: dict[Any, Iterator[Series]] = {}
        for run in chain.from_iterable(arms.values()):
            if points := run.measures(tap, "erank_centred"):  # arms of one shape share one line
                epochs = [point.epoch for point in points]
                noise.setdefault(run.size(tap), noise_curve(epochs, [p.null for p in points], GREY))
        shown = [*series, *chain.from_iterable(noise.values())]
        figures[tap,] = Lines("Effective rank", note, "epoch", y, shown, y_range=(0, None))
    return figures


def maps(arms: Arms) -> list[tuple[dict[tuple[str, ...], Heat], str]]:
    """Spectra over epochs of the first run of every arm, and the arm's colour."""
    found = []
    for index, (name, runs) in enumerate(arms.items()):
        for run in runs[:1]:
            title = _seeded(name, run, runs)
            small = partial(spectrum_over_time, title=title, note="", height=260, of=len(arms))
            found.append((by_form(run, small), arm_colour(index)))
    return found


def last_spectra(arms: Arms) -> dict[tuple[str, ...], Lines]:
    """The last spectrum of every run, in absolute values, by tap and form."""
    shown: dict[tuple[str, ...], list[Series]] = {}
    for index, (name, runs) in enumerate(arms.items()):
        for run in runs:
            more: dict[str, Any] = {"legend": False, "hover": _seeded(name, run, runs), "marker": "none"}
            for key, values in by_form(run, lambda spectra: spectra[max(spectra)]).items():
                line = spectrum_curve(values, name, arm_colour(index), **more, **_thinner(len(runs)))
                shown.setdefault(key, []).append(line)
    title, y = "Last spectrum of every run", "singular value σ"
    note = "Absolute values: a low curve has lost its level, a cliff its rank."
    return {key: Lines(title, note, INDEX, y, s, log_y=True, height=340) for key, s in shown.items()}


def probes(comparison: Comparison) -> Lines:
    """Results of every probe: a dot for each seed, their mean and its interval."""
    arms = comparison.arms
    shown = {key: name for key, name in PROBES.items() if any(arm.value(key).n for arm in arms)}
    series = [s for place, arm in enumerate(arms) for s in _probed(arm, place, len(arms), list(shown))]
    raw = comparison.images.raw if comparison.images else None
    if raw is not None and shown:
        series.append(
            curve("raw pixels", [-0.4, 0.4], [raw, raw], GREY, "dash", width=1.4, at=[""] * 2, marker="none")
        )
    note = (
        "Dots are single runs, diamonds their means with the 95 % interval over three or more seeds. Dashed: "
        "k-NN on raw pixels."
    )
    ticks = {name: float(place) for place, name in enumerate(shown.values())}
    return Lines(
        "Probes", note, "", "accuracy, or NMI", series, percent=True, y_range=(0, None), ticks=ticks,
        x_range=(-0.5, len(shown) - 0.5), height=360,
    )  # fmt: skip


def _probed(arm: Arm, place: int, arms: int, keys: Sequence[str]) -> list[Series]:
    """Dots of one arm, beside those of the others, and their means."""
    offset = 0.7 * ((place + 0.5) / arms - 0.5)
    known = [(k + offset, PROBES[key], found) for k, key in enumerate(keys) if (found := arm.value(key)).n]
    dots = [(x, y, name) for x, name, found in known for y in found.values]
    several = [item for item in known if item[2].n > 1]
    more: dict[str, Any] = {"legend": False, "marker": "circle"}
    colour, series = arm_colour(place), []
    if dots:
        xs, ys, at = zip(*dots, strict=True)
        series.append(curve(arm.name, xs, ys, colour, "points", size=6, opacity=0.8, at=at, **more))
    if several:
        places, names = [x for x, _, _ in several], [name for _, name, _ in several]
        means, halves = [value.mean for *_, value in several], [value.half or 0 for *_, value in several]
        more |= {"hover": f"{arm.name}, mean of {several[0][2].n}", "marker": "diamond", "whiskers": halves}
        series.append(curve(arm.name, places, means, colour, "points", size=14, at=names, **more))
    return series


def feature_spectra(comparison: Comparison) -> Lines:
    """Centred spectra of the features, with squares that sum to 1."""
    series = []
    for place, arm in enumerate(comparison.arms):
        saved = arm.subjects[0].kind == "embeddings"
        found = arm.summaries(arm.tap if saved else FEATURES)
        for summary in found:
            values = None if summary.spectrum is None else relative(summary.spectrum)
            if values is not None:
                dash = "dot" if saved else "solid"  # of images of their own
                more = {"legend": False, "marker": "none", **_thinner(len(found))}
                series.append(spectrum_curve(values, arm.name, arm_colour(place), dash, FLOOR, **more))
    note = "Centred, squares sum to 1: only shapes compare. Dotted: saved rows, of other images."
    y = "singular value, relative"
    return Lines("Spectra of the features", note, INDEX, y, series, log_y=True, height=360)


def _by_tap(arms: Arms, measure: str) -> dict[tuple[str], list[Series]]:
    def measured(run: Run, tap: str) -> Curve:
        points = run.measures(tap, measure)
        return [point.epoch for point in points], [point.value for point in points]

    taps = dict.fromkeys(tap for run in chain.from_iterable(arms.values()) for tap in run.taps)
    return {(tap,): series for tap in taps if (series := _curves(arms, partial(measured, tap=tap)))}


def _curves(arms: Arms, read: Callable[[Run], Curve], **drawing: Any) -> list[Series]:
    """A line for each run of an arm, and their mean where all were measured."""
    drawing = {"legend": False, "marker": "circle", "size": 6, **drawing}  # the page has one legend for all
    series = []
    for index, (name, runs) in enumerate(arms.items()):
        curves = [read(run) for run in runs]
        thin_ones = {**drawing, "marker": "none", **_thinner(len(runs))} if len(runs) > 1 else drawing
        series += [
            curve(name, *one, arm_colour(index), hover=_seeded(name, run, runs), **thin_ones)
            for run, one in zip(runs, curves, strict=True)
            if len(one[0])
        ]
        if len(runs) > 1 and (means := _means(curves)):
            hover = f"{name}, mean of {len(runs)} seeds"
            series.append(curve(name, means, means.values(), arm_colour(index), hover=hover, **drawing))
    return series


def _means(curves: Sequence[Curve]) -> dict[float, float]:
    """The mean over seeds where every one of them has a value."""
    known = [{x: y for x, y in zip(*one, strict=True) if y is not None} for one in curves]
    shared = [x for x in known[0] if all(x in values for values in known)]
    return {x: sum(values[x] for values in known) / len(known) for x in shared}


def _thinner(seeds: int) -> dict[str, Any]:
    return {"width": 1.0, "opacity": 0.5} if seeds > 1 else {}


def _seeded(name: str, run: Run, runs: Sequence[Run]) -> str:
    return f"{name}, seed {run.config.get('seed', '?')}" if len(runs) > 1 else name
