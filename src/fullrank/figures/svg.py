"""Figures for a page, as SVG that needs no script.

Colours of axes and words are the page's. Beside each drawing are its numbers as JSON, from which the page's
script says what is pointed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

from fullrank.figures.axes import Axis
from fullrank.figures.description import Dots, Figure, Heat, Lines, Number, Series, few_whole
from fullrank.figures.label_places import place_label
from fullrank.figures.raster import colour_bar, picture
from fullrank.figures.style import BLUE, GREY, PALETTE

WIDTH = 460  # of the drawing; the page scales it to the card
SCALE = WIDTH / 525  # a card's width on a wide screen
ROW = 30  # pixels that an arm takes among dots
LETTER = 6.1  # width of one, about
DASHES = {"dash": "6 4", "dot": "1.5 3.5"}
MOST_CELLS = 40_000  # of a matrix, up to which its values are said


@dataclass(frozen=True)
class Drawing:
    """One drawn figure.

    Attributes:
        svg: the drawing.
        data: its numbers as JSON, for the script.
        keys: number, name, colour, dash and whether it is hidden, of what the legend names.
        of: what it belongs to, such as its tap and form of spectrum.
    """

    svg: str
    data: str
    keys: Sequence[tuple[int, str, str, str, bool]] = ()
    of: Mapping[str, str] = field(default_factory=dict)


def plot(
    item: Figure,
    colours: Mapping[str, str] | None = None,
    legend: bool = True,
    of: Mapping[str, str] | None = None,
) -> Drawing:
    """Draw one figure, with colours by the names of its series or arms.

    With `legend` it has one of its own where there is something to tell apart; `of` is what it belongs to.

    Example:
        >>> plot(Dots("t", "n", "x", {"a": [1.0, 2.0]})).svg[:4]
        '<svg'
    """
    colours, of = colours or {}, of or {}
    if isinstance(item, Lines):
        return _Lines(item, colours).drawing(legend, of)
    return _dots(item, colours, of) if isinstance(item, Dots) else _heat(item, of)


@dataclass(frozen=True)
class _Frame:
    """The plane of a drawing inside its margins, and what is written around it."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float
    full: float

    def svg(self, inside: Iterable[str], x: str, y: str, more: Iterable[str] = (), title: str = "") -> str:
        """The whole drawing; `inside` is clipped to the plane and has its own origin."""
        bottom, right = self.top + self.height, self.left + self.width
        grid, words = [], []
        last = -math.inf
        for value, text in self.x.ticks():
            place = self.left + self.x(value)
            grid.append(f"M{_n(place)} {_n(self.top)}V{_n(bottom)}")
            half = max(map(len, text.split(" "))) * LETTER / 2 if self.x.names else len(text) * LETTER / 2
            if place - half < last + 4:
                continue
            last = place + half
            lines = text.split(" ") if self.x.names else [text]
            words += [_text(place, bottom + 15 + 12 * k, line, "middle") for k, line in enumerate(lines)]
        for value, text in self.y.ticks():
            place = self.top + self.y(value)
            grid.append(f"M{_n(self.left)} {_n(place)}H{_n(right)}")
            words.append(_text(self.left - 7, place + 4, text, "end"))
        words.append(_text(self.left + self.width / 2, self.full - 5, x, "middle", "axis"))
        if y:
            middle = self.top + self.height / 2
            turn = f' transform="rotate(-90 12 {_n(middle)})"'
            words.append(_text(12, middle, y, "middle", "axis", turn))
        return (
            f'<svg viewBox="0 0 {WIDTH} {_n(self.full)}" xmlns="http://www.w3.org/2000/svg">'
            f'<path class="grid" d="{"".join(grid)}"/>'
            f'<svg x="{_n(self.left)}" y="{_n(self.top)}" width="{_n(self.width)}" '
            f'height="{_n(self.height)}" overflow="hidden">{"".join(inside)}</svg>'
            f"{''.join(words)}{''.join(more)}</svg>"
        )

    def data(self, series: list[dict[str, Any]], **more: Any) -> str:
        """The numbers as JSON; nothing inside can close a script element."""
        axes = {
            name: {"low": axis.low, "high": axis.high, "log": axis.log, "percent": axis.percent}
            for name, axis in (("x", self.x), ("y", self.y))
        }
        box = [round(v, 2) for v in (self.left, self.top, self.width, self.height)]
        found = {"box": box, **axes, **more, "series": series}
        return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


class _Lines:
    """Drawing of curves."""

    def __init__(self, item: Lines, colours: Mapping[str, str]) -> None:
        self.item = item
        self.colours = [s.colour or colours.get(s.name, BLUE) for s in item.series]
        self.summaries = [s.summary() for s in item.series]
        height = item.height * SCALE
        named = item.named_places
        ys = [y for found in self.summaries for part in found for y in part]
        for series, (means, _, _) in zip(item.series, self.summaries, strict=True):
            bars = zip(means, series.whiskers, strict=False)
            ys += [m + sign * w for m, w in bars if m is not None and w is not None for sign in (-1, 1)]
        ys += item.references.values()
        y = Axis.over(ys, 0, 0, log=item.log_y, percent=item.percent)
        low, high = y.low, y.high
        if item.y_range is not None:
            low = low if item.log_y and not item.y_range[0] else item.y_range[0]
            high = high if item.y_range[1] is None else item.y_range[1]
        tall = 12 * max((name.count(" ") for name in named), default=0)
        top, bottom = 10.0, 40.0 + tall
        y = Axis(low, high, height - top - bottom, 0, item.log_y, item.percent)
        widest = max((len(text) for _, text in y.ticks()), default=1)
        left = 30 + LETTER * widest
        width = WIDTH - left - 12
        xs = [x for series in item.series for x in series.x] + list(item.marks.values())
        pad = 0.06 if named and not item.log_x else 0.02
        how: dict[str, Any] = {"log": item.log_x, "percent": item.percent_x, "whole": item.whole_x}
        how |= {"names": named, "most": 7}
        x = Axis.over(xs, 0, width, pad=pad, **how)
        if item.x_range is not None:
            x = Axis(*item.x_range, 0, width, **how)
        self.frame = _Frame(x, y, left, top, width, height - top - bottom, height)

    def drawing(self, legend: bool, of: Mapping[str, str]) -> Drawing:
        """Everything in its order: bands, curves, lines of reference."""
        item, first = self.item, self.item.named
        legend = legend and (len(first) > 1 or not all(series.legend for series in item.series))
        inside, keys, data = [], [], []
        for k, (series, colour) in enumerate(zip(item.series, self.colours, strict=True)):
            hidden = ' style="display:none"' if series.hidden else ""
            opacity = f' opacity="{series.opacity:g}"' if series.opacity < 1 else ""
            inside.append(f'<g data-series="{k}"{hidden}{opacity}>{"".join(self._curve(k))}</g>')
            data.append(self._said(k, colour))
            if legend and first.get(series.name) is series:
                keys.append((k, series.name, colour, series.dash, series.hidden))
        words = [*self._references(), *self._marks()]
        where = item.x.split(" (")[0]
        svg = self.frame.svg(inside, item.x, item.y, words)
        numbers = self.frame.data(data, where=where, names={f"{x:g}": name for name, x in item.ticks.items()})
        return Drawing(svg, numbers, keys, of)

    def _said(self, k: int, colour: str) -> dict[str, Any]:
        series = self.item.series[k]
        ys = self.summaries[k][0]
        pairs = [(x, y) for x, y in zip(series.x, ys, strict=True)]
        found: dict[str, Any] = {
            "name": series.hover or series.name,
            "colour": colour,
            "x": [_short(x) for x, _ in pairs],
            "y": [_short(y) for _, y in pairs],
        }
        return found | ({"at": list(series.at)} if series.at else {})

    def _places(self, xs: Sequence[float], ys: Sequence[Number]) -> list[tuple[float, float] | None]:
        x, y = self.frame.x, self.frame.y
        return [
            (x(a), y(b)) if b is not None and x.shows(a) and y.shows(b) else None
            for a, b in zip(xs, ys, strict=True)
        ]

    def _curve(self, k: int) -> Iterable[str]:
        series, colour = self.item.series[k], self.colours[k]
        mean, low, high = self.summaries[k]
        places = self._places(series.x, mean)
        if len(series.ys) > 1:
            yield _band(self._places(series.x, low), self._places(series.x, high), colour)
        if series.fill:
            foot = self.frame.y(0.0) if not self.item.log_y else self.frame.height
            yield _band(places, [p and (p[0], foot) for p in places], colour)
        if series.dash != "points":
            dash = f' stroke-dasharray="{DASHES[series.dash]}"' if series.dash in DASHES else ""
            d = _path(places, gaps=self.item.log_y)
            yield f'<path class="line" d="{d}" stroke="{colour}" stroke-width="{series.width:g}"{dash}/>'
        if series.marked:
            yield _markers([p for p in places if p], series, colour)
        for place, m, half in zip(places, mean, series.whiskers, strict=False):
            if place and m is not None and half is not None:
                ends = [
                    self.frame.y(v) if self.frame.y.shows(v) else self.frame.height
                    for v in (m - half, m + half)
                ]
                yield f'<path class="line" d="M{_n(place[0])} {_n(ends[0])}V{_n(ends[1])}" stroke="{GREY}"/>'

    def _references(self) -> Iterable[str]:
        """Level lines with their meaning on them, where the curves are not."""
        frame, item = self.frame, self.item
        means = [[y for y in found[0] if y is not None] for found in self.summaries]
        ends = [known[-1] for known in means if known]
        shown = zip(item.series, self.summaries, strict=True)
        curves = [self._places(series.x, found[0]) for series, found in shown if not series.hidden]
        for text, y in item.references.items():
            if not frame.y.shows(y):
                continue
            place = frame.top + frame.y(y)
            below = sum(end > y for end in ends) > len(ends) / 2 and place < frame.top + 0.9 * frame.height
            right = frame.left + frame.width
            plane = frame.width, frame.height
            end, below = place_label(curves, place - frame.top, LETTER * len(text) + 3, plane, below)
            yield f'<path class="reference" d="M{_n(frame.left)} {_n(place)}H{_n(right)}"/>'
            yield _text(frame.left + end - 3, place + (13 if below else -4), text, "end", "word")

    def _marks(self) -> Iterable[str]:
        """Upright lines with what happened there."""
        frame = self.frame
        for k, (text, x) in enumerate(self.item.marks.items()):
            place = frame.left + frame.x(x)
            late = place > frame.left + 0.6 * frame.width
            yield f'<path class="reference" d="M{_n(place)} {_n(frame.top)}V{_n(frame.top + frame.height)}"/>'
            anchor = "end" if late else "start"
            yield _text(place + (-4 if late else 4), frame.top + 11 + 14 * k, text, anchor, "word")


def _dots(item: Dots, colours: Mapping[str, str], of: Mapping[str, str]) -> Drawing:
    arms = list(item.values)
    names = [name if len(name) <= 28 else f"{name[:27]}…" for name in arms]
    left = 14 + LETTER * max(map(len, names), default=1)
    top = 12.0 + 14 * bool(item.references)
    height = (ROW if len(arms) < 8 else ROW - 8) * max(len(arms), 1)
    width = WIDTH - left - 14
    values = [v for known in item.known.values() for v in known]
    x = Axis.over([*values, *item.references.values()], 0, width, pad=0.05, percent=item.percent, most=5)
    ticks = {name: float(k) for k, name in enumerate(names)}
    y = Axis(-0.5, len(arms) - 0.5, 0, height, names=ticks)
    frame = _Frame(x, y, left, top, width, height, top + height + 40)
    inside, data = [], []
    for arm, xs in item.known.items():
        colour, k = colours.get(arm, PALETTE[0]), arms.index(arm)
        place, mean = y(k), sum(xs) / len(xs)
        dots = "".join(f"M{_n(x(v))} {_n(place)}h0" for v in xs)
        inside.append(
            f'<g data-series="{k}"><path class="line" stroke="{colour}" stroke-width="2" '
            f'd="M{_n(x(min(xs)))} {_n(place)}H{_n(x(max(xs)))}"/>'
            f'<path class="dots" d="{dots}" stroke="{colour}" stroke-width="7" opacity="0.75"/>'
            f'<path class="line" stroke="{colour}" stroke-width="3" d="M{_n(x(mean))} {_n(place - 9)}v18"/>'
            "</g>"
        )
        said = [_short(v) for v in (*xs, mean)]
        at = [*[""] * len(xs), "mean"] if len(xs) > 1 else ["", ""]
        data.append({"name": arm, "colour": colour, "x": said, "y": [k] * len(said), "at": at})
    words = []
    for text, value in item.references.items():
        place = left + x(value)
        words.append(f'<path class="reference" d="M{_n(place)} {_n(top)}V{_n(top + height)}"/>')
        anchor = "end" if place > WIDTH - 60 else "start" if place < left + 40 else "middle"
        words.append(_text(place, top - 5, text, anchor, "word"))
    return Drawing(frame.svg(inside, item.x, "", words), frame.data(data, dots=True), (), of)


def _heat(item: Heat, of: Mapping[str, str]) -> Drawing:
    z = [list(row) for row in item.z]
    columns, rows = list(item.columns) or list(range(len(z[0]))), list(item.rows) or list(range(len(z)))
    height = item.height * SCALE
    edges_x, edges_y = _edges(columns), _edges(rows)
    top, bottom = 10.0, 40.0
    plane = height - top - bottom
    y = Axis(edges_y[0], edges_y[-1], 0, plane, whole=few_whole(rows))
    left = 30 + LETTER * max((len(text) for _, text in y.ticks()), default=1)
    bar_words = list(item.z_ticks) or ["−0.00"]
    room = 34 + LETTER * max(map(len, bar_words)) + 14 * bool(item.z_label and not item.z_ticks)
    x = Axis(edges_x[0], edges_x[-1], 0, WIDTH - left - room, whole=few_whole(columns), most=7)
    frame = _Frame(x, y, left, top, WIDTH - left - room, plane, height)
    known = [float(v) for row in z for v in row if v is not None and math.isfinite(v)]
    low, high = item.z_range or ((min(known), max(known)) if known else (0.0, 1.0))
    if item.diverging and item.z_range is None:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    high = high if high > low else low + 1.0
    size = f'width="{_n(frame.width)}" height="{_n(plane)}"'
    uri = picture(z, edges_x, edges_y, low, high, item.diverging)
    image = f'<image {size} preserveAspectRatio="none" href="{uri}"/>'
    scale = Axis(low, high, plane, 0, names=dict(item.z_ticks) or None, most=5)
    bar = WIDTH - room + 12
    words = [
        f'<image x="{_n(bar)}" y="{top}" width="10" height="{_n(plane)}" preserveAspectRatio="none" '
        f'href="{colour_bar(item.diverging)}"/>'
    ]
    words += [_text(bar + 14, top + scale(v) + 4, text, "start") for v, text in scale.ticks()]
    if item.z_label and not item.z_ticks:
        middle = top + plane / 2
        turn = f' transform="rotate(-90 {WIDTH - 4} {_n(middle)})"'
        words.append(_text(WIDTH - 4, middle, item.z_label, "middle", "axis", turn))
    said_too = item.said and len(z) * len(columns) <= MOST_CELLS
    cells = [[_short(v, 3) for v in row] for row in z] if said_too else []
    more = {"edges": [edges_x, edges_y], "columns": columns, "rows": rows, "cells": cells}
    said = frame.data([], **more, where=item.x, row=item.y.split(" (")[0])
    return Drawing(frame.svg([image], item.x, item.y, words), said, (), of)


def _edges(places: Sequence[float]) -> list[float]:
    """Edges between cells, halfway between their middles."""
    if len(places) == 1:
        return [places[0] - 0.5, places[0] + 0.5]
    inner = [(a + b) / 2 for a, b in pairwise(places)]
    return [float(2 * places[0] - inner[0]), *map(float, inner), float(2 * places[-1] - inner[-1])]


def _path(places: Sequence[tuple[float, float] | None], gaps: bool) -> str:
    """A path through places; what is missing is passed over, or with `gaps` left open."""
    parts, begun = [], False
    for place in places:
        if place is None:
            begun = begun and not gaps
            continue
        parts.append(f"{'L' if begun else 'M'}{_n(place[0])} {_n(place[1])}")
        begun = True
    return "".join(parts)


def _band(
    low: Sequence[tuple[float, float] | None], high: Sequence[tuple[float, float] | None], colour: str
) -> str:
    there = [p for p in high if p]
    back = [p for p in reversed(low) if p]
    return f'<path d="{_path([*there, *back], False)}" fill="{colour}" opacity="0.16"/>' if there else ""


def _markers(places: Sequence[tuple[float, float]], series: Series, colour: str) -> str:
    r = series.size / 2
    if series.marker == "diamond":
        d = "".join(
            f"M{_n(x)} {_n(y - r - 1)}l{r + 1:g} {r + 1:g} {-r - 1:g} {r + 1:g} {-r - 1:g} {-r - 1:g}z"
            for x, y in places
        )
        return f'<path class="line" d="{d}" stroke="{colour}" stroke-width="1.3"/>'
    if series.marker == "bar":
        d = "".join(f"M{_n(x - r)} {_n(y)}h{2 * r:g}" for x, y in places)
        return f'<path class="line" d="{d}" stroke="{colour}" stroke-width="2"/>'
    d = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in places)
    return f'<path class="dots" d="{d}" stroke="{colour}" stroke-width="{series.size:g}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{named}{more}>{escape(text)}</text>'


def _n(value: float) -> str:
    """A place in pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def _short(value: Any, digits: int = 5) -> Number:
    """A number to a few digits, as the script says it."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
