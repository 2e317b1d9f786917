"""Output of a run while it trains: a live panel, a line an epoch, or nothing."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fullrank.errors import UnknownNameError
from fullrank.figures.style import (
    BLUE,
    GREEN,
    GREY,
    OCHRE,
    ORANGE,
    RED,
    count,
    counted,
    duration,
    number,
    percent,
)
from fullrank.progress import EVERY
from fullrank.report.accuracies import knn_line
from fullrank.report.ceiling import ceiling_of
from fullrank.report.run.notes import summary_notes
from fullrank.report.run.reading import Record
from fullrank.report.run.summary import Summary, start_of, threshold_of, what
from fullrank.report.tables import plain_table
from fullrank.report.verdicts import beside_kind, doubt, remarks
from fullrank.terminal import say, terminal
from fullrank.training.records import (
    EndRecord,
    EpochRecord,
    NotFiniteRecord,
    RollbackRecord,
    RunRecord,
    StepRecord,
)

if TYPE_CHECKING:
    from fullrank.training.profile import Profile

BAR = 14
FIRST_STEPS = 10  # after which an estimate of the time is worth something
LONG_RUN = 10.0  # seconds that a run has left, from which it is estimated before its first epoch ends
MODES = ("auto", "live", "plain", "quiet", "json")
PHASES = {
    "data": "waiting for images",
    "views": "views",
    "forward": "forward pass and loss",
    "backward": "backward pass",
    "probe": "online linear probe",
    "optimiser": "optimiser",
    "method": "after the step (EMA)",
    "logging": "logs and level",
    "watching": "panel, spread over its epoch",
    "knn": "k-NN and probe, likewise",
}


class Quiet:
    """A listener of the training loop that shows nothing, for `quiet` and `json`.

    Example:
        >>> with Quiet() as listener:
        ...     listener.start({"epochs": 1}, total_steps=10)
        ...     listener(EndRecord(epoch=1, step=10))
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, config: Record, total_steps: int) -> None:
        """Take in what is about to run; called once, before the first record."""

    def __call__(self, record: RunRecord) -> None:
        """Take in a record of `metrics.jsonl`."""


class PlainLines(Quiet):
    """A plain line for each epoch and change of verdict, without escape codes.

    Before the first epoch ends there is an estimate of the time, and in long epochs a line every half minute.

    Example:
        >>> lines = PlainLines()
        >>> lines.start({"method": "simsiam", "data": "shapes", "epochs": 30}, total_steps=930)
        simsiam on shapes: 30 epochs, 930 steps
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.summary = Summary("run")
        self.total_steps = 0
        self.config: Record = {}
        self.epochs: int | None = None
        self._first_step: int | None = None  # that was heard of
        self._estimated, self._written_at = False, 0.0

    def start(self, config: Record, total_steps: int) -> None:
        """Write what is about to run."""
        self.total_steps, self.epochs, self.config = total_steps, config.get("epochs"), config
        epochs = "– epochs" if self.epochs is None else counted(self.epochs, "epoch")
        begin = f"{what(config)}: {epochs}, {counted(total_steps, 'step')}"
        known = [key for key in ("batch_size", "lr", "seed") if key in config]
        self._write(", ".join([begin, *(f"{key.replace('_', ' ')} {config[key]}" for key in known)]))

    def __call__(self, record: RunRecord) -> None:
        """Write a line where the record closes an epoch or the run."""
        before = self.summary.style.word
        self.summary.take(record)
        if isinstance(record, StepRecord):
            self._take_step(record.step)
        elif isinstance(record, EpochRecord):
            left = self.summary.seconds_left(self.total_steps)
            self._write(epoch_line(self.summary, self.epochs, left, loaded=bool(self.config.get("init"))))
            if self.summary.style.word != before and self.summary.why:
                self._write(f"  {self.summary.style.word} ({self.summary.tap}): {self.summary.why}")
            for warning in self.summary.warnings:
                self._write(f"  warning: {warning}")
        elif isinstance(record, RollbackRecord):
            rate = f"{record.rate_factor:g}"
            why = f": {record.why}" if record.why else ""
            self._write(f"  rolled back to epoch {record.epoch}, on at {rate} times the rate{why}")
        elif isinstance(record, NotFiniteRecord) and record.action == "skip":
            self._write(f"  left out: {record.found}")
        elif isinstance(record, EndRecord):
            for line in closing_lines(self.summary, self.config):
                self._write(line)

    def _take_step(self, step: int) -> None:
        """Write an estimate after the first steps, and a line after a long silence."""
        self._first_step = step if self._first_step is None else self._first_step
        left = self.summary.seconds_left(self.total_steps)
        estimates = not self._estimated and left is not None and step - self._first_step >= FIRST_STEPS - 1
        silent = step < self.total_steps and time.monotonic() - self._written_at >= EVERY
        self._estimated = self._estimated or estimates
        if silent or (estimates and left is not None and left >= LONG_RUN):
            self._write(step_line(self.summary, self.total_steps, left))

    def _write(self, line: str) -> None:
        self._written_at = time.monotonic()
        say(line, self.stream)


class LivePanel(Quiet):
    """A live panel on the terminal: progress, loss, level, rank, k-NN and verdict."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or terminal()
        self.summary = Summary("run")
        self.config: Record = {}
        self.total_steps = 0
        self._live = Live(self, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()  # draws once more, so what stays on the screen is the end

    def start(self, config: Record, total_steps: int) -> None:
        """Take in what is about to run."""
        self.config, self.total_steps = config, total_steps

    def __call__(self, record: RunRecord) -> None:
        """Take in a record; the next refresh shows it."""
        self.summary.take(record)

    def __rich__(self) -> RenderableType:
        style = self.summary.style
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True, style=GREY)
        grid.add_column(ratio=1)
        for label, row in self._rows():
            grid.add_row(label, row)
        verdict = Text.assemble((f"{style.glyph} {style.title}", f"bold {style.colour}"))
        if self.summary.verdict.get("tap"):
            verdict.append(f" at the {self.summary.tap}", GREY)
        judged = self.summary.judgement
        verdict.append(f"  {sure}" if (sure := beside_kind(judged)) else "", GREY)
        why = Text(self.summary.why)
        for remark in remarks(judged):
            why.append("\n◇ ", OCHRE).append(remark.says)
        for warning in self.summary.warnings:
            why.append(f"\n▲ {warning}", ORANGE)
        title = Text.assemble(("fullrank", "bold"), (" · ", GREY), what(self.config))
        return Panel(
            Group(grid, "", verdict, why),
            title=title,
            title_align="left",
            border_style=style.colour,
            padding=(1, 2),
        )

    def _rows(self) -> list[tuple[str, RenderableType]]:
        summary = self.summary
        # copied: the display refreshes from a thread of its own
        of_batch = dict(summary.levels) if not summary.end else {}
        levels = of_batch or {tap: summary.measure("level", tap=tap) for tap in summary.panels}
        name = "level, batch" if of_batch else "level"  # which is not that of held-out images
        rows: list[tuple[str, RenderableType]] = [("progress", self._progress())]
        loss = Text(f"{number(summary.loss, 4):>9}  ")
        loss.append(sparkline(summary.losses, 32), BLUE)
        rows.append(("loss", loss))
        for index, (tap, value) in enumerate(levels.items()):
            rows.append((name if index == 0 else "", self._level(tap, value)))
        rank = "noise rank" if summary.constant else "rank"
        for index, tap in enumerate(summary.panels):
            rows.append((rank if index == 0 else "", rank_text(summary, tap)))
        if summary.knn is not None:
            text = Text(f"{percent(summary.knn):>9}  ")
            text.append(f"network {start_of(self.config)} {percent(summary.knn_untrained)}", GREY)
            rows.append(("k-NN top-1", text))
        if summary.linear is not None:
            rows.append(("linear top-1", Text(f"{percent(summary.linear):>9}  ")))
        return rows

    def _progress(self) -> RenderableType:
        summary, epochs = self.summary, self.config.get("epochs")
        left = summary.seconds_left(self.total_steps)
        ended = f"took {duration(summary.elapsed)}" if summary.end else f"left {duration(left)}"
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        done = ProgressBar(self.total_steps or 1, summary.step, complete_style=BLUE, finished_style=GREEN)
        speed = f"{count(summary.images_per_second)} images/s"
        row.add_row(f"epoch {summary.epoch}/{count(epochs)}", done, f"{ended} · {speed}")
        return row

    def _level(self, tap: str, value: float | None) -> Text:
        threshold = threshold_of(self.summary.verdict)
        low = threshold is not None and value is not None and value < threshold
        return bar_text(value, value, RED if low else GREEN).append(f" {tap}")


def make_console(mode: str = "auto") -> Quiet:
    """Create the listener for a mode; "auto": panel on a terminal, else lines.

    Raises:
        UnknownNameError: if there is no such mode.

    Example:
        >>> type(make_console("plain")).__name__, type(make_console("json")).__name__
        ('PlainLines', 'Quiet')
    """
    if mode not in MODES:
        raise UnknownNameError("output mode", mode, MODES)
    if mode in {"quiet", "json"}:
        return Quiet()
    return LivePanel(terminal(force_terminal=mode == "live" or None)) if is_live(mode) else PlainLines()


def is_live(mode: str = "auto") -> bool:
    """Whether a mode means a live display, on a terminal that can show one."""
    capable = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
    return mode == "live" or (mode == "auto" and capable)


def epoch_line(summary: Summary, epochs: int | None, left: float | None, loaded: bool = False) -> str:
    """Format an epoch in one line of plain text."""
    words = [f"epoch {summary.epoch:>3}" + (f"/{epochs}" if epochs else "")]
    words.append(
        f"loss {number(summary.loss, 4)}" if summary.losses else "as loaded" if loaded else "untrained"
    )
    words.append(f"level {number(summary.level)}")
    if summary.rank is not None:
        words.append(f"rank {summary.rank_says}")
    if summary.knn is not None:
        of = f" (of epoch {summary.knn_epoch})" if summary.knn_epoch != summary.epoch else ""
        words.append(f"k-NN {percent(summary.knn)}{of}")
    if summary.linear is not None:
        words.append(f"linear {percent(summary.linear)}")
    if summary.images_per_second is not None and summary.epoch:
        words.append(f"{count(summary.images_per_second)} images/s")
    if left:
        words.append(f"left {duration(left)}")
    if summary.next_watch is not None and summary.next_watch > summary.epoch + 1:
        words.append(f"next panel: epoch {summary.next_watch}")
    return "  ".join([*words, summary.style.word + summary.judgement.passing + doubt(summary.judgement)])


def step_line(summary: Summary, total_steps: int, left: float | None) -> str:
    """Format how far a run is within an epoch, in one line of plain text.

    Example:
        >>> summary = Summary("run", step=20, losses=[-0.5], images_per_second=300.0)
        >>> step_line(summary, 200, 90.0)
        'step 20/200  loss -0.5000  300 images/s  about 1 min 30 s left'
    """
    words = [f"step {count(summary.step)}/{count(total_steps)}  loss {number(summary.loss, 4)}"]
    if summary.images_per_second is not None:
        words.append(f"{count(summary.images_per_second)} images/s")
    return "  ".join([*words, *([f"about {duration(left)} left"] if left is not None else [])])


def closing_lines(summary: Summary, config: Record) -> list[str]:
    """Format how a run ended, its verdict and a likely cause, in plain text."""
    reason = summary.end.reason if summary.end else "ended"
    took = summary.share_watching
    share = "" if took is None else f", watching and k-NN took {percent(took)}"
    done = f"{counted(summary.epoch, 'epoch')}, {counted(summary.step, 'step')}"
    ended = f"{reason} after {done}, {duration(summary.elapsed)}"
    judged = summary.judgement
    sure = f", {found}" if (found := beside_kind(judged)) else ""
    odd = [f"  beside it: {remark}" for remark in remarks(judged)]
    odd += [f"  {counted(n, 'step')} left out: numbers were not finite"] if (n := summary.skipped) else []
    odd += [f"  {note}" for note in summary_notes(config, summary)]
    neighbours = knn_line(summary.knn_of, summary.knn_untrained, start_of(config))
    verdict = f"verdict: {judged.phrase}{sure}: {summary.why}"
    return [ended + share, *filter(None, [neighbours]), verdict, *odd]


def rank_text(summary: Summary, tap: str) -> Text:
    """Centred effective rank at a tap, beside isotropic noise and d."""
    panel = summary.panels[tap]
    found = (panel.get("measures") or {}).get("erank_centred") or {}
    value = found.get("value")
    ceiling = ceiling_of(panel)
    share = None if value is None or not ceiling.possible else value / ceiling.possible
    text = bar_text(value, share, GREY if summary.constant else BLUE).append(f" {tap:<10}")
    return text.append(f" baseline {number(ceiling.baseline)}, {ceiling.says}", GREY)


def bar_text(value: float | None, share: float | None, colour: str) -> Text:
    """Format a number and a bar of its share."""
    text = Text(f"{number(value):>9}  ", no_wrap=True, overflow="ellipsis")
    filled, empty = bar(share, BAR)
    return text.append(filled, colour).append(empty, GREY)


def bar(share: float | None, width: int) -> tuple[str, str]:
    """Format a share of 1 as the filled and the empty part of a bar.

    Example:
        >>> bar(0.5, 8)
        ('━━━━', '╌╌╌╌')
    """
    filled = 0 if share is None else round(min(1.0, max(0.0, share)) * width)
    return "━" * filled, "╌" * (width - filled)


def sparkline(values: Sequence[float], width: int) -> str:
    """Format a series as a row of blocks; a long one is averaged over stretches.

    Example:
        >>> sparkline([3, 2, 1, 0], 8), sparkline([], 8), sparkline([1.0, 1.0], 8)
        ('█▆▃▁', '', '▁▁')
    """
    if not values:
        return ""
    blocks_shown = min(width, len(values))
    edges = [len(values) * index // blocks_shown for index in range(blocks_shown + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(blocks[round(7 * (mean - low) / (high - low)) if high > low else 0] for mean in means)


def profile_table(found: Profile) -> RenderableType:
    """Every phase of a training step in milliseconds and as a share.

    Example:
        >>> from pathlib import Path
        >>> from rich.console import Console
        >>> from fullrank.training.profile import Profile
        >>> phases = {"views": 0.01, "forward": 0.03, "backward": 0.06}
        >>> found = Profile(phases, 0.1, 0.001, 0.0, 640.0, 1e9, 2e10, 5, Path("trace.json"))
        >>> Console(width=80).print(profile_table(found))  # doctest: +ELLIPSIS
        one step   100.0 ms, 640 images/s...
    """
    table = plain_table(("Where the time goes", "ms", "Share", ""), left=("Where the time goes", ""))
    total = found.step + found.watching + found.knn
    for name, seconds in (*found.phases.items(), ("watching", found.watching), ("knn", found.knn)):
        filled, _ = bar(seconds / total, 24)
        table.add_row(PHASES[name], f"{1e3 * seconds:.2f}", percent(seconds / total), Text(filled, BLUE))
    gflop, rate = found.flops / 1e9, found.rate / 1e9
    step = f"{1e3 * found.step:.1f} ms, {count(found.images)} images/s, medians of {found.steps} steps"
    floor = (
        f"{1e3 * found.floor:.1f} ms: {gflop:.1f} GFLOP at the {rate:,.0f} GFLOP/s that this machine "
        f"reaches, of which the step has {percent(found.floor / found.step)}"
    )
    head = Text(f"one step   {step}\nits floor  {floor}\n")
    return Group(head, table)
