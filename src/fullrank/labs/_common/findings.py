"""Findings of a lab: chapters of figures, claims, and the words around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fullrank.figures import Figure, Image, Table
from fullrank.labs._common.claims import Claim


@dataclass(frozen=True)
class Chapter:
    """A heading of the page with what stands under it.

    Attributes:
        title: the heading.
        items: figures, tables and images, in order; titles are unique in the lab, empty ones left out.
        lede: a sentence or two under the heading.
        layout: `two` or `three` figures in a row.
        ordered: its series stand in an order, so that their colours run along a ramp.
    """

    title: str
    items: Sequence[Figure | Table | Image]
    lede: str = ""
    layout: str = "two"
    ordered: bool = False

    @property
    def figures(self) -> list[Figure]:
        """Those of its items that are figures with something to show."""
        return [item for item in self.items if not isinstance(item, Table | Image) and not item.empty]


@dataclass(frozen=True)
class Findings:
    """Findings of a lab.

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
        return {item.title: item for chapter in self.chapters for item in chapter.figures}

    def tables(self) -> dict[str, Table]:
        """All tables, by title."""
        return {i.title: i for chapter in self.chapters for i in chapter.items if isinstance(i, Table)}
