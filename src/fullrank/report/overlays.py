"""The figures that lay several runs over each other: one colour for each arm, the same in every figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fullrank.report.draw import (
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
from fullrank.report.look import GREY, PALETTE
from fullrank.report.run import Run
from fullrank.report.summary import threshold_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["arm_colour", "knn", "last_spectra", "level", "loss", "ranks", "spectrum_over_time"]

Arms = Mapping[str, Run]
ARM = {"mode": "lines+markers", "showlegend": False}  # the page has one legend for all figures


def arm_colour(index: int) -> str:
    """The colour of the arm at this place."""
    return PALETTE[index % len(PALETTE)]


def loss(arms: Arms) -> go.Figure | None:
    """The training loss of every arm."""
    fig = figure("step", "training loss")
    for index, (name, run) in enumerate(arms.items()):
        xs, ys = thin([row["step"] for row in run.steps], [row.get("loss") for row in run.steps])
        if xs:
            hover = f"{name}, step %{{x:,}}<br>loss %{{y:.5g}}"
            line(fig, xs, ys, name, arm_colour(index), hover, width=1.6, showlegend=False)
    return fig if fig.data else None


def level(arms: Arms) -> go.Figure | None:
    """The level of every arm on held-out images."""
    fig = figure("epoch", "level (1 = isotropic, 0 = constant)")
    _measure(fig, arms, "level", "%{y:.4f}")
    if not fig.data:
        return None
    thresholds = {threshold_of(run.verdict) for run in arms.values()}
    level_axis(fig, thresholds.pop() if len(thresholds) == 1 else None)
    return fig


def ranks(arms: Arms) -> go.Figure | None:
    """The centred effective rank of every arm, with the null of the same n and d dashed."""
    fig = figure("epoch", "effective rank, centred (directions)", yaxis_rangemode="tozero")
    _measure(fig, arms, "erank_centred", "%{y:.2f}")
    if not fig.data:
        return None
    sizes = set()
    for run in arms.values():
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
    for index, (name, run) in enumerate(arms.items()):
        rows = [row for row in run.epochs if (row.get("knn") or {}).get("top1") is not None]
        if rows:
            hover = f"{name}, epoch %{{x}}<br>k-NN top-1 %{{y:.2%}}"
            values = [row["knn"]["top1"] for row in rows]
            line(fig, [row["epoch"] for row in rows], values, name, arm_colour(index), hover, **ARM)
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
    """The last spectrum of every arm, in absolute values."""
    fig = figure("index of the singular value (1 = largest)", "singular value σ", 340)
    log_axis(fig)
    for index, (name, run) in enumerate(arms.items()):
        for tap, form in band(run):
            spectra = run.spectra(tap, form)
            more = {"meta": {"tap": tap, "form": form}, "showlegend": False}
            spectrum_line(fig, spectra[max(spectra)], name, arm_colour(index), **more)
    return fig if fig.data else None


def _measure(fig: go.Figure, arms: Arms, measure: str, value: str) -> None:
    for index, (name, run) in enumerate(arms.items()):
        for tap in run.taps:
            points = run.measures(tap, measure)
            if points:
                hover = f"{name}, epoch %{{x}}<br>{tap}: {value}"
                more = {**ARM, "meta": {"tap": tap}}
                epochs, values = [point.epoch for point in points], [point.value for point in points]
                line(fig, epochs, values, name, arm_colour(index), hover, **more)
