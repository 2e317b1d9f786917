"""Figures of what only some methods have, codes and two branches, and of the diagnostics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullrank.report.plot import figure, line, reference
from fullrank.report.run.reading import Run
from fullrank.report.style import BLUE, OCHRE, PURPLE, count, tap_colour

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["closer", "codes", "predictor_alignment", "predictor_filter", "rank_difference"]

OF_CODES = (
    ("marginal_entropy", "entropy of the mean assignment", BLUE),
    ("conditional_entropy", "mean entropy of an image's own", PURPLE),
    ("dead_share", "share of codes nobody prefers", OCHRE),
)


def codes(run: Run) -> go.Figure | None:
    """The use of codes over epochs, as shares of ln K; None for a method without codes.

    Healthy: the upper line near 1, the lower one well below it. Both near 1: every image is assigned to all
    codes. Both near 0: one code for all.
    """
    rows = [(row.epoch, row.usage) for row in run.epochs if row.usage]
    if not rows:
        return None
    k = rows[-1][1]["codes"]
    fig = figure("epoch", f"share of ln K (K = {count(k)})", yaxis_rangemode="tozero")
    for key, label, colour in OF_CODES:
        hover = f"epoch %{{x}}<br>{label}: %{{y:.3f}}"
        xs, ys = [epoch for epoch, _ in rows], [usage.get(key) for _, usage in rows]
        line(fig, xs, ys, label, colour, hover, mode="lines+markers")
    reference(fig, 1.0, "ln K")
    return fig


def rank_difference(run: Run) -> go.Figure | None:
    """Effective rank of the target less that of the online output; None for a method with one branch."""
    rows = [(row.epoch, row.rank_difference) for row in run.epochs if row.rank_difference is not None]
    if not rows:
        return None
    fig = figure("epoch", "rank of target - rank of online")
    hover = "epoch %{x}<br>difference %{y:.2f}"
    line(fig, [e for e, _ in rows], [v for _, v in rows], "difference", BLUE, hover, mode="lines+markers")
    reference(fig, 0.0, "no difference")
    return fig


def predictor_alignment(run: Run) -> go.Figure | None:
    """Whether the predictor shares the projector's eigenvectors, direction by direction; None without one."""
    fig = figure("index of the eigenvector (1 = largest)", "alignment of predictor and eigenvector")
    if not _by_epoch(fig, run, "alignment", "alignment %{y:.3f}"):
        return None
    reference(fig, 0.0, "random map")
    reference(fig, 1.0, "shared eigenvectors")
    return fig


def predictor_filter(run: Run) -> go.Figure | None:
    """How much of each direction the predictor lets through; falling, it is a low-pass filter."""
    fig = figure("index of the eigenvector (1 = largest)", "spectral filter of the predictor")
    if not _by_epoch(fig, run, "filter", "passes %{y:.3g}"):
        return None
    fig.update_yaxes(type="log")
    return fig


def _by_epoch(fig: go.Figure, run: Run, form: str, hover: str) -> bool:
    """One line for each epoch that was looked at closely, faint to strong; whether there was one."""
    found = run.spectra("predictor-map", form)
    for place, (epoch, values) in enumerate(found.items()):
        strength = 1.0 if len(found) == 1 else 0.25 + 0.75 * place / (len(found) - 1)
        indices: list[float | None] = [float(i + 1) for i in range(len(values))]
        name, more = f"epoch {epoch}", {"opacity": strength}
        line(fig, indices, list(values), name, BLUE, f"{name}<br>direction %{{x}}: {hover}", **more)
    return bool(found)


def closer(run: Run, metric: str, label: str) -> go.Figure | None:
    """A diagnostic metric over the epochs, a line a tap; dashed its baseline."""
    taken = [(row.epoch, row.diagnostics["measures"]) for row in run.epochs if row.diagnostics]
    fig, drawn = figure("epoch", label), False
    for tap in run.taps:
        points = [(epoch, found[tap][metric]) for epoch, found in taken if metric in found.get(tap, {})]
        points = [(epoch, measure) for epoch, measure in points if measure["value"] is not None]
        if not points:
            continue
        epochs, colour = [epoch for epoch, _ in points], tap_colour(tap, run.taps)
        hover = f"epoch %{{x}}<br>{tap}: %{{y:.3g}}"
        line(fig, epochs, [m["value"] for _, m in points], tap, colour, hover, mode="lines+markers")
        nulls = [measure["null"] for _, measure in points]
        more = {
            "mode": "lines+markers",
            "marker": {"symbol": "line-ew-open", "size": 12},
            "showlegend": False,
        }
        line(fig, epochs, nulls, tap, colour, f"{tap}, null: %{{y:.3g}}", dash="dash", width=1.4, **more)
        drawn = True
    return fig if drawn else None
