"""Draws a lab's figures on its page, with plotly: the strokes are those of every other page."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import TYPE_CHECKING, Any

from fullrank.labs._common.figures import Dots, Figure, Heat, Lines, Series
from fullrank.report.plot import figure, line, log_axis, reference
from fullrank.report.style import GREY, PALETTE, RED

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["colours_of", "draw"]

HUES = (*PALETTE, RED, GREY)
RAMP = ("#1d2f6f", "#2f8a86", "#e0a030")  # dark to light: readable in grey, and by the colour-blind
ROW = 34  # pixels that an arm takes among dots


def colours_of(names: list[str], ordered: bool = False) -> dict[str, str]:
    """One colour for each arm, in order; after eight they come again. Ordered ones run along a ramp.

    Example:
        >>> colours_of(["a", "b", "a"])["b"] == PALETTE[1]
        True
        >>> colours_of(["1", "2", "3"], ordered=True)["2"]
        '#2f8a86'
    """
    known = list(dict.fromkeys(names))
    if not ordered:
        return {name: HUES[place % len(HUES)] for place, name in enumerate(known)}
    return {name: _along_ramp(place / max(1, len(known) - 1)) for place, name in enumerate(known)}


def _along_ramp(share: float) -> str:
    """The colour at a share of the way along `RAMP`, from 0 to 1."""
    place = share * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    ends = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP[low : low + 2])
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*ends, strict=True))


def draw(item: Figure, colours: Mapping[str, str], legend: bool = False) -> go.Figure:
    """A figure of the page.

    Args:
        item: its description.
        colours: by the names of its series or arms.
        legend: whether it has a legend of its own.
    """
    if isinstance(item, Lines):
        return _lines(item, colours, legend)
    return _dots(item, colours) if isinstance(item, Dots) else _heat(item)


def _lines(item: Lines, colours: Mapping[str, str], legend: bool) -> go.Figure:
    fig = figure(item.x, item.y, 280)
    for series in item.series:
        _band(fig, series, colours[series.name])
    first = {series.name: series for series in reversed(item.series)}  # one entry of the legend for each name
    for series in item.series:
        value = "%{y:.2%}" if item.percent else "%{y:.4g}"
        hover = f"{series.name}<br>{item.x} %{{x}}: {value}"
        mean = series.summary()[0]
        points = series.dash == "points"
        mode = "markers" if points else "lines+markers" if len(series.x) <= 30 else "lines"
        more = {"mode": mode, "marker": {"size": 7 if points else 5}}
        dash = "solid" if points else series.dash
        line(
            fig,
            list(series.x),
            mean,
            series.name,
            colours[series.name],
            hover,
            dash=dash,
            connectgaps=True,
            showlegend=legend and first[series.name] is series,
            **more,
        )
    for text, y in item.references.items():
        reference(fig, y, text)
    for place, (text, x) in enumerate(item.marks.items()):
        fig.add_vline(
            x=x,
            line={"color": GREY, "width": 1.4, "dash": "dot"},
            annotation_text=text,
            annotation_position="top right",
            annotation_yshift=-15 * place,
            annotation_font={"size": 11, "color": GREY},
        )
    if item.log_y:
        log_axis(fig)
        for annotation in fig.layout.annotations[: len(item.references)]:
            annotation.y = log10(annotation.y)  # plotly places lines by value, but words by logarithm
    if item.log_x:
        places = sorted({x for series in item.series for x in series.x})
        few = {"tickvals": places, "ticktext": [f"{x:g}" for x in places]} if len(places) <= 8 else {}
        fig.update_xaxes(type="log", **few)
    if item.percent:
        fig.update_yaxes(tickformat=".0%")
    if item.y_range:
        fig.update_yaxes(range=[log10(y) if item.log_y else y for y in item.y_range])
    return fig


def _band(fig: go.Figure, series: Series, colour: str) -> None:
    """What the seeds span, as a faint band."""
    if len(series.ys) < 2:
        return
    _, low, high = series.summary()
    kept = [(x, a, b) for x, a, b in zip(series.x, low, high, strict=True) if a is not None]
    xs = [x for x, _, _ in kept]
    outline = [*[a for _, a, _ in kept], *[b for _, _, b in reversed(kept)]]
    fig.add_scatter(
        x=[*xs, *reversed(xs)],
        y=outline,
        fill="toself",
        fillcolor=_faint(colour),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        mode="lines",
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _dots(item: Dots, colours: Mapping[str, str]) -> go.Figure:
    fig = figure(item.x, "", 110 + (ROW if len(item.values) < 8 else ROW - 10) * len(item.values))
    value = "%{x:.2%}" if item.percent else "%{x:.4g}"
    for arm, found in item.values.items():
        xs = [x for x in found if x is not None]
        if not xs:
            continue
        colour = colours.get(arm, PALETTE[0])
        fig.add_scatter(
            x=[min(xs), max(xs)],
            y=[arm, arm],
            mode="lines",
            line={"color": colour, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
        fig.add_scatter(
            x=xs,
            y=[arm] * len(xs),
            mode="markers",
            marker={"color": colour, "size": 7, "opacity": 0.75},
            hovertemplate=f"{arm}: {value}<extra></extra>",
            showlegend=False,
        )
        fig.add_scatter(
            x=[sum(xs) / len(xs)],
            y=[arm],
            mode="markers",
            marker={"color": colour, "size": 18, "symbol": "line-ns-open", "line": {"width": 3}},
            hovertemplate=f"{arm}, mean: {value}<extra></extra>",
            showlegend=False,
        )
    for text, x in item.references.items():
        fig.add_vline(
            x=x,
            line={"color": GREY, "width": 1.2, "dash": "dot"},
            annotation_text=text,
            annotation_position="top",
            annotation_font={"size": 11, "color": GREY},
        )
    if item.references:
        fig.update_layout(margin={"t": 28})
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=list(item.values)[::-1], dtick=1)
    fig.update_yaxes(range=[-0.6, len(item.values) - 0.4])
    fig.update_xaxes(nticks=5, tickangle=0)
    if item.percent:
        fig.update_xaxes(tickformat=".0%")
    return fig


def _heat(item: Heat) -> go.Figure:
    fig = figure(item.x, item.y, 320)
    more: dict[str, Any] = {"colorscale": "RdBu", "zmid": 0} if item.diverging else {"colorscale": "Cividis"}
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": item.z_label, "side": "right"}}
    fig.add_heatmap(z=[list(row) for row in item.z], colorbar=bar, **more)
    fig.update_yaxes(autorange="reversed")
    return fig
