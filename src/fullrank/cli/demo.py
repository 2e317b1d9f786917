"""`fullrank demo`: a healthy run and collapsing ones, side by side, told apart before your eyes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.cli.arguments import parse
from fullrank.errors import FullrankError, UsageError

RECIPE = "shapes/simsiam"

ARMS: dict[str, Sequence[str]] = {
    "SimSiam": (),
    "no predictor": ("--options.predictor", "none"),
    "no stop-gradient": ("--options.no-stop-gradient",),
    "no stop-gradient, no output BN": ("--options.no-stop-gradient", "--options.no-output-bn"),
}

INTRO = (
    "The same small encoder on the same images, trained as SimSiam and with something taken away. "
    "Invariance alone is easily had by a network that ignores its input: look at which arm has the best loss."
)


@dataclass(frozen=True)
class Demo:
    """Trains SimSiam and three maimed copies of it on generated images, and tells them apart.

    Takes about a minute on two CPU cores; nothing is downloaded.

    Example: fullrank demo --seed 1

    Attributes:
        out: where the runs and the page go; empty: runs/demo, made anew each time.
        seed: of the networks, the order of images and the views.
        epochs: passes over the images; 0: the recipe's.
        json: print one object at the end: arms, each with name, verdict, loss, level, rank, knn.
        quiet: print the closing table only.
    """

    out: str = ""
    seed: int = 0
    epochs: int = 0
    json: bool = False
    quiet: bool = False


def run(words: Sequence[str]) -> int:
    """Trains every arm in a process of its own, follows them, and writes the page."""
    args = parse(Demo, words, "fullrank demo")
    if args.epochs < 0 or args.seed < 0:
        raise UsageError("--epochs and --seed must not be negative")
    out = Path(args.out or "runs/demo")
    runs = {name: out / name.replace(",", "").replace(" ", "-").lower() for name in ARMS}
    _fresh(out, not args.out, list(runs.values()))
    from fullrank.report.compare.page import headline, write_comparison
    from fullrank.report.run.arms import LiveArms, arms_table, arms_text
    from fullrank.report.run.reading import read_run
    from fullrank.report.run.summary import summarise

    options = ["--seed", str(args.seed), *(["--epochs", str(args.epochs)] if args.epochs else [])]
    mode = "json" if args.json else "quiet" if args.quiet else "auto"
    with LiveArms(list(ARMS), total_steps=_total_steps(args.epochs), mode=mode) as live:
        _train_all(runs, options, live.update)
    baselines = {"raw pixels": raw_pixel_knn()}
    summaries = [summarise(read_run(path), name) for name, path in runs.items()]
    untrained = summaries[0].knn_untrained
    if untrained is not None:
        baselines["untrained network"] = untrained
    page = write_comparison(
        list(runs.values()),
        out / "index.html",
        "Which of these has collapsed?",
        INTRO,
        names=list(runs),
        baselines=baselines,
    )
    if args.json:
        arms = [_arm(summary, runs[summary.name]) for summary in summaries]
        print(json.dumps({"arms": arms, "baselines": baselines, "page": str(page)}, indent=2))
        return 0
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(arms_table(summaries))
    else:
        print(arms_text(summaries))
    held = ", ".join(f"{name} {value:.1%}" for name, value in baselines.items())
    print(f"\nk-NN to hold these against: {held}.")
    best, below = headline(summaries)
    print(f"{best}: {below} The page shows what tells the arms apart.")
    print(f"page    {page}")
    return 0


def _fresh(out: Path, ours: bool, runs: Sequence[Path]) -> None:
    """Makes room: an earlier demo in the default place is replaced, anybody else's work is not."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: take another --out")
    if not ours and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} exists already: take another --out")
    for run in runs:
        if run.exists():
            shutil.rmtree(run)
    out.mkdir(parents=True, exist_ok=True)


def _total_steps(epochs: int) -> int:
    from fullrank.training.recipes import load_recipe

    settings = load_recipe(RECIPE).settings
    return (epochs or int(settings["epochs"])) * (4000 // int(settings["batch_size"]))


def raw_pixel_knn() -> float:
    """Accuracy of k-NN on the pixels of the held-out shapes: what no network at all would give."""
    import torch

    from fullrank.images.opening import open_data
    from fullrank.images.sources import MemorySource
    from fullrank.probes import knn_predict

    data = open_data("shapes")
    assert isinstance(data.train, MemorySource) and isinstance(data.held_out, MemorySource)
    assert data.train.labels is not None and data.held_out.labels is not None
    queries, bank = (source.images.flatten(1).float() for source in (data.held_out, data.train))
    predicted = knn_predict(queries, bank, torch.from_numpy(data.train.labels))
    right: float = (predicted == torch.from_numpy(data.held_out.labels)).double().mean().item()
    return right


def _arm(summary: Any, path: Path) -> dict[str, Any]:
    return {
        "name": summary.name,
        "verdict": summary.style.word,
        "why": summary.why,
        "loss": summary.loss,
        "level": summary.level,
        "rank": summary.rank,
        "knn": summary.knn,
        "run": str(path),
    }


def _train_all(runs: Mapping[str, Path], options: Sequence[str], update: Any) -> None:
    """Keeps as many arms training at a time as there are cores, and passes on what they log."""
    from fullrank.training.records import follow

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(len(runs), cores)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(max(1, cores // at_once))
    # one server imports torch once, and every arm is a fork of it
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["fullrank.training.loop", "fullrank.report.run.page"])
    waiting, running, read = list(runs), dict[str, Any](), dict.fromkeys(runs, 0)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                words = ["train", RECIPE, "--quiet", *options, *ARMS[name], "--out", str(runs[name])]
                running[name] = context.Process(target=_train_arm, args=(words, _errors(runs[name])))
                running[name].start()
            time.sleep(0.2)
            for name in list(running):
                ended = running[name].exitcode is not None
                read[name] = follow(runs[name] / "metrics.jsonl", read[name], partial(update, name))
                if ended:
                    code = running.pop(name).exitcode
                    message = _errors(runs[name]).read_text(errors="replace").strip()
                    if code:
                        raise FullrankError(f"the arm {name!r} failed: {message.removeprefix('fullrank: ')}")
                    _errors(runs[name]).unlink()
    finally:
        for process in running.values():
            process.kill()


def _errors(run: Path) -> Path:
    return run.with_suffix(".err")


def _train_arm(words: Sequence[str], errors: Path) -> None:
    """One arm, in a process of its own."""
    from fullrank.cli import main

    with errors.open("w") as file, contextlib.redirect_stderr(file):
        sys.exit(main(words))
