"""`fullrank lab NAME --slurm`: the jobs of a lab as an array of SLURM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fullrank.atomic import write_atomically
from fullrank.cli.slurm import submit_jobs
from fullrank.jobs.slurm_options import SlurmOptions
from fullrank.terminal import say

if TYPE_CHECKING:
    from fullrank.jobs.job import Job, Notify
    from fullrank.jobs.submit import Command
    from fullrank.labs._common.run import Plan


def run_jobs(
    jobs: Sequence[Job], notify: Notify, plan: Plan, out: Path, options: SlurmOptions
) -> dict[str, str]:
    """Run a lab's jobs by SLURM, and wait; return failures as {name: message}.

    Raises:
        UsageError: the job of a lab is to have several processes.
    """
    options.require_one_process("a job of a lab")
    folder = out.absolute() / "slurm"
    return submit_jobs(jobs, lambda job: _command(job, plan, out), options, folder, notify)


def hand_over(plan: Plan, out: Path, options: SlurmOptions, dry_run: bool) -> int:
    """Submit the unfinished jobs of a lab and return; or print the script."""
    from fullrank.jobs.submit import make_script
    from fullrank.labs._common.run import unfinished
    from fullrank.lock import sole_writer

    options.require_one_process("a job of a lab")
    jobs = unfinished(plan, out, lambda *_: None)
    if not jobs:
        say("every job has a result: --report-only writes the page")
    elif dry_run:
        commands = [_command(job, plan, out) for job in jobs]
        print(make_script(commands, options, out.absolute() / "slurm", "fullrank"), end="")
    else:
        with sole_writer(out):
            write_atomically(out / "plan.json", json.dumps(plan.values, indent=2).encode())
            run_jobs(jobs, lambda *_: None, plan, out, options)
        say(f"when they have ended: fullrank lab {plan.values['lab']} --out {out} --report-only")
    return 0


def _command(job: Job, plan: Plan, out: Path) -> Command:
    from fullrank.jobs.once import folder_of
    from fullrank.jobs.submit import Command

    run = str((folder_of(job, out) / "run").absolute()) if job.train else ""
    argv = ("lab", str(plan.values["lab"]), "--out", str(out), "--only", job.folder)
    return Command(job.name, argv, run)
