"""The live table of jobs: redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from fullrank.figures.style import duration
from fullrank.jobs.job import Job
from fullrank.terminal import say, terminal
from fullrank.training.records import EpochRecord, RunRecord


class _Summary(Protocol):
    def take(self, record: RunRecord, /) -> None: ...


S = TypeVar("S", bound=_Summary)
ENDED = ("done", "failed", "left out")


@dataclass
class Standing(Generic[S]):
    """Job state: waiting, running, done, failed or left out, and a record summary."""

    job: Job
    summary: S
    state: str = "waiting"
    error: str = ""


class LiveJobs(Generic[S]):
    """Self-updating table of several jobs: call it as the pool notifies.

    Args:
        jobs: in the order in which they are shown.
        summarise: makes the summary of a job, by its name; it takes the records of the job's run.
        table: renders the table, from this object and the width of the console.
        line: what one job has come to, for a plain line.
        mode: "live", "plain" or "quiet".
        each: when plain lines are printed: as a "job" ends, or at each "epoch".
        transient: whether the live table goes away at the end, as where another one follows.

    Attributes:
        standings: of every job, by its name.

    Example:
        >>> class Epochs(list):
        ...     take = list.append
        >>> job = Job("SimSiam", 0)
        >>> with LiveJobs([job], lambda _: Epochs(), lambda *_: "", lambda s: s.state, "plain") as live:
        ...     live(job, "running", EpochRecord(epoch=1))
        ...     live(job, "done", None)
        begins  SimSiam, seed 0
        1/1  SimSiam, seed 0  done
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        summarise: Callable[[str], S],
        table: Callable[[LiveJobs[S], int], RenderableType],
        line: Callable[[Standing[S]], str],
        mode: str,
        each: str = "job",
        transient: bool = False,
    ) -> None:
        self.standings = {job.name: Standing(job, summarise(job.name)) for job in jobs}
        self.table, self.line, self.mode, self.each = table, line, mode, each
        self.console = terminal(force_terminal=mode == "live" or None)
        self.begun, self.ready = time.perf_counter(), 0
        self.width = max(map(len, self.standings), default=0)
        shown = partial(Live, self, console=self.console, refresh_per_second=4, transient=transient)
        self._live = shown() if mode == "live" else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, job: Job, state: str, detail: RunRecord | str | None) -> None:
        """Take in what a job is doing.

        Raises:
            KeyError: there is no such job.
        """
        found = self.standings[job.name]
        if detail is not None and not isinstance(detail, str) and detail.event != "start":
            found.summary.take(detail)
        begins = found.state == "waiting" and state == "running"
        earlier = found.state == "waiting" and state in ("done", "left out")
        self.ready += earlier  # done before we came, or never
        found.state, found.error = state, detail if isinstance(detail, str) else ""
        if self.mode != "plain" or earlier:
            return
        if self.each == "epoch" and isinstance(detail, EpochRecord):
            say(f"{job.name:<{self.width}}  {self.line(found)}")
        elif self.each == "job" and state in ENDED:
            place = f"{self.ended:>{len(str(len(self.standings)))}}/{len(self.standings)}"
            left = self.seconds_left if self.ended < len(self.standings) else None
            rest = "" if left is None else f"; about {duration(left)} left"
            say(f"{place}  {job.name:<{self.width}}  {self.line(found)}{rest}")
        elif self.each == "job" and begins:
            say(f"begins  {job.name}")

    def tell(self, line: str) -> None:
        """Print a line beside the table; nothing where it is quiet."""
        if self.mode == "plain":
            say(line)
        elif self.mode == "live":
            self.console.print(Text(line), soft_wrap=True)

    @property
    def ended(self) -> int:
        """How many jobs have ended, well or not."""
        return sum(found.state in ENDED for found in self.standings.values())

    @property
    def seconds(self) -> float:
        """Since the table was made."""
        return time.perf_counter() - self.begun

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the jobs that have ended since; None before one has."""
        fresh = self.ended - self.ready
        return self.seconds / fresh * (len(self.standings) - self.ended) if fresh else None

    def __rich__(self) -> RenderableType:
        return self.table(self, self.console.width)
