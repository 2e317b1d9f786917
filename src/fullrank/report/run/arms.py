"""Several runs at once on the terminal: a live table while they train, and the closing table."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fullrank.figures.style import BLUE, GREEN, GREY, count, number, percent
from fullrank.report.run.summary import Summary
from fullrank.report.run.terminal import epoch_line, is_live, sparkline
from fullrank.training.records import EpochRecord, RunRecord

__all__ = ["LiveArms", "arms_table", "arms_text"]

COLUMNS = ("Arm", "Verdict", "Loss", "Level", "Rank / d", "k-NN")


class LiveArms:
    """A table of several arms that keeps itself up to date; plain lines where there is no terminal.

    Args:
        names: the arms, in the order in which they are shown.
        total_steps: how many steps each arm trains.
        mode: as for `make_console`: "auto", "live", "plain", "quiet" or "json".
        console: the rich console to draw on; one on standard output by default.

    Example:
        >>> with LiveArms(["simsiam", "no stop-gradient"], total_steps=620, mode="plain") as arms:
        ...     arms.update("simsiam", EpochRecord(epoch=1, step=31, loss=-0.5))
        simsiam           epoch   1  loss -0.5000  level –  not decidable
    """

    def __init__(
        self, names: Sequence[str], total_steps: int, mode: str = "auto", console: Console | None = None
    ) -> None:
        self.summaries = {name: Summary(name) for name in names}
        self.total_steps = total_steps
        self.plain = mode in {"auto", "plain"} and not is_live(mode)
        self.console = console or Console(force_terminal=mode == "live" or None)
        self._live = Live(self, console=self.console, refresh_per_second=4) if is_live(mode) else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, arm: str, record: RunRecord) -> None:
        """Takes in a record of one arm.

        Raises:
            KeyError: if there is no such arm.
        """
        summary = self.summaries[arm]
        summary.take(record)
        if self.plain and isinstance(record, EpochRecord):
            width = max(len(name) for name in self.summaries)
            print(
                f"{arm:<{width}}  {epoch_line(summary, None, summary.seconds_left(self.total_steps))}",
                flush=True,
            )

    def __rich__(self) -> RenderableType:
        table = _empty()
        table.add_column("Progress", width=10)
        wide = self.console.width >= 100
        if wide:
            table.add_column("Loss so far", no_wrap=True, width=16)
        for summary in self.summaries.values():
            bar = ProgressBar(
                self.total_steps, summary.step, width=10, complete_style=BLUE, finished_style=GREEN
            )
            trace = [Text(sparkline(summary.losses, 16), BLUE)] if wide else []
            table.add_row(*_cells(summary), bar, *trace)
        return table


def arms_table(rows: Sequence[Summary]) -> Table:
    """The closing table, one row for each arm.

    Args:
        rows: what `summarise` returned for each run.

    Example:
        >>> arms_table([Summary("simsiam")]).row_count
        1
    """
    table = _empty()
    for summary in rows:
        table.add_row(*_cells(summary))
    return table


def arms_text(rows: Sequence[Summary]) -> str:
    """The same table in plain text, columns aligned by spaces.

    Example:
        >>> print(arms_text([Summary("simsiam")]))
        Arm      Verdict        Loss  Level  Rank / d  k-NN
        simsiam  not decidable  –     –      –         –
    """
    lines = [COLUMNS, *(_words(summary) for summary in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    padded = (
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _empty() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    return table


def _words(summary: Summary) -> tuple[str, ...]:
    rank = "–" if summary.rank is None else f"{number(summary.rank)} / {count(summary.width)}"
    rank = "noise" if summary.constant else rank
    measured = (number(summary.loss, 4), number(summary.level), rank, percent(summary.knn))
    return (summary.name, summary.style.word, *measured)


def _cells(summary: Summary) -> tuple[str | Text, ...]:
    name, verdict, *rest = _words(summary)
    return (Text(name, "bold"), Text(f"{summary.style.glyph} {verdict}", summary.style.colour), *rest)
