"""Descriptions of figures: curves, dots, matrices, tables and images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Number: TypeAlias = float | None


def _drawing(default: Any) -> Any:
    """A field that only says how something is drawn: JSON leaves it out."""
    return field(default_factory=lambda: default, metadata={"drawing": True})


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: of the arm; the same name has the same colour in all figures of a chapter.
        x: places.
        ys: by seed, a value for each place, None where there is none; drawn as their mean, and a band from
            the lowest to the highest.
        dash: `solid`, `dash`, `dot`, or `points`: not joined.
        colour: its own; empty: that of its name.
        width, size: of the line and of its markers, in pixels.
        opacity: from 0 to 1.
        marker: `circle`, `diamond` or `bar` at every value; empty: a circle where there are few; `line`: only
            where there is one; `none`.
        legend: whether the legend names it.
        hidden: it waits in the page's legend, and is not printed.
        fill: coloured down to zero.
        whiskers: half the length of the error bar at each place.
        at: what to say of each place when it is pointed at.
        hover: what to say of the curve when it is pointed at; empty: its name.
    """

    name: str
    x: Sequence[float]
    ys: Sequence[Sequence[Number]]
    dash: str = "solid"
    colour: str = _drawing("")
    width: float = _drawing(2.0)
    size: float = _drawing(5.0)
    opacity: float = _drawing(1.0)
    marker: str = _drawing("")
    legend: bool = _drawing(True)
    hidden: bool = _drawing(False)
    fill: bool = _drawing(False)
    whiskers: Sequence[Number] = _drawing(())
    at: Sequence[str] = _drawing(())
    hover: str = _drawing("")

    def summary(self) -> tuple[list[Number], list[Number], list[Number]]:
        """Mean, lowest and highest over seeds at each place.

        Example:
            >>> Series("a", [0, 1], [[1.0, None], [3.0, None]]).summary()
            ([2.0, None], [1.0, None], [3.0, None])
        """
        columns = [[y for y in column if y is not None] for column in zip(*self.ys, strict=True)]
        mean, low, high = ([float(f(c)) if c else None for c in columns] for f in (np.mean, min, max))
        return mean, low, high

    @property
    def marked(self) -> bool:
        """Whether its values have markers: a line of one point would be invisible."""
        few = {"": len(self.x) <= 30, "line": len(self.x) == 1, "none": False}
        return self.dash == "points" or few.get(self.marker, True)


def few_whole(places: Iterable[float]) -> bool:
    """Whether places are whole numbers, so few that ticks could fall between them.

    Example:
        >>> few_whole([0, 1, 2]), few_whole([0, 100]), few_whole([0.5, 1])
        (True, False, False)
    """
    kept = sorted(places)
    return bool(kept) and kept[-1] - kept[0] <= 7 and all(float(x).is_integer() for x in kept)


def curve(
    name: str, x: Iterable[float], y: Iterable[Number], colour: str, dash: str = "solid", **drawing: Any
) -> Series:
    """A series of one seed.

    Example:
        >>> curve("a", [1, 2], [0.5, None], "#000000").ys
        [[0.5, None]]
    """
    return Series(name, list(x), [list(y)], dash, colour=colour, **drawing)


@dataclass(frozen=True)
class Titled:
    """Anything with a heading.

    Attributes:
        title: unique on a page; names the files for a paper where nothing else does.
        note: how to read it, in a sentence.
    """

    title: str
    note: str


@dataclass(frozen=True)
class Lines(Titled):
    """Curves.

    Attributes:
        x, y: labels with unit.
        series: curves; a figure without any is not drawn.
        references: level lines, by what they mean.
        marks: upright lines, by what happened there.
        log_x, log_y: logarithmic axes.
        percent: y is a share, shown as per cent.
        y_range: so that small multiples share one axis; (0, None) begins at zero.
        x_range: where the places begin and end.
        percent_x: x is a share, too.
        ticks: places on x that have a name.
        height: in pixels.
    """

    x: str
    y: str
    series: Sequence[Series]
    references: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    y_range: tuple[float, float | None] | None = None
    x_range: tuple[float, float] | None = _drawing(None)
    percent_x: bool = _drawing(False)
    ticks: Mapping[str, float] = _drawing({})
    height: int = _drawing(320)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(y is not None for s in self.series for ys in s.ys for y in ys)

    @property
    def named_places(self) -> dict[str, float]:
        """Labelled places on x: those of `ticks`, or a few on a logarithmic axis."""
        places = sorted({x for series in self.series for x in series.x})
        few = self.log_x and len(places) <= 8
        inside = {name: x for name, x in self.ticks.items() if not self.log_x or places[0] <= x <= places[-1]}
        return inside or ({f"{x:g}": x for x in places} if few else {})

    @property
    def named(self) -> dict[str, Series]:
        """Series that the legend names: the first of each name."""
        return {series.name: series for series in reversed(self.series) if series.legend}

    @property
    def whole_x(self) -> bool:
        """Whether ticks of x belong at whole numbers alone, such as a few epochs."""
        return not self.log_x and not self.percent_x and few_whole(x for s in self.series for x in s.x)

    @property
    def narrow(self) -> bool:
        """Whether a logarithmic axis needs more labels than the powers of ten."""
        values = [y for s in self.series for ys in s.ys for y in ys if y is not None and y > 0]
        return bool(values) and max(values) < 50 * min(values)


@dataclass(frozen=True)
class Dots(Titled):
    """One value for each arm and seed: a dot a seed, a bar at their mean.

    Attributes:
        x: label of the values, with unit.
        values: arm to values by seed.
        references: upright lines, by what they mean.
        percent: the values are shares.
    """

    x: str
    values: Mapping[str, Sequence[Number]]
    references: Mapping[str, float] = field(default_factory=dict)
    percent: bool = False

    @property
    def known(self) -> dict[str, list[float]]:
        """Values that are there, of arms that have any."""
        known = {arm: [y for y in values if y is not None] for arm, values in self.values.items()}
        return {arm: values for arm, values in known.items() if values}

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.known


@dataclass(frozen=True)
class Heat(Titled):
    """A matrix as an image.

    Attributes:
        x, y: as in `Lines`.
        z: rows, top to bottom, of values from left to right.
        z_label: what they are.
        diverging: colours around zero.
        columns, rows: where they lie; empty: one after the other.
        z_range: what the darkest and the brightest colour stand for.
        z_ticks: values that have a name.
        height: in pixels.
        said: whether a cell tells its value when it is pointed at.
    """

    x: str
    y: str
    z: Sequence[Sequence[Number]]
    z_label: str = ""
    diverging: bool = False
    columns: Sequence[float] = _drawing(())
    rows: Sequence[float] = _drawing(())
    z_range: tuple[float, float] | None = _drawing(None)
    z_ticks: Mapping[str, float] = _drawing({})
    height: int = _drawing(340)
    said: bool = _drawing(True)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.z)


@dataclass(frozen=True)
class Table(Titled):
    """A table; numbers by seed are shown as mean ± standard deviation.

    Attributes:
        columns: heads; the first is that of the row's name.
        rows: cells: text, a number, or numbers by seed.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Number | Sequence[Number]]]


@dataclass(frozen=True)
class Image(Titled):
    """A PNG file, such as a sheet of views."""

    path: Path

    @property
    def empty(self) -> bool:
        """Whether the file is missing."""
        return not self.path.is_file()


Figure: TypeAlias = Lines | Dots | Heat


def numbers_of(item: Figure | Table) -> dict[str, Any]:
    """A figure or table as JSON holds it: what it says, not how it is drawn.

    Example:
        >>> numbers_of(Dots("t", "n", "x", {"a": [1.0, None]}))["values"]
        {'a': [1.0, None]}
    """
    plain = {"kind": type(item).__name__.lower(), **_said(item)}
    if isinstance(item, Lines):
        plain["series"] = [_said(series) for series in item.series]
    return plain


def _said(item: Any) -> dict[str, Any]:
    return {f.name: getattr(item, f.name) for f in fields(item) if "drawing" not in f.metadata}
