"""An audit that shows itself on a terminal and in a notebook."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fullrank.errors import printable
from fullrank.figures.style import GREY, OCHRE, count, duration, number
from fullrank.report.audit.page import advice_title, write_audit
from fullrank.report.audit.view import Against, AuditFacts
from fullrank.report.evidence import (
    COLUMNS,
    MANY,
    OF_AUDIT,
    EvidenceRow,
    differences,
    evidence_rows,
    meaning,
    named_rows,
    severity_of,
)
from fullrank.report.render import render
from fullrank.report.tables import plain_table
from fullrank.report.verdicts import advice_sentences, as_sentence, beside_kind, in_short, remarks
from fullrank.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

WIDTH = 120
HEADS = ("Measure", *(COLUMNS[name] for name in OF_AUDIT), "Reading")


@dataclass(frozen=True, repr=False, eq=False)
class AuditView(AuditFacts):
    """An audit that shows itself: with `print`, with rich, and in a notebook."""

    def write(self, out: Path | str, figures: bool = True) -> Path:
        """Write `audit.json`, `audit.html` and figures; returns the page's path."""
        return write_audit({self.tap: self}, Path(out), figures=figures)

    def __repr__(self) -> str:
        text = io.StringIO()
        terminal(file=text, width=WIDTH, no_color=True, highlight=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    __str__ = __repr__  # not the verdict alone, as the base has it

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        style, severity = self.style, severity_of(self)
        head = Text.assemble((f"{style.glyph} {style.title}", f"bold {style.colour}"))
        head.append(f"  {self.tap}, {count(self.n)} x {count(self.d)}", GREY)
        head.append(f"  severity {severity}" if severity else "")
        head.append(f"  {sure}" if (sure := beside_kind(self.verdict)) else "", GREY)
        yield head
        if (run := self.of_run) is not None:
            yield Text.assemble(
                (f"{run.style.glyph} {run.head}", f"bold {run.style.colour}"),
                (f"  {run.says((self.tap,))}", GREY),
            )
        yield Text(self._reason)
        for remark in remarks(self.verdict):
            yield Text.assemble(("◇ ", OCHRE), remark.says, (f" {remark.advice}", GREY))
        yield Text("")
        yield evidence_table([*evidence_rows(self), *named_rows(self)])
        if self.advice:
            yield Text("")
            yield Text(advice_title(self), "bold")
        for place, advice in enumerate(self.advice, 1):
            line = Text(f"{place}. {as_sentence(advice.mechanism)} ")
            line.append(f"Try: {advice.try_first} ")
            line.append(f"(arXiv {advice.paper}; {advice.standing})", GREY)
            yield line
        for note in self.notes:
            yield Text(f"note: {printable(note)}", GREY)
        yield Text("")
        yield Text(
            f"{len(self.metrics)} metrics in {duration(self.seconds)}. Isotropic: Gaussian rows of the same "
            "n and d. 1/k: Gaussian rows with covariance eigenvalues 1/k, as healthy encoders have.",
            GREY,
        )

    @property
    def _reason(self) -> str:
        return f"{as_sentence(self.verdict.why)} {meaning(self.verdict, self.panel)}"

    def _repr_html_(self) -> str:
        """The same for a notebook: colours that read on white and on near-black."""
        return render(
            "notebook.html.j2",
            style=self.style,
            tap=self.tap,
            size=f"{count(self.n)} × {count(self.d)}",
            severity=severity_of(self),
            certainty=beside_kind(self.verdict),
            of_run=self.of_run,
            remarks=remarks(self.verdict),
            why=self._reason,
            heads=HEADS,
            rows=[(row, row.numbers(OF_AUDIT)) for row in evidence_rows(self)],
            advice=advice_sentences(self.advice),
        )


def evidence_table(rows: Sequence[EvidenceRow]) -> Table:
    """The evidence as a table of rich."""
    from rich.text import Text

    table = plain_table(HEADS, left=("Measure", "Reading"), wrap=("Reading",))
    for row in rows:
        style = "" if row.judged else GREY
        says = Text(("▼ " if row.beyond else "") + row.says, "bold" if row.beyond else style)
        table.add_row(Text(row.metric, style), *(Text(value, style) for value in row.numbers(OF_AUDIT)), says)
    return table


def print_audit(views: Mapping[str, AuditView], main: str, against: Against | None, console: Console) -> None:
    """Print the audit of the main tap, the other taps, and what it is against."""
    from rich.text import Text

    console.print(views[main])
    if len(views) > 1:
        console.print(Text("\nOver the depth", "bold"))
        console.print(_depth_table(views))
    if against is not None:
        console.print(Text(f"\nAgainst {against.name}", "bold"))
        console.print(f"{against.view.verdict}", markup=False)
        for remark in remarks(against.view.verdict):
            console.print(Text.assemble(("◇ ", OCHRE), remark.says))
        console.print(_differences_table(views[main], against.view))
    console.print()


def _depth_table(views: Mapping[str, AuditView]) -> Table:
    from rich.text import Text

    table = plain_table(("Tap", "Width", "Level", "Rank", "RankMe unit", "Verdict"), left=("Tap", "Verdict"))
    for tap, view in views.items():
        values = [
            number(view.panel.value(name)) if view.panel else "–"
            for name in ("level", "erank_centred", "rankme_unit")
        ]
        verdict = Text(f"{view.style.glyph} {in_short(view.verdict)}", view.style.colour)
        table.add_row(Text(tap), count(view.d), *values, verdict)
    return table


def _differences_table(view: AuditFacts, other: AuditFacts) -> Table:
    """Metric by metric, those that were judged."""
    table = plain_table(("Metric", "This", "Other", "Difference", "Intervals apart"), left=("Metric",))
    judged = {item.metric for item in view.verdict.evidence}
    for row in differences(view, other):
        if row.name in judged or len(view.metrics) < MANY:
            table.add_row(row.name, row.value, row.other, row.difference, row.clear)
    return table
