"""`fullrank lab NAME --dry-run`: the runs of a lab, and about how long they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fullrank.cli.arguments import make_console
from fullrank.figures.style import counted, duration
from fullrank.terminal import say

if TYPE_CHECKING:
    from fullrank.jobs.job import Job
    from fullrank.labs._common.run import Plan


@dataclass(frozen=True)
class Forecast:
    """A run of a lab with its cost.

    Attributes:
        job: what runs.
        done: whether it has a result.
        seconds: that it took, or else about takes; None where no finished run tells.
    """

    job: Job
    done: bool
    seconds: float | None

    @property
    def epochs(self) -> int | None:
        """Of its training; None where nothing is trained."""
        return (self.job.until or self.job.config().epochs) if self.job.train else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: name, part, arm, seed, epochs, done, seconds."""
        job = self.job
        about = {"name": job.name, "part": job.part, "arm": job.arm, "seed": job.seed}
        return {**about, "epochs": self.epochs, "done": self.done, "seconds": self.seconds}


def forecasts(plan: Plan, out: Path) -> list[Forecast]:
    """Requested runs, each with the mean time of its arm's finished ones, else of all."""
    from fullrank.jobs.once import result_of

    took = {job.name: float(found["seconds"]) for job in plan.jobs if (found := result_of(job, out))}
    by_arm: dict[tuple[str, str], list[float]] = {}
    for job in plan.jobs:
        if job.name in took:
            by_arm.setdefault((job.part, job.arm), []).append(took[job.name])
    known = []
    for job in plan.wanted:
        alike = by_arm.get((job.part, job.arm)) or list(took.values())
        about = took.get(job.name, fmean(alike) if alike else None)
        known.append(Forecast(job, job.name in took, about))
    return known


def print_plan(plan: Plan, out: Path, at_once: int, as_json: bool) -> int:
    """Print the runs and their cost; nothing is run or written."""
    from fullrank.jobs.once import jobs_at_once

    known = forecasts(plan, out)
    left = [each for each in known if not each.done]
    at_once = max(1, min(at_once or jobs_at_once(len(left)), len(left)))
    times = [each.seconds for each in left if each.seconds is not None]
    seconds = sum(times) / at_once if len(times) == len(left) else None
    if as_json:
        about = {key: plan.values[key] for key in ("lab", "preset")}
        runs = [each.as_dict() for each in known]
        print(json.dumps({"state": "planned", **about, "runs": runs, "at_once": at_once, "seconds": seconds}))
        return 0
    make_console(120).print(_table(known))
    if not left:
        say("every job has a result: --report-only writes the page")
        return 0
    cost = f"about {duration(seconds)}" if seconds is not None else "no finished run tells how long"
    epochs = sum(each.epochs or 0 for each in left)
    many = f"{counted(len(left), 'run')} of {len(known)} to do"
    if epochs:
        many += f", {counted(epochs, 'epoch')} in all"
    say(f"plan      {many}, {at_once} at a time: {cost}")
    return 0


def _table(known: Sequence[Forecast]) -> Any:
    """A row for each arm."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("Part", "Arm"):
        table.add_column(column, overflow="fold")
    for column in ("Runs", "Done", "Epochs each", "Time each"):
        table.add_column(column, justify="right", no_wrap=True)
    arms: dict[tuple[str, str], list[Forecast]] = {}
    for each in known:
        arms.setdefault((each.job.part, each.job.arm), []).append(each)
    for (part, arm), runs in arms.items():
        done = str(sum(run.done for run in runs))
        times = [run.seconds for run in runs if run.seconds is not None]
        time = duration(fmean(times)) if times else "–"
        table.add_row(Text(part), Text(arm), str(len(runs)), done, str(runs[0].epochs or "–"), time)
    return table
