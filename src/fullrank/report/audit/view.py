"""Types of an audit: with classes and codes, and against another embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from fullrank.collapse.audit import Audit
from fullrank.collapse.treatments import Advice
from fullrank.figures.style import VerdictStyle, style_of
from fullrank.report.audit.of_run import RunVerdict

UNTRAINED = "no step taken yet"  # the verdict's word on a network with random weights


@dataclass(frozen=True, repr=False, eq=False)
class AuditFacts(Audit):
    """An audit with the classes and codes of its rows.

    Attributes:
        labels: int64 [m], the class of every row of the sample, -1 where it has none; None without labels.
        classes: the name of each label.
        use: float64 [K], the mean share of every code, where the rows are scores over codes.
        of_run: the last verdict of the run that the encoder is of, which may be of another layer output.
    """

    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    use: Tensor | None = None
    of_run: RunVerdict | None = None

    @classmethod
    def of(
        cls,
        audit: Audit,
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        use: Tensor | None = None,
    ) -> Self:
        """The same audit with what only pages show."""
        fields = {field.name: getattr(audit, field.name) for field in dataclasses.fields(Audit)}
        return cls(**fields, labels=labels, classes=tuple(classes), use=use)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """Likely mechanisms and what to try; none for a network that has taken no step."""
        return () if self.verdict.why == UNTRAINED else super().advice

    @property
    def kinds(self) -> set[str]:
        """What was found: the verdict here, and the last one of the run itself."""
        return {self.verdict.kind} | ({self.of_run.verdict.kind} if self.of_run else set())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the last verdict of the run that the encoder is of."""
        return super().as_dict() | ({"of_run": self.of_run.as_dict()} if self.of_run else {})

    @property
    def style(self) -> VerdictStyle:
        """Colour, glyph and title of the verdict."""
        return style_of(self.verdict.kind)


Views = Mapping[str, AuditFacts]
"""Audits of one subject, by tap."""


@dataclass(frozen=True)
class Against:
    """Another embedding to compare with: what to call it, and its audit."""

    name: str
    view: AuditFacts
