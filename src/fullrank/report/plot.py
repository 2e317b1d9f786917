"""The strokes that every figure is made of: axes, lines, references, spectra; the page colours the axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fullrank.report.run.reading import Point, Run
from fullrank.report.style import GREY

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "band",
    "figure",
    "level_axis",
    "line",
    "log_axis",
    "null_line",
    "reference",
    "spectrum_line",
    "spectrum_map",
    "thin",
]

FLOOR = -4.0  # log10 of the smallest relative singular value that is told apart
MOST_POINTS, MOST_ROWS, MOST_COLUMNS = 2000, 256, 120


def figure(x: str, y: str, height: int = 320, **axes: Any) -> go.Figure:
    """An empty figure with titled axes; `axes` are further layout settings such as `yaxis_type="log"`."""
    import plotly.graph_objects as go

    fig = go.Figure()
    fig.update_layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 58, "r": 14, "t": 12, "b": 46},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "tracegroupgap": 0},
        xaxis={"title": {"text": x, "standoff": 8}, "zeroline": False, "nticks": 7},
        yaxis={"title": {"text": y, "standoff": 8}, "zeroline": False, "nticks": 6},
    )
    fig.update_layout(**axes)
    return fig


def line(
    fig: go.Figure,
    x: Sequence[float | None],
    y: Sequence[float | None],
    name: str,
    colour: str,
    hover: str,
    **more: Any,
) -> None:
    """Adds a line; `hover` is the text at a point, `meta` in `more` says which choices show it."""
    style = {"color": colour, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    marker = {"color": colour, "size": 6, **more.pop("marker", {})}
    more.setdefault("mode", "lines")
    fig.add_scatter(
        x=x, y=y, name=name, line=style, marker=marker, hovertemplate=hover + "<extra></extra>", **more
    )


def null_line(fig: go.Figure, points: Sequence[Point], name: str, colour: str, **more: Any) -> None:
    """Adds the dashed line of what isotropic noise of the same n and d would give."""
    if any(point.null is not None for point in points):
        hover = f"epoch %{{x}}<br>null {name}: %{{y:.4g}}"
        nulls = [point.null for point in points]
        more = {"marker": {"symbol": "line-ew-open", "size": 12}, **more}
        more["mode"] = "markers" if len(points) == 1 else "lines"  # a line of one point is invisible
        more = {"showlegend": False, "dash": "dash", "width": 1.4, "opacity": 0.75, **more}
        line(fig, [point.epoch for point in points], nulls, f"null {name}", colour, hover, **more)


def reference(fig: go.Figure, y: float, text: str, position: str = "top right") -> None:
    """Adds a thin level line with its meaning written on it."""
    style = {"color": GREY, "width": 1.2, "dash": "dot"}
    fig.add_hline(
        y=y,
        line=style,
        annotation_text=text,
        annotation_position=position,
        annotation_font={"size": 11, "color": GREY},
    )


def level_axis(fig: go.Figure, threshold: float | None) -> None:
    """Sets a level axis from 0 to above 1 and marks isotropic and the threshold of complete collapse."""
    highest = max((y for trace in fig.data for y in trace.y if y is not None), default=1.0)
    fig.update_yaxes(range=[0, max(1.12, 1.05 * highest)])
    reference(fig, 1.0, "isotropic: 1")
    if threshold is not None:
        reference(fig, threshold, f"below {threshold:g}: complete collapse")


def log_axis(fig: go.Figure) -> None:
    """Sets a logarithmic y axis with a label at each power of ten."""
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)


def band(run: Run) -> list[tuple[str, str]]:
    """Which taps and forms of spectrum a run has, in the order of its taps."""
    return [(tap, form) for tap in run.taps for form in ("centred", "unit") if run.spectra(tap, form)]


def spectrum_line(fig: go.Figure, values: Iterable[float], name: str, colour: str, **more: Any) -> None:
    """Adds one spectrum over its index; zeros are left out, as a logarithm has no place for them."""
    kept = [float(value) if value > 0 else None for value in values]
    hover = f"{name}<br>index %{{x}}: %{{y:.4g}}"
    line(fig, list(range(1, len(kept) + 1)), kept, name, colour, hover, **more)


def spectrum_map(fig: go.Figure, spectra: dict[int, Any], **more: Any) -> None:
    """Adds spectra over epochs as a heat map: log10 of each value relative to that epoch's largest."""
    import numpy as np

    epochs = _picked(sorted(spectra), MOST_COLUMNS)
    d = min(len(spectra[epoch]) for epoch in epochs)
    rows = [int(row) for row in np.unique(np.linspace(0, d - 1, min(d, MOST_ROWS)).round())]
    table = np.stack([spectra[epoch][:d] for epoch in epochs], axis=1)
    largest = table.max(axis=0)
    share = np.divide(table, largest, out=np.zeros_like(table), where=largest > 0)[rows]
    fig.add_heatmap(
        x=epochs,
        y=[row + 1 for row in rows],
        z=np.log10(np.maximum(share, 10.0**FLOOR)).astype(np.float32),
        zmin=FLOOR,
        zmax=0,
        colorscale="Cividis",
        colorbar={
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": [0, -1, -2, -3, -4],
            "ticktext": ["σ₁", "0.1 σ₁", "0.01 σ₁", "10⁻³ σ₁", "≤ 10⁻⁴ σ₁"],
        },
        hovertemplate="epoch %{x}, index %{y}<br>log₁₀ σ/σ₁ = %{z:.3f}<extra></extra>",
        **more,
    )


def thin(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """At most some 2,000 points of a long series; of every stretch the lowest and the highest stay.

    Example:
        >>> thin([1, 2, 3], [0.5, None, 0.2])
        ([1, 2, 3], [0.5, None, 0.2])
        >>> xs, ys = thin(range(100_000), [0.0] * 50_000 + [9.0] + [0.0] * 49_999)
        >>> len(xs) <= 2002, max(ys)
        (True, 9.0)
    """
    if len(x) <= MOST_POINTS:
        return list(x), list(y)
    stretch = math.ceil(2 * len(x) / MOST_POINTS)
    kept: set[int] = {0, len(x) - 1}
    for start in range(0, len(x), stretch):
        inside = range(start, min(start + stretch, len(x)))
        there = {index: value for index in inside if (value := y[index]) is not None}
        kept |= {min(there, key=there.__getitem__), max(there, key=there.__getitem__)} if there else {start}
    chosen = sorted(kept)
    return [x[index] for index in chosen], [y[index] for index in chosen]


def _picked(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
