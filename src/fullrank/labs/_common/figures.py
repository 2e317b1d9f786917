"""What a lab shows, as numbers: one description is drawn on the page, for a paper, and kept in `lab.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullrank.labs._common.claims import Claim

__all__ = ["Chapter", "Dots", "Figure", "Findings", "Heat", "Lines", "Picture", "Series", "Table"]

Number: TypeAlias = float | None


@dataclass(frozen=True)
class Series:
    """One arm's curve.

    Attributes:
        name: of the arm; the same name has the same colour in all figures of a chapter.
        x: places.
        ys: by seed, a value for each place, None where there is none; drawn as their mean, and a band from
            the lowest to the highest.
        dash: `solid`, `dash`, `dot`, or `points`: not joined.
    """

    name: str
    x: Sequence[float]
    ys: Sequence[Sequence[Number]]
    dash: str = "solid"

    def summary(self) -> tuple[list[Number], list[Number], list[Number]]:
        """Mean, lowest and highest over seeds at each place.

        Example:
            >>> Series("a", [0, 1], [[1.0, None], [3.0, None]]).summary()
            ([2.0, None], [1.0, None], [3.0, None])
        """
        columns = [[y for y in column if y is not None] for column in zip(*self.ys, strict=True)]
        summaries = ([float(f(c)) if c else None for c in columns] for f in (np.mean, min, max))
        mean, low, high = summaries
        return mean, low, high


@dataclass(frozen=True)
class Lines:
    """Curves.

    Attributes:
        title: unique in the lab; names the files for a paper.
        note: how to read it, in a sentence.
        x: label with unit.
        y: label with unit.
        series: curves; a figure without any is not drawn.
        references: level lines, by what they mean.
        marks: upright lines, by what happened there.
        log_x, log_y: logarithmic axes.
        percent: y is a share, shown as per cent.
        y_range: so that small multiples share one axis.
    """

    title: str
    note: str
    x: str
    y: str
    series: Sequence[Series]
    references: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    y_range: tuple[float, float] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(y is not None for s in self.series for ys in s.ys for y in ys)


@dataclass(frozen=True)
class Dots:
    """One value for each arm and seed: a dot a seed, a bar at their mean.

    Attributes:
        title, note: as in `Lines`.
        x: label of the values, with unit.
        values: arm to values by seed.
        references: upright lines, by what they mean.
        percent: the values are shares.
    """

    title: str
    note: str
    x: str
    values: Mapping[str, Sequence[Number]]
    references: Mapping[str, float] = field(default_factory=dict)
    percent: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(y is not None for found in self.values.values() for y in found)


@dataclass(frozen=True)
class Heat:
    """A matrix as an image.

    Attributes:
        title, note, x, y: as in `Lines`.
        z: rows, top to bottom, of values from left to right.
        z_label: what they are.
        diverging: colours around zero.
    """

    title: str
    note: str
    x: str
    y: str
    z: Sequence[Sequence[Number]]
    z_label: str = ""
    diverging: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.z)


@dataclass(frozen=True)
class Table:
    """A table; a list of numbers in it is shown as mean ± standard deviation over seeds.

    Attributes:
        title, note: as in `Lines`.
        columns: heads; the first is that of the row's name.
        rows: cells: text, a number, or numbers by seed.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Number | Sequence[Number]]]


@dataclass(frozen=True)
class Picture:
    """An image file that some cell wrote, as a sheet of views.

    Attributes:
        title, note: as in `Lines`.
        path: of the PNG.
    """

    title: str
    note: str
    path: Path

    @property
    def empty(self) -> bool:
        """Whether the file is missing."""
        return not self.path.is_file()


Figure: TypeAlias = Lines | Dots | Heat


@dataclass(frozen=True)
class Chapter:
    """A heading of the page with what stands under it; titles of its items are unique in the lab.

    Attributes:
        title: the heading.
        items: figures, tables and pictures, in order; empty ones are left out.
        lede: a sentence or two under the heading.
        layout: `two` or `three` figures in a row.
        ordered: its series stand in an order, so that their colours run along a ramp.
    """

    title: str
    items: Sequence[Figure | Table | Picture]
    lede: str = ""
    layout: str = "two"
    ordered: bool = False


@dataclass(frozen=True)
class Findings:
    """What a lab comes to.

    Attributes:
        chapters: of the page.
        claims: what the paper says, judged.
        seen: what was seen here, a paragraph made from the numbers.
        notes: what could not be done here, a line each.
    """

    chapters: Sequence[Chapter]
    claims: Sequence[Claim]
    seen: str
    notes: Sequence[str] = ()

    def figures(self) -> dict[str, Figure]:
        """All figures that have something to show, by title."""
        items = [item for chapter in self.chapters for item in chapter.items]
        return {
            item.title: item for item in items if not isinstance(item, Table | Picture) and not item.empty
        }

    def tables(self) -> dict[str, Table]:
        """All tables, by title."""
        return {i.title: i for chapter in self.chapters for i in chapter.items if isinstance(i, Table)}


def numbers_of(item: Figure | Table) -> dict[str, Any]:
    """A figure or table as JSON holds it.

    Example:
        >>> numbers_of(Dots("t", "n", "x", {"a": [1.0, None]}))["values"]
        {'a': [1.0, None]}
    """
    plain: dict[str, Any] = {"kind": type(item).__name__.lower()}
    for name, value in vars(item).items():
        plain[name] = [vars(series) for series in value] if name == "series" else value
    return plain
