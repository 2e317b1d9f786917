"""Directions that rows could span, and the rank of isotropic rows in as many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fullrank.collapse.baselines import baseline
from fullrank.collapse.dimensional import dimensional_evidence
from fullrank.collapse.panel import Panel
from fullrank.collapse.thresholds import Thresholds
from fullrank.figures.style import count, number


class Ceiling(NamedTuple):
    """The most that a rank can be.

    Attributes:
        possible: directions that a narrow layer and constant columns leave; None where no panel says.
        d: width of the rows.
        baseline: centred effective rank of as many isotropic rows with so many directions.
    """

    possible: int | None
    d: int | None
    baseline: float | None

    @property
    def says(self) -> str:
        """The ceiling, and the width where that is another.

        Example:
            >>> Ceiling(64, 256, 59.9).says, Ceiling(128, 128, 126.0).says
            ('64 possible, d 256', 'd 128')
        """
        width = f"d {count(self.d)}"
        return width if self.possible == self.d else f"{count(self.possible)} possible, {width}"


def ceiling_of(panel: Mapping[str, Any]) -> Ceiling:
    """The ceiling of the rows of a panel, as a log has it.

    Example:
        >>> ceiling_of({"n": 1000, "d": 256, "narrowest": 64, "measures": {}})[:2]
        (64, 256)
        >>> ceiling_of({"n": 1000, "d": 128, "facts": {"dead": 70}, "measures": {}})[:2]
        (58, 128)
    """
    n, d = panel.get("n"), panel.get("d")
    null = ((panel.get("measures") or {}).get("erank_centred") or {}).get("null")
    if not isinstance(n, int) or not isinstance(d, int):
        return Ceiling(d, d, null)
    living = d - int((panel.get("facts") or {}).get("dead") or 0)
    layer = panel.get("narrowest") if panel.get("narrowest_weight", 1.0) >= 0.5 else None
    possible = max(min(living, layer or d), 1)
    return Ceiling(possible, d, null if possible == d else baseline("erank_centred", n, possible))


def judged_rank(panel: Mapping[str, Any]) -> float | None:
    """The effective rank that a verdict is of, where it is not that of all rows.

    Odd rows may be left out, or directions alone count; a panel without such alternatives has None.
    """
    if not panel.get("alternatives"):
        return None
    thresholds = Thresholds()
    found = dimensional_evidence(Panel.from_dict(panel), thresholds.decay, thresholds.decay_width)
    judged = None if found is None else found.hypothesis.measured.get("erank_centred")
    measured = (panel["measures"].get("erank_centred") or {}).get("value")
    return judged if judged is not None and number(judged) != number(measured) else None
