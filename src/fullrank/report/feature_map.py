"""Features on a plane, drawn: for paper, and to point at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.features.maps import FeatureMap
from fullrank.figures import Lines
from fullrank.report.curves import class_points

if TYPE_CHECKING:
    import plotly.graph_objects as go


def map_figure(found: FeatureMap) -> Lines:
    """The map: a cloud for each class."""
    points = found.points
    clouds = class_points(found.places, points.labels, [f"image {i}" for i in points.indices], points.classes)
    return Lines(points.name, "", *found.axes, clouds)


def interactive_map(found: FeatureMap) -> go.Figure:
    """The map to point at: each point tells its image and its class."""
    from fullrank.figures.plotly import plot

    fig = plot(map_figure(found))
    fig.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": "#333"}, autosize=True)
    fig.update_layout(legend={"itemsizing": "constant"}, height=None)
    fig.update_layout(
        title={"text": found.points.name, "x": 0.01, "y": 0.99, "yanchor": "top", "font": {"size": 14}},
        margin={"t": 76},
    )
    grid = {"showgrid": True, "gridcolor": "#eee"}
    return fig.update_xaxes(**grid).update_yaxes(**grid)


def write_maps(found: FeatureMap, folder: Path) -> list[Path]:
    """Write `map.html`, `map.svg`, `map.pdf` and `map.png` into a folder."""
    from fullrank.figures.matplotlib import plot, save

    page = folder / "map.html"
    options: dict[str, Any] = {"include_plotlyjs": True, "default_height": "96vh"}
    interactive_map(found).write_html(page, config={"displaylogo": False}, **options)
    drawing = plot(map_figure(found))
    if found.axes[0].startswith("UMAP"):  # whose numbers mean nothing
        drawing.axes[0].set(xticks=[], yticks=[])
    return [page, *save(drawing, folder / "map")]
