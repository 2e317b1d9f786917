"""The demo: SimSiam and three ablated copies of it, trained side by side."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group
from rich.text import Text

from fullrank.errors import FullrankError, UsageError
from fullrank.figures.style import GREY, counted, duration
from fullrank.jobs.command import run_commands
from fullrank.jobs.job import Job
from fullrank.jobs.live import LiveJobs
from fullrank.jobs.pool import cores
from fullrank.report.compare.page import write_comparison
from fullrank.report.run.arms import arms_table
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.run.terminal import epoch_line
from fullrank.terminal import say
from fullrank.training.recipes import load_recipe
from fullrank.training.records import EpochRecord, RunRecord

RECIPE, IMAGES = "shapes/simsiam", 4000
ARMS: dict[str, Sequence[str]] = {
    "SimSiam": (),
    "no predictor": ("--options.predictor", "none"),
    "no stop-gradient": ("--options.no-stop-gradient",),
    "no stop-gradient, no output BN": ("--options.no-stop-gradient", "--options.no-output-bn"),
}
TITLE = "Which of these has collapsed?"
INTRO = (
    "The same small encoder on the same images, trained as SimSiam and with something taken away. "
    "Invariance alone is easily had by a network that ignores its input: look at which arm has the best loss."
)


@dataclass(frozen=True)
class Demonstration:
    """Result of the demo: a summary of each arm, reference k-NN accuracies, the page."""

    summaries: Sequence[Summary]
    baselines: Mapping[str, float]
    page: Path


@dataclass
class Pace:
    """How long all arms take together, from the pace of those that train.

    Attributes:
        steps: of each arm.
        at_once: arms that train side by side.
        starting: seconds until the first arm had begun to train; None before.
        begun: when the first arms were started.

    Example:
        >>> from fullrank.training.records import StepRecord
        >>> fast = Summary("SimSiam")
        >>> fast.take(StepRecord(step=1, time={"elapsed": 1.0}))
        >>> fast.take(StepRecord(step=11, time={"elapsed": 2.0}))
        >>> pace = Pace(steps=101, at_once=2, starting=3.0)
        >>> round(pace.seconds_left([fast, Summary("a"), Summary("b"), Summary("c")]))
        23
    """

    steps: int
    at_once: int
    starting: float | None = None
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the first arms were started."""
        return time.perf_counter() - self.begun

    def seconds_left(self, arms: Sequence[Summary]) -> float | None:
        """Time until the last arm has ended; None before one has taken a few steps."""
        timed = [(arm, left) for arm in arms if (left := arm.seconds_left(self.steps)) is not None]
        paces = [left / (self.steps - arm.step) for arm, left in timed if arm.step < self.steps]
        free = self.at_once - sum(0 < arm.step < self.steps for arm in arms)
        waiting = max(sum(arm.step == 0 for arm in arms) - free, 0)
        if not paces:
            return None
        steps = sum(self.steps - arm.step for arm in arms)
        starts = math.ceil(waiting / self.at_once) * (self.starting or 0.0)
        return steps * sum(paces) / len(paces) / self.at_once + starts


def too_short(epochs: int) -> str:
    """Say that so few epochs are too few for a verdict; empty where they are not."""
    recipe = int(load_recipe(RECIPE).settings["epochs"])
    if not 0 < epochs < recipe:
        return ""
    return (
        f"{counted(epochs, 'epoch')} of the {recipe} that this demo is made for: too short for a verdict to "
        "last, and for k-NN to rise."
    )


def make_room(out: Path, replace: bool) -> dict[str, Path]:
    """Make the demo's folder and name its runs; `replace` permits clearing old ones.

    Raises:
        UsageError: something else is there.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: take another --out")
    if not replace and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} exists already: take another --out")
    runs = {name: out / name.replace(",", "").replace(" ", "-").lower() for name in ARMS}
    for run in runs.values():
        if run.exists():
            shutil.rmtree(run)
    out.mkdir(parents=True, exist_ok=True)
    return runs


def train_arms(runs: Mapping[str, Path], seed: int, epochs: int, mode: str, call: Callable[..., int]) -> None:
    """Train every arm in a process of its own, as many at a time as there are cores.

    `call` is the command line, given `argv`; 0 epochs are the recipe's.

    Raises:
        FullrankError: an arm failed; the others are ended.
    """

    def notify(job: Job, state: str, detail: RunRecord | str | None) -> None:
        live(job, state, detail)
        if state == "failed":
            raise FullrankError(f"the arm {job.name!r} failed: {detail}")
        if pace.starting is None and detail is not None:
            pace.starting = pace.seconds
        first = isinstance(detail, EpochRecord) and detail.epoch == 1 and not estimated
        if first and mode == "plain" and (left := pace.seconds_left(summaries(live))) is not None:
            estimated.append(left)
            whole = duration(pace.seconds + left)
            say(f"all {len(jobs)} arms take about {whole}, {duration(left)} of it left")

    def summaries(live: LiveJobs[Summary]) -> list[Summary]:
        return [found.summary for found in live.standings.values()]

    def table(live: LiveJobs[Summary], width: int) -> Group:
        left = pace.seconds_left(summaries(live))
        line = "" if left is None else f"about {duration(left)} left for all {len(jobs)} arms"
        return Group(arms_table(summaries(live), steps, width), Text(line, GREY))

    settings = load_recipe(RECIPE).settings
    steps = (epochs or int(settings["epochs"])) * (IMAGES // int(settings["batch_size"]))
    common = ["train", RECIPE, "--quiet", "--seed", str(seed), "--watch-every", "1"]
    common += ["--epochs", str(epochs)] if epochs else []
    commands = {name: [*common, *ARMS[name], "--out", str(run)] for name, run in runs.items()}
    jobs = [Job(name, measure=call, arguments={"argv": argv}) for name, argv in commands.items()]
    pace, estimated = Pace(steps, min(len(jobs), cores())), list[float]()
    with LiveJobs(
        jobs,
        Summary,
        table,
        lambda found: epoch_line(found.summary, None, found.summary.seconds_left(steps)),
        mode,
        each="epoch",
        transient=True,  # the closing table has all that it has
    ) as live:
        logs = next(iter(runs.values())).parent / "logs"
        run_commands(jobs, runs, logs, pace.at_once, notify)


def compare_arms(runs: Mapping[str, Path], page: Path, note: str = "") -> Demonstration:
    """Summarise the arms and write the page that sets them side by side, below a note."""
    baselines = {"raw pixels": raw_pixel_knn()}
    summaries = [summarise(read_run(path), name) for name, path in runs.items()]
    if (untrained := summaries[0].knn_untrained) is not None:
        baselines["untrained network"] = untrained
    intro = f"{INTRO} {note}".strip()
    page = write_comparison(list(runs.values()), page, TITLE, intro, names=list(runs), baselines=baselines)
    return Demonstration(summaries, baselines, page)


def raw_pixel_knn(data: str = "shapes") -> float:
    """k-NN accuracy on raw held-out pixels; the labelled data must fit into memory."""
    import torch

    from fullrank.images.opening import open_data
    from fullrank.images.sources import MemorySource
    from fullrank.probes import knn_predict

    opened = open_data(data)
    assert isinstance(opened.train, MemorySource) and isinstance(opened.held_out, MemorySource)
    assert opened.train.labels is not None and opened.held_out.labels is not None
    queries, bank = (source.images.flatten(1).float() for source in (opened.held_out, opened.train))
    predicted = knn_predict(queries, bank, torch.from_numpy(opened.train.labels))
    right: float = (predicted == torch.from_numpy(opened.held_out.labels)).double().mean().item()
    return right
