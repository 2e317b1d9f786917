"""Cure a run: diagnose, plan, train the arms side by side, and judge them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fullrank.atomic import write_atomically
from fullrank.cures.agenda import CureAgenda
from fullrank.cures.onset import Diagnosis, diagnose
from fullrank.cures.options import CureOptions
from fullrank.cures.plan import PLAN, CurePlan, plan_cure, read_plan
from fullrank.cures.result import Cure, read_cure
from fullrank.errors import DataError, UsageError
from fullrank.figures.style import counted
from fullrank.jobs.live import LiveJobs
from fullrank.jobs.once import jobs_at_once, pause_jobs, result_of, run_once
from fullrank.lock import require_unwritten, sole_writer
from fullrank.report.run.arms import arms_table
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary
from fullrank.report.run.terminal import epoch_line
from fullrank.training.run_dir import RunDir
from fullrank.untrusted.parsing import read_json

FOLDER = "cure"


def make_plan(path: Path, options: CureOptions, out: Path | None = None) -> CurePlan | Diagnosis:
    """Plan the cure of a run, or say why there is nothing to cure; nothing is written.

    A cure that was begun goes on by its own plan.

    Raises:
        UsageError: no run directory, or `out` holds something else.
        BusyError: a process trains the run.
    """
    source = RunDir.open(path)
    require_unwritten(path)
    out = out or path / FOLDER
    inside = out.resolve().is_relative_to(path.resolve()) and out.resolve() != (path / FOLDER).resolve()
    if inside or os.path.commonpath([out.resolve(), path.resolve()]) == str(out.resolve()):
        raise UsageError(f"{out} is a part of the run: a cure goes into {path / FOLDER}, or outside of it")
    begun = read_plan(path, out)
    if begun is not None:
        asked = read_json(out / PLAN)["asked"]
        if differing := [name for name, value in _asked(options).items() if asked.get(name) != value]:
            differs = " ".join(f"--{name} {asked.get(name)}" for name in differing)
            raise UsageError(f"{out} holds a cure with {differs}: ask for the same, or take another --out")
        return begun
    run = read_run(source.path)
    if run.damaged:
        raise DataError(
            f"{source.metrics_path} is damaged ({counted(run.damaged, 'line')} cannot be read), so that "
            f"nothing can be said of when the run collapsed; `fullrank audit {path}` judges its encoder"
        )
    if run.epochs and run.epochs[-1].epoch > source.config().epochs:
        raise UsageError(
            f"{path} has records of {run.epochs[-1].epoch} epochs, and {source.config().epochs} in "
            "config.yaml: they are not of one run"
        )
    diagnosis = diagnose(run)
    return diagnosis if diagnosis.state != "collapsed" else plan_cure(run, diagnosis, options, out)


def run_cure(plan: CurePlan, options: CureOptions, mode: str = "quiet") -> Cure:
    """Train what arms have no result yet, judge them, and write table and page.

    Args:
        plan: of `make_plan`.
        options: how many at a time.
        mode: of the live table: "live", "plain" or "quiet".

    Raises:
        FullrankError: no untreated arm has ended.
        BusyError: another process cures into the folder.
    """
    from fullrank.cures.page import write_cure_page

    with sole_writer(plan.out):
        if (plan.out / PLAN).exists():
            plan = read_plan(plan.run, plan.out) or plan  # another process may have cut it
        _keep(plan, options)
        plan.prepare()
        jobs, total = plan.jobs(), plan.until
        with LiveJobs(
            jobs,
            Summary,
            lambda live, width: arms_table((found.summary for found in live.standings.values()), 0, width),
            lambda found: found.error if found.state == "failed" else epoch_line(found.summary, total, None),
            mode,
        ) as live:
            results = {job.name: result_of(job, plan.out) for job in jobs}
            done = [name for name, result in results.items() if result]
            at_once = options.jobs or jobs_at_once(len(jobs) - len(done))
            spent = sum(float(results[name].get("seconds") or 0.0) for name in done) / at_once
            fixed = bool(options.epochs)
            keep = partial(_keep, options=options)
            agenda = CureAgenda(plan, jobs, done, at_once, spent, fixed, live, live.tell, keep)
            failed = run_once(jobs, plan.out, at_once, agenda, agenda)
        cure = read_cure(agenda.plan, failed, agenda.left_out)
        cure = replace(cure, page=write_cure_page(cure, plan.out / "cure.html"))
        write_atomically(plan.out / "cure.json", json.dumps(cure.as_dict(), indent=1).encode())
    return cure


def _keep(plan: CurePlan, options: CureOptions) -> None:
    """Write the plan as it stands, and have its jobs pause where it says."""
    stored = {"asked": _asked(options), "plan": plan.as_dict()}
    write_atomically(plan.out / PLAN, json.dumps(stored, indent=1).encode())
    if plan.planned:
        pause_jobs(plan.out, plan.until)


def _asked(options: CureOptions) -> dict[str, float]:
    """The options that decide what is done."""
    values = asdict(options)
    del values["jobs"]
    return values
