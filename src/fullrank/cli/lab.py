"""`fullrank lab NAME`: a paper's experiment rerun, with its page and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError
from fullrank.jobs.slurm_options import slurm_help, split_slurm
from fullrank.ranges import Numbers
from fullrank.terminal import say

if TYPE_CHECKING:
    from fullrank.labs._common.run import Plan, RunJobs

USAGE = """\
usage: fullrank lab NAME [OPTIONS]

Run a paper's experiment, and write its page, its numbers and its figures.

  fullrank lab asymmetry                         three seeds, small enough for a laptop
  fullrank lab asymmetry --parts asym-siam       another part of it, into the same folder
  fullrank lab failures --dry-run                the runs and about how long they take
  fullrank lab failures --report-only            the page again, from the jobs that are finished
  fullrank lab asymmetry --preset paper --slurm-gpus-per-node 1        an array of SLURM: --slurm --help
  fullrank lab forecast RUN...                   accuracy from AUC and loss, over any set of runs

labs:
{labs}

`fullrank lab NAME --help` lists every option."""

PRINTED = ("lab", "preset", "parts", "seeds", "seen", "claims", "missing", "seconds")


@dataclass(frozen=True)
class LabOptions:
    """Run a lab's unfinished jobs and write lab.json, report.html and figures/.

    A killed lab is resumed by the same command. Seeds and parts may be added to a folder later on.

    Example: fullrank lab asymmetry --preset laptop --seeds 0,1,2

    Attributes:
        name: of the lab; see `fullrank list labs`.
        preset: laptop (minutes on two cores) or paper (as published; wants a GPU and the data); empty: the
            folder's, or laptop.
        seeds: comma-separated; empty: those of the folder, or 0,1,2.
        parts: of the lab, comma-separated; empty: those of the folder, or the preset's.
        out: the lab's folder; empty: labs/NAME.
        data: in place of the preset's data: a name (`fullrank list data`) or a folder.
        jobs: jobs at a time; 0: one for each core, and one on a GPU.
        only: run this one job, by its folder in cells/, and write no page: what a job of --slurm does.
        dry_run: list the runs and about how long they take, or print the script of --slurm; run nothing.
        report_only: run nothing; write the page from the jobs that are finished.
        figures: also draw the figures for a paper, as SVG, PDF and PNG.
        json: print one object at the end: lab, claims, missing, seconds, page.
        quiet: print nothing but errors.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    preset: str = ""
    seeds: Numbers = ""
    parts: str = ""
    out: str = ""
    data: str = ""
    jobs: int = 0
    only: str = ""
    dry_run: bool = False
    report_only: bool = False
    figures: bool = True
    json: bool = False
    quiet: bool = False


def run(words: Sequence[str]) -> int:
    """Run a lab; 1 where a job failed."""
    if not words or words[0] in ("-h", "--help"):
        from fullrank.labs import LABS

        print(USAGE.format(labs="\n".join(f"  {name:<18} {lab.title}" for name, lab in LABS.items())))
        return 0
    if words[0] == "forecast":
        from fullrank.cli.lab_forecast import run as run_forecast

        return run_forecast(words[1:])
    options, words = split_slurm(words)
    if options and {"-h", "--help"} & set(words):
        print(slurm_help("lab"))
        return 0
    args = parse(LabOptions, words, "fullrank lab NAME")
    from fullrank.labs import LABS

    LABS[args.name]  # one that is unknown is named before what else is wrong
    if args.dry_run and (args.only or args.report_only):
        other = "--only" if args.only else "--report-only"
        raise UsageError(f"--dry-run runs and writes nothing: leave it out, or {other}")
    from fullrank.labs._common.run import make_plan

    out = Path(args.out or f"labs/{args.name}")
    parts = [part for part in args.parts.split(",") if part]
    plan = make_plan(args.name, out, args.preset, parts, _seeds(str(args.seeds)), args.data)
    if args.dry_run and not options:
        from fullrank.cli.lab_plan import print_plan

        return print_plan(plan, out, args.jobs, args.json)
    if args.only:
        return _run_one(plan, out, args.only)
    run_jobs = None
    if options and not args.report_only:
        from fullrank.cli import lab_slurm

        if args.dry_run or options.wait is False:
            return lab_slurm.hand_over(plan, out, options, args.dry_run)
        run_jobs = partial(lab_slurm.run_jobs, plan=plan, out=out, options=options)
    return _run_all(args, plan, out, run_jobs)


def _run_one(plan: Plan, out: Path, folder: str) -> int:
    from fullrank.labs._common.run import run_one

    why = run_one(plan, out, folder)
    if why:
        say(f"fullrank: {folder} failed: {why}", file=sys.stderr)
    return 1 if why else 0


def _run_all(args: LabOptions, plan: Plan, out: Path, run_jobs: RunJobs | None) -> int:
    """Run the unfinished jobs, write the page and print what it says."""
    from fullrank.labs._common.run import run_lab
    from fullrank.report.run.terminal import is_live

    mode = "quiet" if args.json or args.quiet else "live" if is_live() else "plain"
    found, failed = run_lab(plan, out, args.jobs, args.report_only, args.figures, mode, run_jobs)
    for name, why in failed.items():
        say(f"fullrank: {name} failed: {why}", file=sys.stderr)
    page = out / "report.html"
    if args.json:
        print(json.dumps({**{key: found[key] for key in PRINTED}, "page": str(page)}, indent=2))
    elif not args.quiet:
        for claim in found["claims"]:
            say(f"{claim['verdict']:<14} {claim['text']} {claim['told']}")
        say(f"page    {page}")
    return 1 if failed else 0


def _seeds(words: str) -> list[int]:
    try:
        seeds = [int(word) for word in words.split(",") if word]
    except ValueError:
        seeds = []
    if words and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        raise UsageError(f"--seeds are whole numbers of at least 0, each once, as 0,1,2; not {words}")
    return seeds
