"""The demo: SimSiam and three ablated copies of it, trained side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.command import run_commands
from fullrank.jobs.job import Job
from fullrank.jobs.live import LiveJobs
from fullrank.jobs.pool import cores
from fullrank.report.compare.page import write_comparison
from fullrank.report.run.arms import arms_table
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.run.terminal import epoch_line
from fullrank.training.recipes import load_recipe
from fullrank.training.records import RunRecord

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

    settings = load_recipe(RECIPE).settings
    steps = (epochs or int(settings["epochs"])) * (IMAGES // int(settings["batch_size"]))
    common = ["train", RECIPE, "--quiet", "--seed", str(seed), "--watch-every", "1"]
    common += ["--epochs", str(epochs)] if epochs else []
    commands = {name: [*common, *ARMS[name], "--out", str(run)] for name, run in runs.items()}
    jobs = [Job(name, measure=call, arguments={"argv": argv}) for name, argv in commands.items()]
    with LiveJobs(
        jobs,
        Summary,
        lambda live, width: arms_table((found.summary for found in live.standings.values()), steps, width),
        lambda found: epoch_line(found.summary, None, found.summary.seconds_left(steps)),
        mode,
        each="epoch",
    ) as live:
        logs = next(iter(runs.values())).parent / "logs"
        run_commands(jobs, runs, logs, min(len(jobs), cores()), notify)


def compare_arms(runs: Mapping[str, Path], page: Path) -> Demonstration:
    """Summarise the arms and write the page that sets them side by side."""
    baselines = {"raw pixels": raw_pixel_knn()}
    summaries = [summarise(read_run(path), name) for name, path in runs.items()]
    if (untrained := summaries[0].knn_untrained) is not None:
        baselines["untrained network"] = untrained
    page = write_comparison(list(runs.values()), page, TITLE, INTRO, names=list(runs), baselines=baselines)
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
