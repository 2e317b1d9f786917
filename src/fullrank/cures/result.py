"""What each arm of a cure is worth, and which one to go on with."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fullrank.cures.onset import collapsed_kinds, is_healthy
from fullrank.cures.plan import UNTREATED, Arm, CurePlan
from fullrank.errors import FullrankError
from fullrank.figures.style import VerdictStyle, counted, percent, style_of
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, result_of
from fullrank.report.compare.estimates import Estimate, estimate
from fullrank.report.run.reading import Run, read_run
from fullrank.report.run.summary import summarise


@dataclass(frozen=True)
class Outcome:
    """One run of an arm, at the epoch of the comparison.

    Attributes:
        seed: of the run.
        path: its directory.
        kind: its verdict; a collapse of projector or codes where the main one is healthy.
        healthy: whether it is healthy, codes included.
        probability: of a collapse, by its verdict.
        rank, rankme: of the judged embedding: effective rank, and that of RankMe.
        knn: accuracy on held-out images; None without labels.
        epoch: at which this was measured.
        run: its records until then.
    """

    seed: int
    path: Path
    kind: str
    healthy: bool
    probability: float | None
    rank: float | None
    rankme: float | None
    knn: float | None
    epoch: int
    run: Run


def read_outcome(path: Path, seed: int, until: int) -> Outcome:
    """Read what a run of an arm had come to after `until` epochs, wherever it is now.

    Raises:
        FullrankError: it has no verdict.
    """
    run = _until(read_run(path), until)
    judged = [record for record in run.epochs if record.epoch and record.verdict]
    if not judged:
        raise FullrankError(f"{path} has no verdict")
    last, summary = judged[-1], summarise(run)
    kinds = collapsed_kinds(last)
    kind = str(last.verdict.get("kind"))
    return Outcome(
        seed,
        path,
        kinds[0] if kinds else kind,
        is_healthy(last),
        summary.judgement.probability if not kinds or kinds[0] == kind else None,
        summary.rank,
        summary.measure("rankme_uncentred"),
        last.accuracy("knn"),
        last.epoch,
        run,
    )


def _until(run: Run, epoch: int) -> Run:
    """A run as it was after so many epochs: the winner may have gone on since."""
    kept = [record for record in run.epochs if record.epoch <= epoch]
    last = kept[-1].step if kept else 0
    return replace(run, epochs=kept, steps=[record for record in run.steps if record.step <= last], end=None)


def has_gained(plan: CurePlan, treated: Job, untreated: Job) -> bool:
    """Whether a treated job is healthy, and beats the untreated one of its seed.

    Where it is not, no further seed of that arm can make it one that cured.
    """
    one, other = (
        read_outcome(folder_of(job, plan.out) / "run", job.seed or 0, plan.until)
        for job in (treated, untreated)
    )
    by = "rank" if other.knn is None else "knn"
    value, beside = getattr(one, by), getattr(other, by)
    return one.healthy and value is not None and beside is not None and value > beside


@dataclass(frozen=True)
class ArmResult:
    """What an arm has come to over its seeds.

    Attributes:
        arm: with its changes.
        outcomes: one a seed that ended.
        failed: seed to what went wrong.
        left_out: seeds that were not trained, for they could prove nothing.
    """

    arm: Arm
    outcomes: Sequence[Outcome] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    left_out: Sequence[int] = ()

    @property
    def name(self) -> str:
        """Of the arm."""
        return self.arm.name

    @property
    def healthy(self) -> int:
        """Seeds that are healthy."""
        return sum(outcome.healthy for outcome in self.outcomes)

    @property
    def kinds(self) -> Counter[str]:
        """Seeds by verdict."""
        return Counter(outcome.kind for outcome in self.outcomes)

    @property
    def style(self) -> VerdictStyle:
        """Of the most frequent verdict, a collapse before healthy."""
        kinds = [kind for kind, _ in self.kinds.most_common()] or ["not decidable"]
        return style_of(next((kind for kind in kinds if kind != "healthy"), kinds[0]))

    def value(self, name: str) -> Estimate:
        """A number of the outcomes, over seeds."""
        return estimate(getattr(outcome, name) for outcome in self.outcomes)

    def gain(self, untreated: ArmResult, name: str) -> Estimate:
        """What a number is above that of the untreated arm, seed by seed."""
        theirs = {outcome.seed: getattr(outcome, name) for outcome in untreated.outcomes}
        pairs = [(getattr(one, name), theirs.get(one.seed)) for one in self.outcomes]
        return estimate(a - b for a, b in pairs if a is not None and b is not None)


@dataclass(frozen=True)
class Cure:
    """The cure of a run: why, how, and what each arm was worth.

    Attributes:
        plan: with the diagnosis.
        arms: what each has come to, the untreated one first.
        page: where it is shown; None where it was not written.
    """

    plan: CurePlan
    arms: Sequence[ArmResult]
    page: Path | None = None

    @property
    def untreated(self) -> ArmResult:
        """The arm with the run's own settings."""
        return next(arm for arm in self.arms if arm.name == UNTREATED)

    @property
    def treated(self) -> list[ArmResult]:
        """All other arms."""
        return [arm for arm in self.arms if arm.name != UNTREATED]

    @property
    def compared_by(self) -> str:
        """What arms are compared by: `knn`, or without labels `rank`."""
        return "knn" if self.untreated.value("knn").n else "rank"

    def cured(self, arm: ArmResult) -> bool:
        """Whether an arm is healthy, and worth more than the untreated one, in every seed."""
        gains = arm.gain(self.untreated, self.compared_by).values
        seeds = len(self.plan.seeds)
        return arm.healthy == seeds and len(gains) == seeds and min(gains) > 0

    @property
    def winner(self) -> ArmResult | None:
        """The arm that cured with the highest gain; None where none did."""
        found = [arm for arm in self.treated if self.cured(arm)]
        return max(
            found, key=lambda arm: arm.gain(self.untreated, self.compared_by).mean or 0.0, default=None
        )

    @property
    def best(self) -> Outcome | None:
        """Run of the winner with the run's own seed."""
        return self.winner.outcomes[0] if self.winner else None

    @property
    def command(self) -> str:
        """The command that goes on with the winner; empty where there is none."""
        if self.best is None:
            return ""
        epochs = self.plan.config().epochs
        reached = read_run(self.best.path).epochs[-1].epoch  # an arm may have gone beyond the comparison
        longer = ["--epochs", str(2 * epochs)] if reached >= epochs else []
        return shlex.join(["fullrank", "resume", str(self.best.path), *longer])

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        if self.winner is not None:
            gain = self.winner.gain(self.untreated, self.compared_by).mean or 0.0
            points, rank = f"{100 * gain:+.1f} points of k-NN", f"{gain:+.1f} of effective rank"
            by = points if self.compared_by == "knn" else rank
            than = f"{by} over the untreated arm{self._below_untrained}"
            if len(self.plan.seeds) == 1:
                only = "in one seed, which is too few to say cured"
                return f"Promising: “{self.winner.name}” is healthy, {than}, {only}"
            seeds = counted(len(self.plan.seeds), "seed")
            return f"Cured by “{self.winner.name}”: healthy in {seeds}, {than}"
        if self.untreated.outcomes and self.untreated.healthy == len(self.untreated.outcomes):
            return "The untreated arm is healthy, too: the collapse did not come back"
        return "Not cured: no treatment is healthy and worth more than the untreated arm in every seed"

    @property
    def state(self) -> str:
        """Whether a treatment cured, in several seeds or in one."""
        if self.winner is None:
            return "not cured"
        return "cured" if len(self.plan.seeds) > 1 else "promising"

    @property
    def notes(self) -> list[str]:
        """What was cut or left out, a line each, after the notes of the plan."""
        few = (
            "a treatment that is not healthy, or not worth more than untreated, with one seed is not trained "
            "with further ones: it can no longer cure in every seed"
        )
        return [*self.plan.notes, *([few] if any(arm.left_out for arm in self.treated) else [])]

    @property
    def untrained(self) -> float | None:
        """k-NN accuracy of the network that the run began with, where that is on record."""
        records = [record for record in read_run(self.plan.run).epochs if not record.epoch]
        return records[0].accuracy("knn") if records else None

    @property
    def _below_untrained(self) -> str:
        """A clause where even the winner is worth less than the untrained network."""
        reached = self.winner.value("knn").mean if self.winner else None
        began = self.untrained
        if reached is None or began is None or reached >= began:
            return ""
        return f", though at {percent(reached)} still below the {percent(began)} of the untrained network"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plan = self.plan.as_dict()
        return {
            "state": self.state,
            "untrained_knn": self.untrained,
            "run": plan["run"],
            "diagnosis": plan["diagnosis"],
            "begins": plan["begins"],
            "until": plan["until"],
            "seeds": plan["seeds"],
            "compared_by": self.compared_by,
            "arms": [self._arm(arm) for arm in self.arms],
            "winner": self.winner.name if self.winner else None,
            "headline": self.headline,
            "command": self.command,
            "notes": self.notes,
            "page": str(self.page) if self.page else None,
        }

    def _arm(self, arm: ArmResult) -> dict[str, Any]:
        advised = arm.arm.advice
        values = {name: arm.value(name).as_dict() for name in ("probability", "rank", "rankme", "knn")}
        return {
            "name": arm.name,
            "changes": dict(arm.arm.changes),
            "standing": advised.standing if advised else None,
            "verdicts": dict(arm.kinds),
            "healthy": arm.healthy,
            **values,
            "gain": arm.gain(self.untreated, self.compared_by).as_dict() if arm.name != UNTREATED else None,
            "cured": self.cured(arm) if arm.name != UNTREATED else None,
            "runs": [str(outcome.path) for outcome in arm.outcomes],
            "failed": {str(seed): why for seed, why in arm.failed.items()},
            "left_out": list(arm.left_out),
        }


def read_cure(
    plan: CurePlan, failed: Mapping[str, str] | None = None, left_out: Collection[str] = ()
) -> Cure:
    """What the arms of a plan have come to.

    Args:
        plan: whose jobs were run.
        failed: name of a job to what went wrong.
        left_out: names of jobs that could prove nothing.

    Raises:
        FullrankError: no untreated arm has ended.
    """
    failed = failed or {}
    by_arm: dict[str, tuple[list[Outcome], dict[int, str], list[int]]]
    by_arm = {arm.name: ([], {}, []) for arm in plan.arms}
    for job in plan.jobs():
        outcomes, wrong, passed_over = by_arm[job.arm]
        seed = job.seed or 0
        if result_of(job, plan.out):
            outcomes.append(read_outcome(folder_of(job, plan.out) / "run", seed, plan.until))
        elif job.name in left_out:
            passed_over.append(seed)
        else:
            wrong[seed] = failed.get(job.name, "not run yet")
    arms = [ArmResult(arm, *by_arm[arm.name]) for arm in plan.arms]
    if not arms[0].outcomes:
        why = next(iter(arms[0].failed.values()), "")
        raise FullrankError(f"no untreated arm has ended: {why}")
    return Cure(plan, arms)
