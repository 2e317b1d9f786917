"""Figures of what only some methods have: codes, and two branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullrank.report.draw import figure, line, reference
from fullrank.report.look import BLUE, OCHRE, PURPLE, count
from fullrank.report.run import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["codes", "rank_difference"]

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
    rows = [(row["epoch"], row["usage"]) for row in run.epochs if row.get("usage")]
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
    rows = [
        (row["epoch"], row["rank_difference"]) for row in run.epochs if row.get("rank_difference") is not None
    ]
    if not rows:
        return None
    fig = figure("epoch", "rank of target - rank of online")
    hover = "epoch %{x}<br>difference %{y:.2f}"
    line(fig, [e for e, _ in rows], [v for _, v in rows], "difference", BLUE, hover, mode="lines+markers")
    reference(fig, 0.0, "no difference")
    return fig
