"""An audit on the terminal: the verdict, each tap, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fullrank.figures.style import count, number
from fullrank.report.evidence import differences
from fullrank.report.tables import plain_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fullrank.report.audit.terminal import AuditView
    from fullrank.report.audit.view import Against, AuditFacts

__all__ = ["print_audit"]


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
        verdict = Text(f"{view.style.glyph} {view.verdict.kind}", view.style.colour)
        table.add_row(tap, count(view.d), *values, verdict)
    return table


def _differences_table(view: AuditFacts, other: AuditFacts) -> Table:
    """Metric by metric, those that were judged."""
    table = plain_table(("Metric", "This", "Other", "Difference", "Intervals apart"), left=("Metric",))
    judged = {item.metric for item in view.verdict.evidence}
    for row in differences(view, other):
        if row.name in judged or len(view.metrics) < 12:
            table.add_row(row.name, row.value, row.other, row.difference, row.clear)
    return table
