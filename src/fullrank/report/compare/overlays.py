"""The figures that lay arms over each other: one colour for each arm, the same in every figure.

An arm of several seeds is a thin line for each of them and their mean; an arm that is no run has no curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from fullrank.report.plot import (
    band,
    figure,
    level_axis,
    line,
    log_axis,
    null_line,
    spectrum_line,
    spectrum_map,
    thin,
)
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import threshold_of
from fullrank.report.style import GREY, PALETTE

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["arm_colour", "knn", "last_spectra", "level", "loss", "ranks", "spectrum_over_time"]

Arms = Mapping[str, Sequence[Run]]
Curve = tuple[Sequence[float], Sequence[float | None]]
COLOURS = (*PALETTE, "#6b7fd7", "#8c6d46", "#7c9a2e", "#c26d8f")


def arm_colour(index: int) -> str:
    """The colour of the arm at this place."""
    return COLOURS[index % len(COLOURS)]


def loss(arms: Arms) -> go.Figure | None:
    """The training loss of every arm."""
    fig = figure("step", "training loss")
    for index, (name, runs) in enumerate(arms.items()):
        curves = [thin([row.step for row in run.steps], [row.loss for row in run.steps]) for run in runs]
        hover = f"{name}, step %{{x:,}}<br>loss %{{y:.5g}}"
        _curves(fig, curves, runs, name, arm_colour(index), hover, mode="lines", width=1.6)
    return fig if fig.data else None


def level(arms: Arms) -> go.Figure | None:
    """The level of every arm on held-out images."""
    fig = figure("epoch", "level (1 = isotropic, 0 = constant)")
    _measure(fig, arms, "level", "%{y:.4f}")
    if not fig.data:
        return None
    thresholds = {threshold_of(run.verdict) for runs in arms.values() for run in runs}
    level_axis(fig, thresholds.pop() if len(thresholds) == 1 else None)
    return fig


def ranks(arms: Arms) -> go.Figure | None:
    """The centred effective rank of every arm, with the null of the same n and d dashed."""
    fig = figure("epoch", "effective rank, centred (directions)", yaxis_rangemode="tozero")
    _measure(fig, arms, "erank_centred", "%{y:.2f}")
    if not fig.data:
        return None
    sizes = set()
    for run in chain.from_iterable(arms.values()):
        for tap in run.taps:
            points = run.measures(tap, "erank_centred")
            if points and (tap, run.size(tap)) not in sizes:  # arms of one shape share one null
                sizes.add((tap, run.size(tap)))
                null_line(fig, points, "rank", GREY, meta={"tap": tap})
    line(fig, [None], [None], "null", GREY, "", dash="dash", width=1.4, showlegend=True)
    return fig


def knn(arms: Arms, baselines: Mapping[str, float] | None = None) -> go.Figure | None:
    """The k-NN accuracy of every arm, with baselines such as raw pixels as level lines."""
    fig = figure("epoch", "k-NN top-1 accuracy", yaxis_tickformat=".0%", yaxis_rangemode="tozero")
    for index, (name, runs) in enumerate(arms.items()):
        hover = f"{name}, epoch %{{x}}<br>k-NN top-1 %{{y:.2%}}"
        _curves(fig, [_accuracies(run) for run in runs], runs, name, arm_colour(index), hover)
    if not fig.data:
        return None
    last = max(epoch for trace in fig.data for epoch in trace.x)
    for place, (name, value) in enumerate((baselines or {}).items()):
        hover = f"{name}<br>k-NN top-1 %{{y:.2%}}"
        more = {"dash": ("dot", "dashdot", "dash")[place % 3], "width": 1.4, "showlegend": True}
        line(fig, [0, last], [value, value], name, GREY, hover, **more)
    return fig


def spectrum_over_time(run: Run) -> go.Figure | None:
    """One arm's spectra over epochs, small enough to stand beside the others."""
    fig = figure("epoch", "index (1 = largest)", 260)
    fig.update_yaxes(autorange="reversed")
    for tap, form in band(run):
        spectrum_map(fig, run.spectra(tap, form), meta={"tap": tap, "form": form})
    return fig if fig.data else None


def last_spectra(arms: Arms) -> go.Figure | None:
    """The last spectrum of every run, in absolute values."""
    fig = figure("index of the singular value (1 = largest)", "singular value σ", 340)
    log_axis(fig)
    for index, (name, runs) in enumerate(arms.items()):
        for run in runs:
            for tap, form in band(run):
                spectra = run.spectra(tap, form)
                more = {"meta": {"tap": tap, "form": form}, "showlegend": False, **_thinner(len(runs))}
                spectrum_line(fig, spectra[max(spectra)], _seeded(name, run, runs), arm_colour(index), **more)
    return fig if fig.data else None


def _measure(fig: go.Figure, arms: Arms, measure: str, value: str) -> None:
    for index, (name, runs) in enumerate(arms.items()):
        for tap in dict.fromkeys(tap for run in runs for tap in run.taps):
            points = [run.measures(tap, measure) for run in runs]
            curves = [([p.epoch for p in found], [p.value for p in found]) for found in points]
            hover = f"{name}, epoch %{{x}}<br>{tap}: {value}"
            _curves(fig, curves, runs, name, arm_colour(index), hover, meta={"tap": tap})


def _accuracies(run: Run) -> Curve:
    rows = [row for row in run.epochs if row.accuracy("knn") is not None]
    return [row.epoch for row in rows], [row.accuracy("knn") for row in rows]


def _curves(
    fig: go.Figure,
    curves: Sequence[Curve],
    runs: Sequence[Run],
    name: str,
    colour: str,
    hover: str,
    **more: Any,
) -> None:
    """One line for a single run; for several a thin one each, and the mean where they were all measured."""
    more = {"mode": "lines+markers", "showlegend": False, **more}  # the page has one legend for all figures
    for run, (xs, ys) in zip(runs, curves, strict=True):
        if len(xs) and len(runs) > 1:
            seeded = hover.replace(name, _seeded(name, run, runs), 1)
            line(fig, xs, ys, name, colour, seeded, **{**more, "mode": "lines", **_thinner(len(runs))})
        elif len(xs):
            line(fig, xs, ys, name, colour, hover, **more)
    means = _means(curves) if len(runs) > 1 else {}
    if means:
        mean = hover.replace(name, f"{name}, mean of {len(runs)} seeds", 1)
        line(fig, list(means), list(means.values()), name, colour, mean, **more)


def _means(curves: Sequence[Curve]) -> dict[float, float]:
    """The mean over seeds where every one of them has a value."""
    known = [{x: y for x, y in zip(*curve, strict=True) if y is not None} for curve in curves]
    shared = [x for x in known[0] if all(x in values for values in known)]
    return {x: sum(values[x] for values in known) / len(known) for x in shared}


def _thinner(seeds: int) -> dict[str, Any]:
    return {"width": 1.0, "opacity": 0.5} if seeds > 1 else {}


def _seeded(name: str, run: Run, runs: Sequence[Run]) -> str:
    return f"{name}, seed {run.config.get('seed', '?')}" if len(runs) > 1 else name
