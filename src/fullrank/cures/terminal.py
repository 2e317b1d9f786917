"""A cure on the terminal: plan, closing table, and the command that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from fullrank.cures.onset import Diagnosis
from fullrank.cures.plan import UNTREATED, CurePlan
from fullrank.cures.result import Cure
from fullrank.cures.tables import begin_words, columns, cost_words, onset_words, rows
from fullrank.figures.style import GREEN, GREY
from fullrank.report.tables import plain_table
from fullrank.report.verdicts import as_sentence

if TYPE_CHECKING:
    from rich.console import Console

SAID = {
    "healthy": "nothing to cure: the run is healthy",
    "passing": "nothing to cure yet: runs like this one leave such a collapse by themselves; let it go on",
    "not decidable": "not decidable, so nothing is cured",
}


def nothing_words(found: Diagnosis) -> str:
    """Why there is nothing to cure, in a line.

    Example:
        >>> nothing_words(Diagnosis("healthy", why="level is 0.90"))
        'nothing to cure: the run is healthy (level is 0.90)'
    """
    words = SAID[found.state] + (f" ({found.why})" if found.why else "")
    return "; but ".join([words, *found.evidence])


def plan_lines(plan: CurePlan) -> Iterator[str]:
    """The diagnosis and what is to be done, a line each."""
    yield as_sentence(onset_words(plan))
    yield as_sentence(plan.diagnosis.why)
    yield from (f"evidence  {line}" for line in plan.diagnosis.evidence)
    yield from (f"note      {line}" for line in plan.notes)
    yield f"plan      {begin_words(plan)}: {cost_words(plan)}"


def print_plan(plan: CurePlan, console: Console) -> None:
    """Print the diagnosis, the arms and their cost."""
    for line in plan_lines(plan):
        console.print(Text(line), soft_wrap=True)
    config, runs = plan.config(), len(plan.seeds)
    names = ("Arm", "Changes", "Known", "Runs")
    table = plain_table(names, left=names[:3], wrap=("Changes",))
    for arm in plan.arms:
        advised = arm.advice
        known = advised.standing if advised else ""
        table.add_row(Text(arm.name, "bold"), Text(arm.words(config)), Text(known), str(runs))
    console.print(table)


def print_cure(cure: Cure, console: Console) -> None:
    """Print the closing table."""
    names = columns(cure)
    table = plain_table(names, left=("Arm", "Verdict", "Known"), wrap=("Verdict",))
    for row in rows(cure):
        plain = GREY if row.arm.name == UNTREATED else "bold"
        name = Text(row.arm.name, f"bold {GREEN}" if row.cured else plain)
        verdict = Text(f"{row.arm.style.glyph} {row.cells[0]}", row.arm.style.colour)
        table.add_row(name, verdict, *map(Text, row.cells[1:]))
    console.print(table)
    for note in cure.notes:
        console.print(Text(f"note      {note}"), soft_wrap=True)
    for arm in cure.arms:
        for seed, why in arm.failed.items():
            console.print(Text(f"failed    {arm.name}, seed {seed}: {why}"), soft_wrap=True)
