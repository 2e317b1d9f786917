"""How a lab shows that it is at work: a table of arms by seeds on a terminal, a line a cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fullrank.figures.style import BLUE, GREY, RED, duration, percent, style_of
from fullrank.labs._common.lab import Job
from fullrank.report.run.summary import Summary
from fullrank.report.run.terminal import is_live
from fullrank.training.records import RunRecord

__all__ = ["LiveCells"]


class LiveCells:
    """Keeps watch over cells: call it as `run_cells` calls.

    Args:
        cells: all of them.
        mode: `auto`, `live`, `plain` or `quiet`.
        console: the rich console to draw on; one on standard output by default.

    Example:
        >>> cell = Job("SimSiam", 0)
        >>> with LiveCells([cell], "plain") as live:
        ...     live(cell, "running", {})
        ...     live(cell, "done", {})
        1/1  SimSiam, seed 0  done
    """

    def __init__(self, cells: Sequence[Job], mode: str = "auto", console: Console | None = None) -> None:
        self.cells = list(cells)
        self.states = {cell.name: "waiting" for cell in cells}
        self.summaries = {cell.name: Summary(cell.name) for cell in cells}
        self.epochs = {cell.name: cell.config().epochs if cell.train else 0 for cell in cells}
        self.plain = mode in {"auto", "plain"} and not is_live(mode)
        self.console = console or Console(force_terminal=mode == "live" or None)
        self.begun, self.ready = time.perf_counter(), 0
        self._live = Live(self, console=self.console, refresh_per_second=2) if is_live(mode) else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, cell: Job, state: str, record: RunRecord | None) -> None:
        """Takes in what a cell is doing."""
        if record is not None and record.event != "start":
            self.summaries[cell.name].take(record)
        earlier = self.states[cell.name] == "waiting" and state == "done"
        self.states[cell.name] = state
        self.ready += earlier  # done before we came
        if self.plain and state in {"done", "failed"} and not earlier:
            count = sum(found in {"done", "failed"} for found in self.states.values())
            told = self._words(cell) if state == "done" else "failed"
            print(f"{count}/{len(self.cells)}  {cell.name}  {told}", flush=True)

    def __rich__(self) -> RenderableType:
        seeds = sorted({cell.seed for cell in self.cells})
        table = Table(box=None, padding=(0, 3, 0, 0), header_style=GREY, pad_edge=False)
        table.add_column("Arm", no_wrap=True)
        for seed in seeds:
            table.add_column(f"seed {seed}", no_wrap=True, min_width=22)
        rows: dict[tuple[str, str], dict[int, Job]] = {}
        for cell in self.cells:
            rows.setdefault((cell.part, cell.arm), {})[cell.seed] = cell
        part = ""
        for (own, arm), by_seed in rows.items():
            if own != part:
                table.add_row(Text(own, GREY))
                part = own
            table.add_row(Text(arm, "bold"), *(self._cell(by_seed.get(seed)) for seed in seeds))
        return Group(table, Text(self._standing(), GREY))

    def _standing(self) -> str:
        done = sum(state in {"done", "failed"} for state in self.states.values())
        passed, fresh = time.perf_counter() - self.begun, done - self.ready
        left = duration(passed / fresh * (len(self.cells) - done)) if fresh else "–"
        return f"{done} of {len(self.cells)} cells, {duration(passed)}; about {left} left"

    def _cell(self, cell: Job | None) -> Text:
        if cell is None:
            return Text("")
        state, summary = self.states[cell.name], self.summaries[cell.name]
        if state == "failed":
            return Text("✗ failed", RED)
        if state == "waiting":
            return Text("·", GREY)
        if state == "running":
            place = f"epoch {summary.epoch}/{self.epochs[cell.name]}" if cell.train else "computing"
            return Text(f"▸ {place}", BLUE)
        style = summary.style
        return Text(f"{style.glyph} {self._words(cell)}", style.colour if summary.epoch else GREY)

    def _words(self, cell: Job) -> str:
        summary = self.summaries[cell.name]
        if not summary.epoch:
            return "done"
        words = style_of(summary.style.word).word
        return f"{words}, k-NN {percent(summary.knn)}" if summary.knn is not None else words
