"""`fullrank jobs`: what runs and waits on a SLURM cluster, and how to end it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import FullrankError, UnknownNameError, UsageError
from fullrank.jobs.slurm_options import slurm_help
from fullrank.terminal import say, terminal

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fullrank.jobs.queue import JobState
    from fullrank.jobs.submissions import Submission

A_DAY = 86_400.0  # seconds that ended jobs are shown
WIDTH = 120  # columns where no terminal says how many
PAUSE = 5.0  # seconds between two looks at the queue
MOST_SHOWN = 40  # rows of a live table


@dataclass(frozen=True)
class Jobs:
    """Show jobs that were submitted with --slurm and their runs, or cancel them.

    WHAT is a job's number (12, or 12_3 of an array), a run directory, or nothing for all of them. Jobs that
    have ended are shown for a day.

    Example: fullrank jobs

    Example: fullrank jobs --watch

    Example: fullrank jobs --cancel 12_3 runs/first

    Attributes:
        what: numbers or run directories; none: all jobs.
        cancel: end them; a run that runs checkpoints first, and `fullrank resume` goes on with it.
        watch: stay, and show what they do, until all have ended; 1 where one failed.
        all: also those that ended more than a day ago, of the last 30.
        json: print one list of objects.
    """

    what: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = ()
    cancel: bool = False
    watch: bool = False
    all: bool = False
    json: bool = False


@dataclass(frozen=True)
class Row:
    """A job in the table."""

    task: str
    submission: Submission
    found: JobState

    @property
    def run(self) -> str:
        """The run directory; empty where nothing is trained."""
        return self.submission.tasks[self.task].run

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds of it."""
        command, queued = self.submission.tasks[self.task], self.found.queued
        return {
            "job": self.task,
            "state": self.found.state,
            "why": self.found.why,
            "name": command.name,
            "command": ["fullrank", *command.argv],
            "run": command.run,
            "node": queued.nodes if queued else "",
            "elapsed": queued.elapsed if queued else "",
            "limit": queued.limit if queued else "",
            "log": str(self.submission.log(self.task)),
            **_progress(command.run),
        }


def run(words: Sequence[str]) -> int:
    """Show or cancel jobs."""
    if "--slurm" in words:
        print(slurm_help("COMMAND"))
        return 0
    args = parse(Jobs, words, "fullrank jobs")
    if args.cancel and (args.watch or not args.what):
        raise UsageError(
            "--cancel takes the jobs that are to end, as `fullrank jobs --cancel 12`; all for all"
        )
    rows = read_rows(args)
    if args.cancel:
        return _cancel(rows, args.json)
    while args.watch and any(not row.found.has_ended for row in rows):
        rows = _watch(args)
    if args.json:
        print(json.dumps([row.as_dict() for row in rows], indent=2))
    elif rows:
        terminal(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(_table(rows))
        for row in rows:
            if row.found.state in ("failed", "lost"):
                say(f"{row.task} {row.found.state}: {row.found.why}; {row.submission.log(row.task)}")
    else:
        say("no jobs: `fullrank train METHOD --slurm` submits one")
    return int(args.watch and any(row.found.state != "done" for row in rows))


def read_rows(args: Jobs) -> list[Row]:
    """The jobs that are asked for, as they are now."""
    from fullrank.jobs.command import FINE
    from fullrank.jobs.queue import job_state, read_queue
    from fullrank.jobs.submissions import submissions

    known = submissions()
    queue = read_queue() if known else {}
    rows = [Row(task, one, job_state(one, task, queue, FINE)) for one in known for task in one.tasks]
    named = [word for word in args.what if word != "all"]
    if named:
        return [row for word in named for row in _named(word, rows)]
    recent = time.time() - A_DAY
    every = args.all or args.cancel
    return [row for row in rows if every or not row.found.has_ended or _ended(row) > recent]


def _named(word: str, rows: Sequence[Row]) -> list[Row]:
    path = str(Path(word).absolute())
    found = [row for row in rows if word in (row.task, row.submission.number)]
    found = found or [
        row for row in rows if row.run == path or (Path(row.run).parent == Path(path) and row.run)
    ]
    if not found:
        known = {row.task for row in rows} | {row.submission.number for row in rows}
        raise UnknownNameError("job", word, known, "fullrank jobs --all lists those of the last 30 days")
    return found


def _ended(row: Row) -> float:
    try:
        return row.submission.log(row.task).stat().st_mtime
    except OSError:
        return row.submission.submitted


def _cancel(rows: Sequence[Row], quiet: bool) -> int:
    from fullrank.jobs.queue import cancel_jobs

    alive = [row for row in rows if not row.found.has_ended]
    if not alive:
        raise UsageError("none of these jobs waits or runs: there is nothing to cancel")
    cancel_jobs([row.task for row in alive])
    for row in alive:
        if row.found.state == "waiting":
            row.submission.note_cancelled(row.task)
    if quiet:
        print(json.dumps({"cancelled": [row.task for row in alive]}))
        return 0
    for row in alive:
        goes_on = f"; fullrank resume {row.run} goes on" if row.run and row.found.state == "running" else ""
        say(f"cancelled {row.task}  {row.submission.tasks[row.task].name}{goes_on}")
    return 0


def _watch(args: Jobs) -> list[Row]:
    """Show the jobs until all have ended."""
    from rich.live import Live

    from fullrank.report.run.terminal import is_live

    console = terminal(stderr=args.json, highlight=False)
    seen: dict[str, str] = {}
    rows = read_rows(args)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            if is_live() and not args.json:
                live.update(_table(rows[:MOST_SHOWN]), refresh=True)
            elif not args.json:
                _say_changes(rows, seen)
            if all(row.found.has_ended for row in rows):
                return rows
            time.sleep(PAUSE)
            try:
                rows = read_rows(args)
            except UsageError:
                raise
            except FullrankError as error:  # a controller that is busy
                say(f"note    {error}", sys.stderr)


def _say_changes(rows: Sequence[Row], seen: dict[str, str]) -> None:
    for row in rows:
        if seen.get(row.task) != row.found.state:
            seen[row.task] = row.found.state
            say(f"{row.task}  {row.submission.tasks[row.task].name}  {row.found.state}")


def _progress(run: str) -> Mapping[str, Any]:
    """How far a run is, by its records."""
    if not run or not Path(run, "config.yaml").is_file():
        return {}
    from fullrank.report.run.reading import read_run
    from fullrank.report.run.summary import summarise

    try:
        found = read_run(run)
    except UsageError:  # as it begins
        return {}
    summary = summarise(found)
    epochs = found.config.get("epochs")
    return {"epoch": summary.epoch, "epochs": epochs, "loss": summary.loss, "verdict": summary.style.word}


def _table(rows: Sequence[Row]) -> RenderableType:
    from rich.text import Text

    from fullrank.figures.style import BLUE, GREEN, GREY, RED, number
    from fullrank.report.tables import plain_table

    colours = {"running": BLUE, "done": GREEN, "failed": RED, "lost": RED}
    columns = ("Job", "State", "Run", "Epoch", "Loss", "Verdict", "Time", "Limit", "Where")
    table = plain_table(columns, left=("Job", "State", "Run", "Verdict", "Where"), wrap=("Run", "Where"))
    for row in rows:
        queued, far = row.found.queued, _progress(row.run)
        place = queued.nodes or f"({row.found.why})" * bool(row.found.why) if queued else ""
        table.add_row(
            row.task,
            Text(row.found.state, colours.get(row.found.state, GREY)),
            row.submission.tasks[row.task].name,
            f"{far['epoch']}/{far['epochs']}" if far else "",
            number(far["loss"], 4) if far else "",
            str(far.get("verdict", "")),
            queued.elapsed if queued else "",
            queued.limit if queued else "",
            place if not row.found.has_ended else "",
        )
    return table
