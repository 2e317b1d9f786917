"""An audit that shows itself on a terminal and in a notebook."""

from __future__ import annotations

import dataclasses
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from torch import Tensor

from fullrank.collapse.advice import Advice
from fullrank.collapse.audit import Audit
from fullrank.report.audit.wording import MEANINGS, EvidenceRow, as_sentence, evidence_rows, severity_of
from fullrank.report.style import GREY, Look, count, duration, look_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

__all__ = ["AuditView", "evidence_table"]

_WIDTH = 120
UNTRAINED = "no step taken yet"  # the verdict's word on a network with random weights


@dataclass(frozen=True, repr=False, eq=False)
class AuditView(Audit):
    """An audit that shows itself: with `print`, with rich, and in a notebook.

    Attributes:
        labels: int64 [m], the class of every row of the sample, -1 where it has none; None without labels.
        use: float64 [K], the mean share of every code, where the rows are scores over codes.
    """

    labels: Tensor | None = None
    use: Tensor | None = None

    @classmethod
    def of(cls, audit: Audit, labels: Tensor | None = None, use: Tensor | None = None) -> Self:
        """The same audit with what only pages show."""
        fields = {field.name: getattr(audit, field.name) for field in dataclasses.fields(Audit)}
        return cls(**fields, labels=labels, use=use)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """Likely mechanisms and what to try; none for a network that has taken no step."""
        return () if self.verdict.why == UNTRAINED else super().advice

    @property
    def look(self) -> Look:
        """Colour, glyph and title of the verdict."""
        return look_of(self.verdict.kind)

    def write(self, out: Path | str, figures: bool = True) -> Path:
        """Writes `audit.json`, `audit.html` and figures into a folder; returns the page's path."""
        from fullrank.report.audit.page import write_audit

        return write_audit({self.tap: self}, Path(out), figures=figures)

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=_WIDTH, no_color=True, highlight=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __str__(self) -> str:
        return repr(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        look, severity = self.look, severity_of(self)
        head = Text.assemble((f"{look.glyph} {look.title}", f"bold {look.colour}"))
        head.append(f"  {self.tap}, {count(self.n)} x {count(self.d)}", GREY)
        head.append(f"  severity {severity}" if severity else "")
        yield head
        yield Text(f"{as_sentence(self.verdict.why)} {MEANINGS.get(self.verdict.kind, '')}")
        yield Text("")
        yield evidence_table(evidence_rows(self))
        if self.advice:
            yield Text("")
            yield Text(
                "Likely mechanisms, and what to try first" if self.verdict.collapsed else "What would help",
                "bold",
            )
        for place, advice in enumerate(self.advice, 1):
            line = Text(f"{place}. {as_sentence(advice.mechanism)} ")
            line.append(f"Try: {advice.try_first} ")
            line.append(f"(arXiv {advice.paper})", GREY)
            yield line
        for note in self.notes:
            yield Text(f"note: {note}", GREY)
        yield Text("")
        yield Text(
            f"{len(self.metrics)} metrics in {duration(self.seconds)}. Isotropic: Gaussian rows of the same "
            "n and d. 1/k: Gaussian rows with covariance eigenvalues 1/k, as healthy encoders have.",
            GREY,
        )

    def _repr_html_(self) -> str:
        """The same for a notebook: colours that read on white and on near-black."""
        look, severity = self.look, severity_of(self)
        cell = 'style="text-align:{};padding:2px 10px 2px 0;font-variant-numeric:tabular-nums"'
        left, right = cell.format("left"), cell.format("right")

        def line(row: EvidenceRow) -> str:
            weight = "" if row.judged else "opacity:.65;"
            mark = f'<span style="color:{look.colour}">▼</span> ' if row.beyond else ""
            numbers = (row.value, row.interval, row.null, row.power_law, row.threshold)
            cells = "".join(f"<td {right}>{html.escape(value)}</td>" for value in numbers)
            return (
                f'<tr style="{weight}"><td {left}>{html.escape(row.metric)}</td>{cells}'
                f"<td {left}>{mark}{html.escape(row.says)}</td></tr>"
            )

        heads = "".join(f"<th {right}>{name}</th>" for name in HEADS[1:-1])
        tips = "".join(
            f"<li>{html.escape(as_sentence(a.mechanism))} Try: {html.escape(a.try_first)} "
            f"(arXiv {html.escape(a.paper)})</li>"
            for a in self.advice
        )
        return (
            f'<div style="border-left:5px solid {look.colour};padding:4px 14px">'
            f'<b style="font-size:1.25em"><span style="color:{look.colour}">{look.glyph}</span> '
            f"{html.escape(look.title)}</b> {html.escape(self.tap)}, {count(self.n)} × {count(self.d)}"
            f"{f', severity {severity}' if severity else ''}"
            f"<p>{html.escape(as_sentence(self.verdict.why))} "
            f"{html.escape(MEANINGS.get(self.verdict.kind, ''))}</p>"
            f"<table><tr><th {left}>{HEADS[0]}</th>{heads}<th {left}>{HEADS[-1]}</th></tr>"
            f"{''.join(line(row) for row in evidence_rows(self))}</table>"
            f"{f'<ol>{tips}</ol>' if tips else ''}</div>"
        )


HEADS = ("Measure", "Value", "95 % interval", "Isotropic", "1/k", "Threshold", "Reading")


def evidence_table(rows: Sequence[EvidenceRow]) -> Table:
    """The evidence as a table of rich.

    Example:
        >>> evidence_table([]).columns[0].header
        'Measure'
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for place, name in enumerate(HEADS):
        last = place == len(HEADS) - 1
        table.add_column(name, justify="left" if place == 0 or last else "right", no_wrap=not last)
    for row in rows:
        style = "" if row.judged else GREY
        numbers = (row.value, row.interval, row.null, row.power_law, row.threshold)
        says = Text(("▼ " if row.beyond else "") + row.says, "bold" if row.beyond else style)
        table.add_row(Text(row.metric, style), *(Text(value, style) for value in numbers), says)
    return table
