"""Tables on the terminal, all in one style."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from fullrank.figures.style import GREY

if TYPE_CHECKING:
    from rich.table import Table


def plain_table(columns: Iterable[str], left: Container[str] = (), wrap: Container[str] = ()) -> Table:
    """A table without lines.

    Args:
        columns: headings.
        left: those that are set left; the others are numbers.
        wrap: those whose cells may take several lines.

    Example:
        >>> [column.justify for column in plain_table(["Arm", "Loss"], left=["Arm"]).columns]
        ['left', 'right']
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for name in columns:
        table.add_column(Text(name), justify="left" if name in left else "right", no_wrap=name not in wrap)
    return table
