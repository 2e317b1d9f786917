"""A selection on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from fullrank.errors import printable
from fullrank.figures.style import GREY, style_of
from fullrank.report.tables import plain_table
from fullrank.selection.ranking import Ranked, Selection
from fullrank.selection.words import COLUMNS, NOT_TESTED, cells

MOST = 20  # rows


def print_selection(found: Selection, console: Console) -> None:
    """Print what is picked, the table, and what was not tested."""
    console.print(Text(printable(found.headline), "bold"), Text(f"  {found.sureness}"))
    if found.cost:
        console.print(Text(found.cost))
    console.print(Text(f"encoder {printable(found.pick.candidate.spec)}"), soft_wrap=True)
    console.print()
    table = plain_table(COLUMNS, left={COLUMNS[0], "verdict"}, wrap={COLUMNS[0]})
    for ranked in found.ranked[:MOST]:
        name, *others = cells(ranked, found)
        table.add_row(Text(printable(name), "bold" if ranked is found.pick else ""), *map(Text, others),
                      _verdict(ranked))  # fmt: skip
    console.print(table)
    if len(found.ranked) > MOST:
        console.print(Text(f"and {len(found.ranked) - MOST} more, on the page", GREY))
    for left_out in found.unusable:
        console.print(
            Text(f"left out: {printable(left_out.candidate.name)}: {printable(left_out.why)}", GREY)
        )
    console.print()
    about = f"{found.images.about[0].upper()}{found.images.about[1:]}."
    for line in (about, *found.images.notes, NOT_TESTED):
        console.print(Text(f"note: {printable(line)}", GREY))


def _verdict(ranked: Ranked) -> Text:
    verdict = ranked.measured.verdict
    if verdict is None:
        return Text("–")
    style = style_of(verdict.kind)
    return Text(f"{style.glyph} {style.word}", style.colour)
