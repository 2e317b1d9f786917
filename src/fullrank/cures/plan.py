"""Plan of a cure: arms from one checkpoint or from the start, seeds, and epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fullrank.collapse.treatments import TREATMENTS, Advice, advice
from fullrank.cures.branch import begin_branch, healthy_checkpoint
from fullrank.cures.onset import Diagnosis
from fullrank.cures.options import CureOptions
from fullrank.errors import DataError, UsageError
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, jobs_at_once
from fullrank.jobs.pool import cores
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import summarise
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.config import TrainConfig
from fullrank.training.contract import with_changes
from fullrank.training.run_dir import RunDir
from fullrank.training.treatments import prescriptions
from fullrank.untrusted.parsing import read_json

UNTREATED = "untreated"
LEAST_EPOCHS = 3  # the first two panels may be passing dips
LEAST_MINUTES = 8.0  # of the default budget: epochs of a second leave ten seconds to tell
EPOCHS_OF_BUDGET = 10  # epochs of the run, that the default budget is worth
PLAN = "plan.json"


@dataclass(frozen=True)
class Arm:
    """One way to go on.

    Attributes:
        name: of its treatment, or `untreated`.
        changes: settings to their new values, a method's own as `options.NAME`.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def advice(self) -> Advice | None:
        """What is known of the treatment; None of the untreated arm."""
        return advice(TREATMENTS[self.name]) if self.name in TREATMENTS else None

    def words(self, config: TrainConfig) -> str:
        """The changes in a line, as "lr 0.5 → 0.05"."""
        before = config.as_dict()
        flat = before | {f"options.{key}": value for key, value in before["options"].items()}
        return ", ".join(f"{key} {flat.get(key)} → {value}" for key, value in self.changes.items())


@dataclass(frozen=True)
class CurePlan:
    """What a cure does.

    Attributes:
        run: the collapsed run's directory.
        out: where arms, table and page go.
        diagnosis: of the run.
        arms: the untreated one first, then by promise.
        seeds: the run's own first.
        begins: epoch of the checkpoint that the arms go on from; 0: from the start of the run.
        until: epoch at which they are compared.
        epoch_seconds: what an epoch of the run took on average, with its evaluations.
        seconds: about how long all arms take here; None where the records do not tell.
        notes: a line each.
        minutes: that all of it may take; None: as long as it takes.
        planned: epoch that arms were to be compared at, where that has been brought forward; 0: it was not.
    """

    run: Path
    out: Path
    diagnosis: Diagnosis
    arms: Sequence[Arm]
    seeds: Sequence[int]
    begins: int
    until: int
    epoch_seconds: float | None = None
    seconds: float | None = None
    notes: Sequence[str] = ()
    minutes: float | None = None
    planned: int = 0

    def config(self) -> TrainConfig:
        """Settings of all arms: the run's, on one device, watched at every epoch."""
        config = RunDir.open(self.run).config()
        return replace(
            config,
            out="",
            devices=min(config.devices, 1),  # arms run side by side, of which none can start processes
            num_nodes=1,
            watch_every=1,
            knn_every=1,
            on_collapse="warn",
            early_stop=0,
            keep_checkpoints=1,
            keep_every=0,
            log=(),
        )

    def jobs(self) -> list[Job]:
        """A training run for each arm and seed, seed by seed."""
        config = self.config()
        found = []
        for seed in self.seeds:
            for arm in self.arms:
                train = with_changes(config, arm.changes).as_dict()
                del train["seed"]
                found.append(Job(arm.name, seed, train, until=self.planned or self.until))
        return found

    def prepare(self) -> None:
        """Make the run directories of the arms that go on from a checkpoint."""
        if not self.begins:
            return
        source = RunDir.open(self.run)
        found = _checkpoint_at(source, self.begins)
        for job in self.jobs():
            treatment = TREATMENTS.get(job.arm)
            anew = treatment is not None and treatment.anew
            begin_branch(source, found, job.config(), folder_of(job, self.out) / "run", anew)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = asdict(self) | {"diagnosis": self.diagnosis.as_dict()}
        return dict(json.loads(json.dumps(values, default=str)))


def plan_cure(run: Run, diagnosis: Diagnosis, options: CureOptions, out: Path) -> CurePlan:
    """Plan the cure of a collapsed run, within a budget.

    Raises:
        UsageError: no treatment changes a setting of the run; or its configuration cannot be read.
    """
    source = RunDir.open(run.path)
    config = source.config()
    found = prescriptions(config, diagnosis.kinds)
    if not found:
        raise UsageError(
            f"no treatment of {' and '.join(diagnosis.kinds)} collapse changes a setting of {run.path}: see "
            "`fullrank list methods` for methods that hold by other means"
        )
    notes = list[str]()
    loaded = _before(source, diagnosis, config, notes)
    begins = int(loaded.state["progress"]["epoch"]) if loaded else 0
    left = config.epochs - begins
    arms = [Arm(UNTREATED), *(Arm(one.treatment.name, dict(one.changes)) for one in found[: options.most])]
    seeds = [config.seed + place for place in range(options.seeds)]
    epoch_seconds = _epoch_seconds(run)
    pace = None if epoch_seconds is None else epoch_seconds * _threads_share(run, len(arms) * len(seeds))
    minutes = _budget(options, epoch_seconds)
    epochs = options.epochs or min(left, LEAST_EPOCHS)
    if pace is not None and minutes is not None and not options.epochs:
        within = math.floor(60 * minutes / max(pace * expected_jobs(len(arms), len(seeds)), 1e-9))
        epochs = min(left, max(within, LEAST_EPOCHS))
        arms, seeds = _affordable(arms, seeds, epochs, 60 * minutes / max(pace, 1e-9), notes)
    epochs = min(epochs, left)
    seconds = None if pace is None else pace * epochs * expected_jobs(len(arms), len(seeds))
    until = begins + epochs
    return CurePlan(
        run.path, out, diagnosis, arms, seeds, begins, until, epoch_seconds, seconds, notes, minutes
    )


def _budget(options: CureOptions, epoch_seconds: float | None) -> float | None:
    """Minutes that a cure may take; None for given epochs, or where nothing tells."""
    if options.minutes:
        return options.minutes
    if options.epochs or epoch_seconds is None:
        return None
    return max(EPOCHS_OF_BUDGET * epoch_seconds / 60, LEAST_MINUTES)


def expected_jobs(arms: int, seeds: int) -> int:
    """Jobs of a cure, if half of the treatments go on after the first seed.

    Example:
        >>> expected_jobs(5, 3), expected_jobs(2, 3), expected_jobs(5, 1)
        (11, 6, 5)
    """
    return arms + (seeds - 1) * (1 + math.ceil((arms - 1) / 2))


def _affordable(
    arms: list[Arm], seeds: list[int], epochs: int, budget: float, notes: list[str]
) -> tuple[list[Arm], list[int]]:
    """Arms and seeds within a budget of epochs: the least promising go first."""
    treatments, asked = len(arms) - 1, len(seeds)
    while len(arms) > 2 and expected_jobs(len(arms), len(seeds)) * epochs > budget:
        arms = arms[:-1]
    while len(seeds) > 1 and expected_jobs(len(arms), len(seeds)) * epochs > budget:
        seeds = seeds[:-1]
    cuts = [f"{len(arms) - 1} of {treatments} treatments"] * (len(arms) - 1 < treatments)
    cuts += [f"{len(seeds)} of {asked} seeds"] * (len(seeds) < asked)
    if cuts:
        notes.append(f"the budget allows {' and '.join(cuts)}: more --minutes try more")
    return arms, seeds


def _before(
    source: RunDir, diagnosis: Diagnosis, config: TrainConfig, notes: list[str]
) -> LoadedCheckpoint | None:
    """The checkpoint to branch from; None for the start."""
    if diagnosis.healthy is None:
        notes.append("the run never was healthy: it is treated from its start")
        return None
    found = healthy_checkpoint(source, diagnosis.onset or config.epochs + 1)
    if found is None:
        notes.append(
            f"it was healthy until epoch {diagnosis.healthy}, and no checkpoint from then is on the disk: it "
            "is treated from its start"
        )
        return None
    epoch = int(found.state["progress"]["epoch"])
    if config.epochs - epoch < min(LEAST_EPOCHS, config.epochs // 2):
        notes.append(
            f"it was healthy until epoch {diagnosis.healthy} of {config.epochs}, which leaves too few epochs "
            "to tell: it is treated from its start"
        )
        return None
    return found


def _checkpoint_at(source: RunDir, epoch: int) -> LoadedCheckpoint:
    found = healthy_checkpoint(source, epoch + 1)
    if found is None or int(found.state["progress"]["epoch"]) != epoch:
        raise UsageError(
            f"{source.path} has no checkpoint of epoch {epoch} any more, from which the cure was to go on: "
            "take another --out"
        )
    return found


def _epoch_seconds(run: Run) -> float | None:
    """Mean time of an epoch, with evaluations; None where the records do not tell."""
    summary = summarise(run)
    if not summary.epoch or not summary.elapsed:
        return None
    return summary.elapsed / summary.epoch


def _threads_share(run: Run, jobs: int) -> float:
    """Share of this machine that one job takes: time of all is the sum times that."""
    if jobs_at_once(jobs) == 1:
        return 1.0
    threads = run.environment.get("cpu_threads")
    return min(1.0, max(1, threads if isinstance(threads, int) else 1) / cores())


def read_plan(run: Path, out: Path) -> CurePlan | None:
    """The plan that a folder holds; None where it holds none.

    Raises:
        UsageError: the folder holds something else, or a plan for another run.
    """
    if not out.exists() or (out.is_dir() and not any(not p.name.startswith(".") for p in out.iterdir())):
        return None
    if not (out / PLAN).is_file():
        raise UsageError(f"{out} exists already and holds no cure: take another --out")
    try:
        values = read_json(out / PLAN)["plan"]
        if Path(values["run"]).name != run.name:
            raise UsageError(f"{out} holds the cure of {values['run']}: take another --out")
        stored = values["diagnosis"]
        diagnosis = Diagnosis(**stored | {key: tuple(stored[key]) for key in ("kinds", "evidence")})
        arms = [Arm(str(arm["name"]), dict(arm["changes"])) for arm in values["arms"]]
        rest = {key: values[key] for key in ("seeds", "begins", "until", "epoch_seconds", "seconds", "notes")}
        minutes = None if values.get("minutes") is None else float(values["minutes"])
        planned = int(values.get("planned") or 0)
        return CurePlan(run, out, diagnosis, arms, **rest, minutes=minutes, planned=planned)
    except (DataError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{out / PLAN} is damaged: take another --out") from error
