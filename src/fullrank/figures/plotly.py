"""Figures for a page, with plotly; the page colours axes and background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log10
from typing import TYPE_CHECKING, Any

from fullrank.figures.description import Dots, Figure, Heat, Lines, Series, few_whole
from fullrank.figures.style import BLUE, GREY, PALETTE

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 34  # pixels that an arm takes among dots
SYMBOLS = {"diamond": "diamond-open", "bar": "line-ew-open"}
WORDS = {"size": 11, "color": GREY}
STEPS = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]  # labels of a short log axis
NARROW = {"tickvals": STEPS, "ticktext": [f"{step:g}" for step in STEPS]}
POWERS = {"exponentformat": "power", "tickfont": {"size": 10}}  # plotly enlarges them
DECADES = {"tickvals": None, "dtick": 1, **POWERS}


def plot(item: Figure, colours: Mapping[str, str] | None = None, legend: bool = True) -> go.Figure:
    """Draw one figure, with colours by the names of its series or arms.

    With `legend` it has one of its own where there is something to tell apart.
    """
    colours = colours or {}
    if isinstance(item, Lines):
        return _lines(item, colours, legend)
    return _dots(item, colours) if isinstance(item, Dots) else _heat(item)


def plot_choices(items: Mapping[tuple[str, ...], Figure]) -> go.Figure:
    """Draw several figures in one, of which the page shows the chosen.

    Traces carry their figure's key in `meta`: its tap, and the form of its spectrum if it has one.
    """
    figures = [
        plot(item).update_traces(meta=dict(zip(("tap", "form"), key, strict=False)))
        for key, item in items.items()
    ]
    first, *others = figures
    fig = first.add_traces([trace for other in others for trace in other.data])
    lines = [item for item in items.values() if isinstance(item, Lines)]
    if lines:
        _axes(fig, replace(lines[0], series=[series for item in lines for series in item.series]))
    return fig


def _empty(x: str, y: str, height: int) -> go.Figure:
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
    return fig


def _lines(item: Lines, colours: Mapping[str, str], legend: bool) -> go.Figure:
    fig = _empty(item.x, item.y, item.height)
    first = item.named
    legend = legend and (len(first) > 1 or not all(series.legend for series in item.series))
    for series in item.series:
        colour = series.colour or colours.get(series.name, BLUE)
        if len(series.ys) > 1:
            _band(fig, series, colour)
        _curve(fig, item, series, colour, legend and first.get(series.name) is series)
    for text, y in item.references.items():
        means = [[y for y in series.summary()[0] if y is not None] for series in item.series]
        ends = [known[-1] for known in means if known]
        low, high = item.y_range or (None, None)
        at_foot = low is not None and high is not None and not item.log_y and y < low + (high - low) / 10
        # the words go where the curves are not, and not onto the axis
        below = sum(end > y for end in ends) > len(ends) / 2 and not at_foot
        _reference(fig, "y", y, text, item.log_y, "bottom right" if below else "top right")
    for place, (text, x) in enumerate(item.marks.items()):
        _reference(fig, "x", x, text, item.log_x, "top right", annotation_yshift=-15 * place)
    _axes(fig, item)
    return fig


def _axes(fig: go.Figure, item: Lines) -> None:
    if item.log_y:
        fig.update_yaxes(type="log", **(NARROW if item.narrow else DECADES))
    if item.log_x:
        fig.update_xaxes(type="log", tickformat="~g")
    if item.named_places:
        words = [name.replace(" ", "<br>") for name in item.named_places]
        fig.update_xaxes(tickvals=list(item.named_places.values()), ticktext=words)
    else:
        fig.update_xaxes(dtick=1 if item.whole_x else None)
    for share, update in ((item.percent, fig.update_yaxes), (item.percent_x, fig.update_xaxes)):
        if share:
            update(tickformat=".0%")
    if item.x_range:
        fig.update_xaxes(range=[log10(x) if item.log_x else x for x in item.x_range])
    if item.y_range and item.y_range[1] is None:
        fig.update_yaxes(rangemode="tozero")
    elif item.y_range:
        fig.update_yaxes(range=[log10(y) if item.log_y and y else y for y in item.y_range])


def _curve(fig: go.Figure, item: Lines, series: Series, colour: str, legend: bool) -> None:
    points = series.dash == "points"
    names = {x: name for name, x in item.ticks.items()}
    at = list(series.at) or [names.get(x, "") for x in series.x] * bool(names)
    x_name = item.x.split(" (")[0]
    where = "%{customdata}" if at else f"{x_name} %{{x:.1%}}" if item.percent_x else f"{x_name} %{{x}}"
    value = "%{y:.2%}" if item.percent else "%{y:.4g}"
    fig.add_scatter(
        x=list(series.x),
        y=series.summary()[0],
        name=series.name,
        mode="markers" if points else "lines+markers" if series.marked else "lines",
        line={"color": colour, "width": series.width, "dash": "solid" if points else series.dash},
        marker={"color": colour, "size": series.size, "symbol": SYMBOLS.get(series.marker, "circle")},
        opacity=series.opacity,
        connectgaps=not item.log_y,  # a logarithm has no place for zero
        showlegend=legend,
        visible="legendonly" if series.hidden else True,
        customdata=at or None,
        error_y={"array": list(series.whiskers), "color": GREY, "thickness": 1.4}
        if series.whiskers
        else None,
        fill="tozeroy" if series.fill else None,
        fillcolor=_faint(colour),
        hovertemplate=f"{series.hover or series.name}<br>{where}: {value}<extra></extra>",
    )


def _band(fig: go.Figure, series: Series, colour: str) -> None:
    _, low, high = series.summary()
    known = [(x, a, b) for x, a, b in zip(series.x, low, high, strict=True) if a is not None]
    xs = [x for x, _, _ in known]
    fig.add_scatter(
        x=[*xs, *reversed(xs)],
        y=[*(b for _, _, b in known), *(a for _, a, _ in reversed(known))],
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


def _reference(
    fig: go.Figure, axis: str, value: float, text: str, log: bool, position: str, **more: Any
) -> None:
    """A thin line at a value of one axis with its meaning written on it."""
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    words = {"annotation_text": text, "annotation_position": position, "annotation_font": WORDS, **more}
    (fig.add_hline if axis == "y" else fig.add_vline)(**{axis: value}, line=line, **words)
    if log:
        fig.layout.annotations[-1][axis] = log10(value)  # plotly places lines by value, words by logarithm


def _dots(item: Dots, colours: Mapping[str, str]) -> go.Figure:
    rows = len(item.values)
    fig = _empty(item.x, "", 110 + (ROW if rows < 8 else ROW - 10) * rows)
    value = "%{x:.2%}" if item.percent else "%{x:.4g}"
    for arm, xs in item.known.items():
        colour = colours.get(arm, PALETTE[0])
        mean = {"color": colour, "size": 18, "symbol": "line-ns-open", "line": {"width": 3}}
        traces: list[tuple[str, list[float], dict[str, Any]]] = [
            ("", [min(xs), max(xs)], {"mode": "lines", "line": {"color": colour, "width": 2}}),
            (arm, xs, {"mode": "markers", "marker": {"color": colour, "size": 7, "opacity": 0.75}}),
            (f"{arm}, mean", [sum(xs) / len(xs)], {"mode": "markers", "marker": mean}),
        ]
        for name, places, how in traces:
            hover = {"hovertemplate": f"{name}: {value}<extra></extra>"} if name else {"hoverinfo": "skip"}
            fig.add_scatter(x=places, y=[arm] * len(places), showlegend=False, **hover, **how)
    for text, x in item.references.items():
        _reference(fig, "x", x, text, False, "top")
    if item.references:
        fig.update_layout(margin={"t": 28})
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=list(item.values)[::-1], dtick=1)
    fig.update_yaxes(range=[-0.6, rows - 0.4])
    fig.update_xaxes(nticks=5, tickangle=0, tickformat=".0%" if item.percent else None)
    return fig


def _heat(item: Heat) -> go.Figure:
    fig = _empty(item.x, item.y, item.height)
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0}
    if item.z_ticks:
        bar |= {"tickvals": list(item.z_ticks.values()), "ticktext": list(item.z_ticks)}
    else:
        bar["title"] = {"text": item.z_label, "side": "right"}
    low, high = item.z_range or (None, None)
    fig.add_heatmap(
        x=list(item.columns) or None,
        y=list(item.rows) or None,
        z=item.z if hasattr(item.z, "dtype") else [list(row) for row in item.z],
        colorbar=bar,
        colorscale="RdBu_r" if item.diverging else "Cividis",
        zmid=0 if item.diverging else None,
        zmin=low,
        zmax=high,
        hovertemplate=f"{item.x} %{{x}}, {item.y.split(' (')[0]} %{{y}}: %{{z:.3f}}<extra></extra>",
    )
    fig.update_xaxes(dtick=1 if few_whole(item.columns) else None)
    fig.update_yaxes(autorange="reversed")
    return fig
