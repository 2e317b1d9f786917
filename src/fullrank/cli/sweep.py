"""`fullrank sweep METHOD|RECIPE... --over KEY=V1,V2`: a grid of runs, compared."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError

OWN = ("--over", "--seeds", "--out", "--jobs", "--slurm", "--dry-run", "--json", "--help", "-h")


@dataclass(frozen=True)
class Sweep:
    """Train all combinations of some settings, here or on a cluster, and compare.

    WHAT is a method or a recipe, or several with commas between. All options of `fullrank train` hold for
    every run. The same command again resumes where it was stopped: runs that have ended are left as they
    are. A run that fails does not stop the others.

    Example: fullrank sweep simsiam --over lr=0.05,0.1,0.2 --seeds 3 --data FOLDER --out sweeps/lr

    Example: fullrank sweep simsiam,byol --over options.proj_output_dim=128,2048 --data FOLDER --jobs 2

    Example: fullrank sweep cifar10/cplearn --seeds 5 --slurm timeout_min=600 gpus_per_node=1

    Attributes:
        what: method or recipe, or several with commas between.
        over: KEY=V1,V2,...: an option of `fullrank train` and its values; several of them make a grid.
        seeds: every combination with the seeds 0 to N - 1.
        out: folder of the runs and of compare.html; empty: sweeps/WHAT.
        jobs: runs at a time on this machine; they share its cores, and take a GPU each if there are several.
        slurm: KEY=VALUE, submitit's settings; with any the runs are one job array, which is waited for.
        dry_run: print the commands and train nothing.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    over: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=V1,V2")] = ()
    seeds: int = 1
    out: str = ""
    jobs: int = 1
    slurm: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    dry_run: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Check every run's settings, train what has not ended yet, and compare what has."""
    own, common = split(words)
    args = parse(Sweep, own, "fullrank sweep")
    if args.seeds < 1 or args.jobs < 1:
        raise UsageError(f"--seeds and --jobs are at least 1, not {args.seeds} and {args.jobs}")
    from fullrank.cli import compare, main
    from fullrank.jobs import command
    from fullrank.jobs.live import LiveJobs
    from fullrank.report.run.arms import run_line, run_row
    from fullrank.report.run.summary import Summary

    out = Path(args.out or f"sweeps/{re.sub(r'[^A-Za-z0-9,.-]+', '-', args.what)}")
    jobs = list(command.grid(args.what, args.over, args.seeds, common, main))
    runs = {job.name: out / job.name for job in jobs}
    for job in jobs:  # what is wrong is said before the first is trained
        _check(*job.arguments["argv"])
    settings = command.slurm_settings(args.slurm)
    if args.dry_run:
        for job in jobs:
            print(shlex.join(["fullrank", *command.command_of(job, runs[job.name]).arguments["argv"]]))
        return 0
    command.remember(jobs, runs, out)
    todo = [command.command_of(job, runs[job.name]) for job in jobs if not command.has_ended(runs[job.name])]
    if not args.json:
        before = f", {len(jobs) - len(todo)} of them ended before" if len(todo) < len(jobs) else ""
        print(f"{len(jobs)} runs in {out}{before}")
    mode = "quiet" if args.json else "plain"
    with LiveJobs(
        todo, Summary, lambda *_: "", lambda found: run_line(runs[found.job.name], found.error), mode
    ) as live:
        if settings and todo:
            failed = command.submit_commands(todo, settings, out / "slurm", live)
        else:
            failed = command.run_commands(todo, runs, out / "logs", args.jobs, live)
    if args.json:
        rows = [run_row(name, path, failed.get(name)) for name, path in runs.items()]
        print(json.dumps({"runs": rows, "failed": len(failed)}))
    elif finished := [str(path) for path in runs.values() if command.has_ended(path)]:
        compare.run([*finished, "--out", str(out / "compare.html"), "--no-measure"])
    return 1 if failed else 0


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the sweep itself, and those that every run gets.

    Example:
        >>> split(["simsiam", "--over", "lr=0.1,0.2", "--epochs", "5", "--seeds=3"])
        (['simsiam', '--over', 'lr=0.1,0.2', '--seeds=3'], ['--epochs', '5'])
    """
    own, common = list[str](), list[str]()
    kept = own  # WHAT comes first
    for word in words:
        if word.startswith("-"):
            kept = own if word.split("=")[0].replace("_", "-") in OWN else common
        kept.append(word)
    return own, common


def _check(what: str, *options: str) -> None:
    from fullrank.cli.train import parse_options, starting_point

    method, layers, _ = starting_point(what, options)
    parse_options(method, layers, options, f"fullrank train {what}")
