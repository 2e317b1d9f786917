"""Findings of a lab: claims judged by the seeds, chapters, words around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fullrank.figures import Figure, Image, Table
from fullrank.figures.style import number, typographic

RULE = (
    "Confirmed: every seed shows it. Not confirmed: no seed does. Not decidable: some do, or there are fewer "
    "than two."
)


@dataclass(frozen=True)
class Claim:
    """What a paper says, and whether it was seen here.

    Attributes:
        text: the claim.
        verdict: see `RULE`.
        evidence: the numbers, in a sentence.
        numbers: the numbers.
    """

    text: str
    verdict: Literal["confirmed", "not confirmed", "not decidable"]
    evidence: str
    numbers: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """A claim as JSON holds it."""
        return {"text": self.text, "verdict": self.verdict, "told": self.evidence, "numbers": self.numbers}


def holds(text: str, found: Sequence[bool], evidence: str, **numbers: Any) -> Claim:
    """A claim that seeds support or not (`found`); the count ends the evidence.

    Example:
        >>> holds("It collapses.", [True, True, False], "level 0.03").verdict
        'not decidable'
    """
    seen, of = sum(map(bool, found)), len(found)
    verdict: Any = "not decidable"
    if of > 1 and seen in (0, of):
        verdict = "confirmed" if seen else "not confirmed"
    count = f"{seen} of {of} seed{'s' * (of != 1)}"
    evidence = f"{evidence} ({count})" if of else "no seed has it"
    return Claim(text, verdict, evidence, {**numbers, "seen": seen, "of": of})


def above(
    text: str, these: Sequence[float], those: Sequence[float], this: str, that: str, margin: float = 0.0
) -> Claim:
    """A claim, by seed, that one value exceeds another by more than `margin`.

    Example:
        >>> above("A beats B.", [0.7, 0.8], [0.5, 0.6], "k-NN of A", "of B").evidence
        'k-NN of A 0.750 ± 0.071, of B 0.550 ± 0.071 (2 of 2 seeds)'
    """
    pairs = list(zip(these, those, strict=False))
    evidence = f"{this} {spread(these)}, {that} {spread(those)}"
    found = [high - low > margin for high, low in pairs]
    return holds(text, found, evidence, these=list(these), those=list(those), margin=margin)


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation (n - 1) over seeds, in words.

    Example:
        >>> spread([1.0, 2.0, 3.0]), spread([0.5]), spread([])
        ('2.00 ± 1.00', '0.500', '–')
    """
    found = [value for value in values if value is not None and np.isfinite(value)]
    if not found:
        return "–"
    mean = typographic(number(float(np.mean(found))))
    if len(found) == 1:
        return mean
    deviation = float(np.std(found, ddof=1))
    decimals = len(mean.rpartition(".")[2]) if "." in mean and "e" not in mean else 0
    small = f"{deviation:.{decimals}f}" if deviation < 1000 and "e" not in mean else number(deviation, 2)
    return f"{mean} ± {typographic(small)}"


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
