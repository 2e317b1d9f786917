"""`fullrank sweep METHOD|RECIPE... --over KEY=V1,V2`: a grid of runs, compared."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError
from fullrank.jobs.slurm_options import SlurmOptions, slurm_help, split_slurm
from fullrank.terminal import say

if TYPE_CHECKING:
    from fullrank.jobs.job import Job
    from fullrank.jobs.submit import Command

OWN = ("--over", "--seeds", "--out", "--jobs", "--dry-run", "--json", "--help", "-h")


@dataclass(frozen=True)
class Sweep:
    """Train all combinations of some settings, here or on a cluster, and compare.

    WHAT is a method or a recipe, or several with commas between. All options of `fullrank train` hold for
    every run. The same command again resumes where it was stopped: runs that have ended are left as they
    are. A run that fails does not stop the others.

    Example: fullrank sweep simsiam --over lr=0.05,0.1,0.2 --seeds 3 --data FOLDER --out sweeps/lr

    Example: fullrank sweep simsiam,byol --over options.proj_output_dim=128,2048 --data FOLDER --jobs 2

    Example: fullrank sweep cifar10/cplearn --seeds 5 --slurm-time 10:00:00 --slurm-gpus-per-node 1

    With --slurm the runs are one job array, which is waited for: --slurm --help.

    Attributes:
        what: method or recipe, or several with commas between.
        over: KEY=V1,V2,...: an option of `fullrank train` and its values; several of them make a grid.
        seeds: every combination with the seeds 0 to N - 1.
        out: folder of the runs and of compare.html; empty: sweeps/WHAT.
        jobs: runs at a time on this machine; they share its cores, and take a GPU each if there are several.
        dry_run: print the commands, or the script of --slurm, and train nothing.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    over: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=V1,V2")] = ()
    seeds: int = 1
    out: str = ""
    jobs: int = 1
    dry_run: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Check every run's settings, train what has not ended yet, and compare what has."""
    options, words = split_slurm(words)
    if options and {"-h", "--help"} & set(words):
        print(slurm_help("sweep"))
        return 0
    own, common = split(words)
    args = parse(Sweep, own, "fullrank sweep")
    if args.seeds < 1 or args.jobs < 1:
        raise UsageError(f"--seeds and --jobs are at least 1, not {args.seeds} and {args.jobs}")
    from fullrank.cli import compare, main
    from fullrank.jobs import command
    from fullrank.lock import sole_writer
    from fullrank.report.run.arms import run_row

    out = Path(args.out or f"sweeps/{re.sub(r'[^A-Za-z0-9,.-]+', '-', args.what)}")
    jobs = list(command.grid(args.what, args.over, args.seeds, common, main))
    runs = {job.name: out / job.name for job in jobs}
    for job in jobs:  # what is wrong is said before the first is trained
        _check(*job.arguments["argv"])
    if args.dry_run and options:
        print(_script(jobs, runs, out, options), end="")
        return 0
    if args.dry_run:
        for job in jobs:
            say(shlex.join(["fullrank", *command.command_of(job, runs[job.name]).arguments["argv"]]))
        return 0
    with sole_writer(out):
        failed = _run_all(jobs, runs, out, args, options)
    if args.json:
        rows = [run_row(name, path, failed.get(name)) for name, path in runs.items()]
        print(json.dumps({"runs": rows, "failed": len(failed)}))
    elif finished := [str(path) for path in runs.values() if command.has_ended(path)]:
        compare.run([*finished, "--out", str(out / "compare.html"), "--no-measure"])
    return 1 if failed else 0


def _run_all(
    jobs: Sequence[Job], runs: Mapping[str, Path], out: Path, args: Sweep, options: SlurmOptions | None
) -> dict[str, str]:
    """Train what has not ended yet; return failures as {name: message}."""
    from fullrank.jobs import command
    from fullrank.jobs.live import LiveJobs
    from fullrank.report.run.arms import run_line
    from fullrank.report.run.summary import Summary

    if note := command.remember(jobs, runs, out):
        say(f"note    {note}", sys.stderr)
    todo = [command.command_of(job, runs[job.name]) for job in jobs if not command.has_ended(runs[job.name])]
    if not args.json:
        before = f", {len(jobs) - len(todo)} of them ended before" if len(todo) < len(jobs) else ""
        say(f"{len(jobs)} runs in {out}{before}")
    mode = "quiet" if args.json else "plain"
    with LiveJobs(
        todo, Summary, lambda *_: "", lambda found: run_line(runs[found.job.name], found.error), mode
    ) as live:
        if options:
            from fullrank.cli.slurm import submit_jobs

            own, folder = options.with_tasks_per_gpu(), _slurm_folder(out)
            return submit_jobs(todo, partial(_command, runs=runs), own, folder, live, command.FINE)
        return command.run_commands(todo, runs, out / "logs", args.jobs, live)


def _script(jobs: Sequence[Job], runs: Mapping[str, Path], out: Path, options: SlurmOptions) -> str:
    """The script that sbatch would get for the runs that have not ended."""
    from fullrank.jobs.command import command_of, has_ended
    from fullrank.jobs.submit import make_script

    todo = [command_of(job, runs[job.name]) for job in jobs if not has_ended(runs[job.name])]
    if not todo:
        return "# every run has ended: there is nothing to submit\n"
    commands = [_command(job, runs) for job in todo]
    return make_script(commands, options.with_tasks_per_gpu(), _slurm_folder(out), "fullrank")


def _slurm_folder(out: Path) -> Path:
    return out.absolute() / "slurm"


def _command(job: Job, runs: Mapping[str, Path]) -> Command:
    from fullrank.jobs.submit import Command

    return Command(job.name, tuple(job.arguments["argv"]), str(runs[job.name].absolute()))


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
