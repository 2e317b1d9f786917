"""A comparison on the terminal: the same tables as on the page."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fullrank.errors import printable
from fullrank.figures.style import GREY
from fullrank.report.compare.arms import Comparison
from fullrank.report.compare.cautions import cautions, hints
from fullrank.report.compare.tables import Grid, TableCell, tables
from fullrank.report.tables import plain_table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the tables, then what does not compare, then how to learn more."""
    for grid in tables(comparison):
        if grid.title:
            console.print(Text(f"\n{grid.title}", "bold"))
        console.print(_table(grid))
    console.print()
    about = [comparison.images.about[0].upper() + comparison.images.about[1:]] if comparison.images else []
    for line in [*about, *cautions(comparison), *comparison.notes, *hints(comparison)]:
        console.print(Text(f"note: {printable(line)}", GREY))


def _table(grid: Grid) -> Table:
    numbers = [name for name, numeric in zip(grid.columns, grid.numeric, strict=True) if numeric]
    table = plain_table(grid.columns, left=set(grid.columns) - set(numbers), wrap=numbers)
    before = None
    for _, name, cells in grid.rows:
        table.add_row(Text("" if name == before else name, "bold"), *map(_words, cells))
        before = name
    return table


def _words(cell: TableCell) -> Text:
    if not cell.styles:
        return Text(cell.text)
    return Text("\n").join(
        Text(f"{style.glyph} {style.word} {times}".rstrip(), style.colour) for style, times in cell.styles
    )
