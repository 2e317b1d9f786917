"""Order of a cure's jobs, without those that prove nothing or have no time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from fullrank.cures.pace import Pace
from fullrank.cures.plan import LEAST_EPOCHS, UNTREATED, CurePlan, expected_jobs
from fullrank.cures.result import has_gained
from fullrank.figures.style import counted, duration
from fullrank.jobs.job import Job, Notify
from fullrank.training.records import EpochRecord, RunRecord

SLACK = 1.1  # of the budget, that an estimate may lie above it before anything is cut
Fate = Literal["go", "wait", "left out"]
LEFT_OUT: Literal["left out"] = "left out"


class CureAgenda:
    """Which job of a cure begins next, and what is cut where the budget runs out.

    A treatment goes on to its next seed where it was healthy, and worth more than untreated, in all seeds
    before: another one cannot have cured. Where epochs take longer than the plan had them, arms are compared
    at an earlier epoch, then treatments that have not begun are cut, then further seeds.

    Args:
        plan: what is to be done.
        jobs: all of its jobs.
        done: names of those that have a result.
        at_once: jobs at a time.
        spent: seconds that were spent earlier.
        fixed: whether the epochs were asked for, and stay.
        notify: told of every change and record.
        say: takes a line on what is cut.
        save: keeps a plan that was cut.
        clock: seconds.
    """

    def __init__(
        self,
        plan: CurePlan,
        jobs: Sequence[Job],
        done: Iterable[str],
        at_once: int,
        spent: float,
        fixed: bool,
        notify: Notify,
        say: Callable[[str], None],
        save: Callable[[CurePlan], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.jobs, self.spent, self.fixed = plan, list(jobs), spent, fixed
        self.states = {job.name: "waiting" for job in jobs} | dict.fromkeys(done, "done")
        self.pace = Pace(at_once, clock)
        self._notify, self._say, self._save = notify, say, save
        self._gained = dict[str, bool]()
        self._warned = False
        self._at = {(job.arm, job.seed or 0): job for job in jobs}

    def __call__(self, job: Job, state: str, detail: RunRecord | str | None) -> None:
        """Take in what a job is doing, and tell of it."""
        if state == "running" and detail is None:
            self.pace.begin(job.name)
        self.states[job.name] = state
        self._notify(job, state, detail)
        if isinstance(detail, EpochRecord) and state == "running":
            self.pace.reach(job.name, detail.epoch)
            self._shorten()

    def __bool__(self) -> bool:
        return "waiting" in self.states.values()

    @property
    def left_out(self) -> list[str]:
        """Names of the jobs that are not run."""
        return [name for name, state in self.states.items() if state == LEFT_OUT]

    def take(self) -> Job | None:
        """Take the job that begins next; None where that is not known yet."""
        for job in self.jobs:
            if self.states[job.name] != "waiting":
                continue
            fate = self._fate(job)
            if fate == LEFT_OUT:
                self._leave_out(job)
            elif fate == "go" and self._is_affordable(job):
                return job
        return None

    def _fate(self, job: Job) -> Fate:
        seed, seeds = job.seed or 0, self.plan.seeds
        if seed not in seeds or job.arm not in {arm.name for arm in self.plan.arms}:
            return LEFT_OUT
        if seed == seeds[0]:
            return LEFT_OUT if self.states[self._at[UNTREATED, seed].name] == "failed" else "go"
        if job.arm == UNTREATED:
            fates = {self._fate(self._at[arm.name, seed]) for arm in self.plan.arms[1:]}
            return "go" if "go" in fates else "wait" if "wait" in fates else LEFT_OUT
        before = seeds[seeds.index(seed) - 1]
        treated, untreated = self._at[job.arm, before], self._at[UNTREATED, before]
        states = {self.states[treated.name], self.states[untreated.name]}
        if states == {"done"}:
            if treated.name not in self._gained:
                self._gained[treated.name] = has_gained(self.plan, treated, untreated)
            return "go" if self._gained[treated.name] else LEFT_OUT
        return LEFT_OUT if states & {"failed", LEFT_OUT} else "wait"

    def _leave_out(self, job: Job) -> None:
        first = self.plan.seeds[0]
        before = [seed for seed in self.plan.seeds if self.states[self._at[job.arm, seed].name] == "done"]
        if job.arm != UNTREATED and job.seed != first and (job.seed or 0) in self.plan.seeds and before:
            rest = [seed for seed in self.plan.seeds if seed > before[-1]]
            if rest and rest[0] == job.seed:
                self._say(
                    f"left out  {job.arm}: not healthy, or not worth more than untreated, with seed "
                    f"{before[-1]}; {counted(len(rest), 'further seed')} can prove nothing"
                )
        self.states[job.name] = LEFT_OUT
        self._notify(job, LEFT_OUT, None)

    # what there is time for

    @property
    def _budget(self) -> float | None:
        return None if self.plan.minutes is None or not self.pace.known else 60 * self.plan.minutes

    def _needed(self, until: int, jobs: Iterable[Job]) -> float:
        """Seconds from the beginning to the end of what is running and of these."""
        begins, running = self.plan.begins, list[int]()
        for name, state in self.states.items():
            if state == "running":
                reached = self.pace.reached(name)
                running.append(max(until - (begins if reached is None else reached), 0))
        waiting = [until - begins for _ in jobs]
        return self.spent + self.pace.elapsed + self.pace.left([*running, *waiting], len(waiting))

    def _expected(self) -> list[Job]:
        """Jobs that wait, if half of the treatments go on after the first seed."""
        seeds, arms = self.plan.seeds, len(self.plan.arms)
        waiting = [job for job in self.jobs if self.states[job.name] == "waiting" and job.seed in seeds]
        begun = [job for job in waiting if job.seed == seeds[0]]
        most = expected_jobs(arms, len(seeds)) - arms
        return begun + [job for job in waiting if job.seed != seeds[0]][:most]

    @property
    def _least(self) -> int:
        """The earliest epoch that arms may be compared at."""
        return self.plan.until if self.fixed else min(self.plan.until, self.plan.begins + LEAST_EPOCHS)

    def _shorten(self) -> None:
        """Bring the epoch of the comparison forward, as soon as a job comes near to it."""
        budget, until, jobs = self._budget, self.plan.until, self._expected()
        first = [self.states[self._at[arm.name, self.plan.seeds[0]].name] for arm in self.plan.arms]
        if budget is None or not set(first) & {"waiting", "running"}:
            return
        if self._needed(until, jobs) <= SLACK * budget:
            return
        least = self._least
        fits = [epoch for epoch in range(least, until) if self._needed(epoch, jobs) <= budget]
        best = max(fits, default=least)
        running = [name for name, state in self.states.items() if state == "running"]
        furthest = max((self.pace.reached(name) or 0 for name in running), default=0)
        if best < until and furthest + 1 >= best:
            self._cut(
                f"an epoch takes {duration(self.pace.epoch)}: arms are compared at epoch {best}, not {until}",
                until=best,
                planned=self.plan.planned or until,
            )

    def _is_affordable(self, job: Job) -> bool:
        """Whether there is time for a job; what there is no time for is cut from the plan."""
        budget = self._budget
        if budget is None or (job.arm == UNTREATED and job.seed == self.plan.seeds[0]):
            return True
        if job.seed == self.plan.seeds[0]:
            return self._keeps_arm(job, SLACK * budget)
        same = [other for other in self.jobs if other.seed == job.seed and self._may_come(other)]
        if self._needed(self.plan.until, same) <= SLACK * budget:
            return True
        kept = self.plan.seeds[: self.plan.seeds.index(job.seed or 0)]
        cut = counted(len(self.plan.seeds) - len(kept), "seed")
        self._cut(f"{cut} of {len(self.plan.seeds)} left out, for which no time is left", seeds=kept)
        return False

    def _may_come(self, job: Job) -> bool:
        return self.states[job.name] == "waiting" and self._fate(job) != LEFT_OUT

    def _keeps_arm(self, job: Job, limit: float) -> bool:
        while len(self.plan.arms) > 2 and self._needed(self._least, self._expected()) > limit:
            last = self.plan.arms[-1].name
            if self.states[self._at[last, self.plan.seeds[0]].name] != "waiting":
                return True
            self._cut(f"“{last}” is left out, for which no time is left", arms=self.plan.arms[:-1])
            if last == job.arm:
                return False
        seconds = self._needed(self._least, self._expected()[:1])
        if len(self.plan.arms) == 2 and seconds > limit and not self._warned:
            self._warned = True
            self._say(f"note      the least that tells anything takes about {duration(seconds)} in all")
        return True

    def _cut(self, why: str, **changes: object) -> None:
        minutes = duration(60 * (self.plan.minutes or 0.0))
        note = f"{why}, so that it ends within about {minutes}"
        self.plan = replace(self.plan, notes=[*self.plan.notes, note], **changes)  # type: ignore[arg-type]
        self._save(self.plan)
        self._say(f"cut       {note}")
