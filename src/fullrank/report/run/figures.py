"""The figures of one run, as plotly figures; each is None where the run has nothing to draw in it.

Traces carry in `meta` the tap and the form of spectrum that they belong to; the page shows the chosen ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullrank.report.plot import (
    band,
    figure,
    level_axis,
    line,
    log_axis,
    null_line,
    reference,
    spectrum_line,
    spectrum_map,
    thin,
)
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import threshold_of
from fullrank.report.style import BLUE, GREEN, GREY, OCHRE, PALETTE, PURPLE, count, tap_colour

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["alignment_uniformity", "knn", "level", "log_spectra", "loss", "ranks", "spectrum_over_time"]

RANKS = (
    ("erank_centred", "erank, centred", BLUE),
    ("rankme_uncentred", "RankMe", OCHRE),
    ("rankme_unit", "RankMe, unit rows", PURPLE),
)


def loss(run: Run) -> go.Figure | None:
    """The loss of every logged step, not smoothed; its terms wait in the legend.

    Example:
        >>> from pathlib import Path
        >>> loss(Run(Path("runs/a"))) is None
        True
    """
    if all(row.loss is None for row in run.steps):
        return None
    fig = figure("step", "training loss")
    steps = [row.step for row in run.steps]
    xs, ys = thin(steps, [row.loss for row in run.steps])
    line(fig, xs, ys, "loss", BLUE, "step %{x:,}<br>loss %{y:.5g}", width=1.4, mode=_mode(xs))
    terms = sorted({name for row in run.steps for name in row.terms})
    for index, name in enumerate(terms if len(terms) > 1 else []):
        xs, ys = thin(steps, [row.terms.get(name) for row in run.steps])
        hover = f"step %{{x:,}}<br>{name} %{{y:.5g}}"
        line(fig, xs, ys, name, PALETTE[1:][index % 5], hover, width=1, visible="legendonly")
    return fig


def level(run: Run) -> go.Figure | None:
    """The level of every tap: a line from training batches, dots from the held-out images."""
    fig = figure("step", "level (1 = isotropic, 0 = constant)")
    for tap in run.taps:
        colour = tap_colour(tap, run.taps)
        rows = [row for row in run.steps if tap in row.level]
        xs, ys = thin([row.step for row in rows], [row.level[tap] for row in rows])
        if xs:
            hover = f"step %{{x:,}}<br>{tap}, batch: %{{y:.4f}}"
            line(fig, xs, ys, tap, colour, hover, width=1.6, mode=_mode(xs), legendgroup=tap)
        if points := run.measures(tap, "level"):
            hover = f"step %{{x:,}}, epoch %{{customdata}}<br>{tap}, held-out: %{{y:.4f}}"
            steps, values = [point.step for point in points], [point.value for point in points]
            dots = {"mode": "markers", "legendgroup": tap, "showlegend": not xs}
            line(fig, steps, values, tap, colour, hover, customdata=[point.epoch for point in points], **dots)
    if not fig.data:
        return None
    level_axis(fig, threshold_of(run.verdict))
    return fig


def ranks(run: Run) -> go.Figure | None:
    """Three effective ranks over epochs, each with its null at the same n and d dashed, and d itself."""
    fig = figure("epoch", "effective rank (directions in use)", yaxis_rangemode="tozero")
    for tap in run.taps:
        n, d = run.size(tap)
        for name, label, colour in RANKS:
            points = run.measures(tap, name)
            epochs = [point.epoch for point in points]
            if not points:
                continue
            hover = f"epoch %{{x}}<br>{label}: %{{y:.2f}} of d = {count(d)}<br>{tap}, n = {count(n)}"
            more = {"mode": "lines+markers", "meta": {"tap": tap}}
            line(fig, epochs, [point.value for point in points], label, colour, hover, **more)
            null_line(fig, points, label, colour, meta={"tap": tap})
    if not fig.data:
        return None
    line(fig, [None], [None], "null", GREY, "", dash="dash", width=1.4)
    return fig


def spectrum_over_time(run: Run) -> go.Figure | None:
    """Singular values over epochs as a heat map, relative to the largest of each epoch."""
    fig = figure("epoch", "index of the singular value (1 = largest)", 340)
    fig.update_yaxes(autorange="reversed")
    for tap, form in band(run):
        spectrum_map(fig, run.spectra(tap, form), meta={"tap": tap, "form": form})
    return fig if fig.data else None


def log_spectra(run: Run, most: int = 6) -> go.Figure | None:
    """Spectra of a few epochs from the first (faint) to the last (strong), the untrained network dotted."""
    fig = figure("index of the singular value (1 = largest)", "singular value σ", 340)
    log_axis(fig)
    for tap, form in band(run):
        spectra, meta = run.spectra(tap, form), {"tap": tap, "form": form}
        epochs = sorted(spectra)
        picked = sorted({epochs[round(index * (len(epochs) - 1) / (most - 1))] for index in range(most)})
        for place, epoch in enumerate(picked):
            first = epoch == 0
            look = {
                "opacity": 1.0 if first else 0.25 + 0.75 * place / max(1, len(picked) - 1),
                "dash": "dot" if first else "solid",
                "width": 2.4 if epoch == picked[-1] else 1.7,
            }
            name = "untrained" if first else f"epoch {epoch}"
            spectrum_line(fig, spectra[epoch], name, GREY if first else BLUE, meta=meta, **look)
    return fig if fig.data else None


def alignment_uniformity(run: Run) -> go.Figure | None:
    """The path of alignment against uniformity over epochs, a line for each tap; down and left is better."""
    fig = figure("uniformity (lower: more evenly spread)", "alignment (lower: views agree more)")
    for tap in run.taps:
        uniform = {point.epoch: point for point in run.measures(tap, "uniformity")}
        aligned = {point.epoch: point for point in run.measures(tap, "alignment")}
        epochs = [e for e in uniform if e in aligned and None not in (uniform[e].value, aligned[e].value)]
        if not epochs:
            continue
        xs, ys = [uniform[epoch].value for epoch in epochs], [aligned[epoch].value for epoch in epochs]
        hover = f"{tap}, epoch %{{customdata}}<br>uniformity %{{x:.4f}}<br>alignment %{{y:.4f}}"
        size = [11 if epoch == epochs[-1] else 8 if epoch == 0 else 4 for epoch in epochs]
        symbol = ["diamond-open" if epoch == 0 else "circle" for epoch in epochs]
        more = {"mode": "lines+markers", "width": 1.4, "marker": {"size": size, "symbol": symbol}}
        line(fig, xs, ys, tap, tap_colour(tap, run.taps), hover, customdata=epochs, **more)
    if not fig.data:
        return None
    null = next(
        (p.null for tap in run.taps for p in run.measures(tap, "uniformity") if p.null is not None), None
    )
    if null is not None:
        words = {"annotation_text": "isotropic", "annotation_font": {"size": 11, "color": GREY}}
        fig.add_vline(x=null, line={"color": GREY, "width": 1.2, "dash": "dot"}, **words)
    return fig


def knn(run: Run) -> go.Figure | None:
    """k-NN accuracy over epochs, held against the untrained network."""
    rows = [row for row in run.epochs if row.accuracy("knn") is not None]
    if not rows:
        return None
    about = rows[-1].knn or {}
    fig = figure("epoch", f"k-NN top-1 (k = {about.get('k')}, {count(about.get('bank'))} images)")
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    epochs, values = [row.epoch for row in rows], [row.accuracy("knn") or 0.0 for row in rows]
    symbol = ["diamond-open" if epoch == 0 else "circle" for epoch in epochs]
    marker = {"symbol": symbol, "size": [10 if epoch == 0 else 6 for epoch in epochs]}
    hover = "epoch %{x}<br>k-NN top-1 %{y:.2%}"
    line(fig, epochs, values, "k-NN", GREEN, hover, mode="lines+markers", marker=marker, showlegend=False)
    probe = [row for row in run.epochs if row.accuracy("probe") is not None]
    if probe:
        values_of_probe = [row.accuracy("probe") for row in probe]
        hover = "epoch %{x}<br>online linear probe %{y:.2%}"
        where: list[float] = [row.epoch for row in probe]
        line(fig, where, values_of_probe, "linear, online", BLUE, hover, mode=_mode(where), dash="dash")
    if epochs[0] == 0:
        side = "bottom right" if values[-1] > values[0] else "top right"  # away from the curve
        reference(fig, values[0], f"untrained network: {values[0]:.1%}", side)
    return fig


def _mode(points: list[float]) -> str:
    """A line of one point is invisible: it gets a marker."""
    return "lines" if len(points) > 1 else "markers"
