"""The figures of a comparison that need no training log: what probes say, and spectra of the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fullrank.report.audit.curves import relative
from fullrank.report.compare.arms import Comparison
from fullrank.report.compare.overlays import arm_colour
from fullrank.report.compare.subjects import FEATURES
from fullrank.report.plot import figure, log_axis, spectrum_line
from fullrank.report.style import GREY, percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["feature_spectra", "probes"]

PROBES = {
    "knn_same": "k-NN, same images",
    "linear_top1": "linear",
    "knn_top1": "k-NN, evaluated",
    "finetune_top1": "fine-tuned",
    "cluster_nmi": "NMI of clusters",
}
FLOOR = 1e-7  # relative singular values below are rounding


def probes(comparison: Comparison) -> go.Figure | None:
    """What every probe says of every arm: a bar for the mean, its interval, and a dot for each seed."""
    shown = {key: label for key, label in PROBES.items() if any(arm.value(key).n for arm in comparison.arms)}
    if not shown:
        return None
    fig = figure("", "accuracy, or NMI", 360, barmode="group", scattermode="group", bargap=0.25)
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    for place, arm in enumerate(comparison.arms):
        found = {label: arm.value(key) for key, label in shown.items()}
        labels = [label for label, value in found.items() if value.mean is not None]
        if not labels:
            continue
        known = [found[label] for label in labels]
        told = [f"{arm.name}, mean of {value.n}" if value.n > 1 else arm.name for value in known]
        fig.add_bar(
            x=labels,
            y=[value.mean for value in known],
            name=arm.name,
            offsetgroup=str(place),
            marker={"color": arm_colour(place), "opacity": 0.75},
            error_y={"array": [value.half or 0 for value in known], "color": GREY, "thickness": 1.4},
            customdata=told,
            hovertemplate="%{customdata}<br>%{x}: %{y:.2%}<extra></extra>",
            showlegend=False,
        )
        fig.add_scatter(
            x=[label for label, value in zip(labels, known, strict=True) for _ in value.values],
            y=[one for value in known for one in value.values],
            offsetgroup=str(place),
            mode="markers",
            marker={"color": arm_colour(place), "size": 7, "line": {"color": "#ffffff", "width": 1}},
            hovertemplate=f"{arm.name}<br>%{{x}}: %{{y:.2%}}<extra></extra>",
            showlegend=False,
        )
    raw = comparison.images.raw if comparison.images else None
    if raw is not None:
        fig.add_bar(
            x=[PROBES["knn_same"]],
            y=[raw],
            name="raw pixels",
            offsetgroup="raw",
            marker={"color": GREY, "opacity": 0.6},
            hovertemplate=f"raw pixels: {percent(raw)}<extra></extra>",
            showlegend=False,
        )
    return fig


def feature_spectra(comparison: Comparison) -> go.Figure | None:
    """The centred spectra of the features that were measured, or saved, with squares that sum to 1."""
    fig = figure("index of the singular value (1 = largest)", "singular value, relative", 360)
    log_axis(fig)
    for place, arm in enumerate(comparison.arms):
        saved = arm.subjects[0].kind == "embeddings"
        summaries = arm.summaries(arm.tap if saved else FEATURES)
        for summary in summaries:
            values = None if summary.spectrum is None else relative(summary.spectrum)
            if values is None:
                continue
            more = {"width": 1.0, "opacity": 0.6} if len(summaries) > 1 else {}
            dash = "dot" if saved else "solid"  # of images of their own
            kept = np.where(values > FLOOR, values, 0)
            spectrum_line(fig, kept, arm.name, arm_colour(place), showlegend=False, dash=dash, **more)
    return fig if fig.data else None
