"""Features on a plane, drawn: for paper, and to point at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fullrank.features.maps import FeatureMap
from fullrank.report.style import BLUE, GREY, PALETTE, RED

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

__all__ = ["interactive_map", "paper_map", "write_maps"]

CLASSES = (*PALETTE, RED, "#6b7fd7", "#8c6d46", "#7c9a2e")
MOST_CLASSES = len(CLASSES)  # beyond it colours repeat, and a legend says nothing


def _groups(found: FeatureMap) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, colour and rows of each class; those without a label first, so that they lie below."""
    labels, classes = found.points.labels, found.points.classes
    if labels is None:
        yield "", BLUE, np.arange(len(found.places))
        return
    for label in np.unique(labels):
        named = classes is not None and 0 <= label < len(classes)
        name = "no label" if label < 0 else classes[label] if named and classes else f"class {label}"
        yield name, GREY if label < 0 else CLASSES[label % MOST_CLASSES], np.flatnonzero(labels == label)


def paper_map(found: FeatureMap) -> Figure:
    """The map for a column of a paper; a legend where there are few classes."""
    from fullrank.report.paper_style import one_axes, style

    with style():
        figure, axes = one_axes(*found.axes, height=2.9)
        groups = list(_groups(found))
        size = float(np.clip(3000 / len(found.places), 1.5, 10))
        for name, colour, rows in groups:
            x, y = found.places[rows].T
            axes.scatter(x, y, s=size, c=colour, alpha=0.6, linewidths=0, label=name)
        if 1 < len(groups) <= MOST_CLASSES + 1:
            legend = axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=min(5, len(groups)), borderaxespad=0.2,
                handletextpad=0.1, columnspacing=0.8, markerscale=(20 / size) ** 0.5,
            )  # fmt: skip
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set_alpha(1)
        if found.axes[0].startswith("UMAP"):  # whose numbers mean nothing
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def interactive_map(found: FeatureMap) -> go.Figure:
    """The map to point at: each point tells its image and its class."""
    from fullrank.report.plot import figure

    fig = figure(*found.axes)
    fig.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": "#333"}, autosize=True)
    fig.update_layout(legend={"itemsizing": "constant"}, height=None)
    fig.update_layout(
        title={"text": found.points.name, "x": 0.01, "y": 0.99, "yanchor": "top", "font": {"size": 14}},
        margin={"t": 76},
    )
    fig.update_xaxes(showgrid=True, gridcolor="#eee").update_yaxes(showgrid=True, gridcolor="#eee")
    groups = list(_groups(found))
    for name, colour, rows in groups:
        fig.add_scattergl(
            x=found.places[rows, 0],
            y=found.places[rows, 1],
            mode="markers",
            marker={"size": 5, "opacity": 0.65, "color": colour},
            name=name,
            customdata=found.points.indices[rows],
            hovertemplate=f"{name}<br>image %{{customdata}}<extra></extra>",
            showlegend=len(groups) > 1,
        )
    return fig


def write_maps(found: FeatureMap, folder: Path) -> list[Path]:
    """`map.html`, `map.svg`, `map.pdf` and `map.png` in a folder; the page needs no network."""
    from fullrank.report.paper_style import save

    page = folder / "map.html"
    options: dict[str, Any] = {"include_plotlyjs": True, "default_height": "96vh"}
    interactive_map(found).write_html(page, config={"displaylogo": False}, **options)
    return [page, *save(paper_map(found), folder / "map")]
