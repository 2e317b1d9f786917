"""Jobs that are commands of `fullrank`, as `train` with its options: here or on a SLURM cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.pool import run_pool

__all__ = ["run_commands", "slurm_settings", "submit_commands"]

FINE = (0, 3)  # exit codes: a run that was stopped because it collapsed is no failure


def run_commands(
    jobs: Sequence[Job], runs: Mapping[str, Path], logs: Path, at_once: int, notify: Notify
) -> dict[str, str]:
    """Run commands side by side on this machine; returns what failed: a job's name to one line.

    The jobs' `measure` is called with `argv`, the words after `fullrank`, and returns an exit code; it
    writes the run directory that `runs` names. What it prints goes into a file in `logs`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log_of = {name: run / "metrics.jsonl" for name, run in runs.items()}
    return run_pool(jobs, partial(_run_logged, logs=logs), at_once, lambda job: log_of[job.name], notify)


def _run_logged(job: Job, logs: Path) -> str:
    log = logs / f"{job.name}.txt"
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(f"$ fullrank {' '.join(job.arguments['argv'])}", flush=True)
        code = _call(job)
    return "" if code in FINE else _last_message(log.read_text(errors="replace"), log)


def _call(job: Job) -> int:
    assert job.measure is not None
    sys.argv[1:] = job.arguments["argv"]  # what the run directory says that it was made by
    return int(job.measure(**job.arguments))


def _last_message(printed: str, log: Path) -> str:
    """The line that tells what went wrong: ours, or else the last one."""
    lines = printed.strip().splitlines()
    ours = [line.removeprefix("fullrank: ") for line in lines if line.startswith("fullrank: ")]
    return f"{[*lines, *ours][-1]} (all of it in {log})"


def slurm_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings of submitit's executor from KEY=VALUE.

    Example:
        >>> slurm_settings(["timeout_min=600", "slurm_partition=gpu"])
        {'timeout_min': 600, 'slurm_partition': 'gpu'}
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--slurm takes KEY=VALUE, as timeout_min=600, not {word!r}")
        settings[key] = int(value) if value.isdigit() else value
    return settings


def submit_commands(
    jobs: Sequence[Job], settings: Mapping[str, Any], folder: Path, notify: Notify, cluster: str = "slurm"
) -> dict[str, str]:
    """Submit commands as one job array and wait for them; returns what failed, as `run_commands` does.

    `settings` are those of submitit's executor; scripts, logs and results go to `folder`.

    Raises:
        UsageError: submitit is not installed, there is no SLURM here, or it has no such setting.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError("--slurm needs submitit: pip install 'fullrank[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(name="fullrank", **settings)
    except NameError as error:
        raise UsageError(f"--slurm: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        raise UsageError(f"--slurm: {error}; without it runs are trained on this machine") from error
    with executor.batch():
        submitted = {executor.submit(_run_submitted, job): job for job in jobs}
    failed = {}
    for task in submitit.helpers.as_completed(list(submitted)):
        job, why = submitted[task], ""
        try:
            task.result()
        except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as problem:
            why = failed[job.name] = _last_message(task.stderr() or str(problem), task.paths.stderr)
        notify(job, "failed" if why else "done", why or None)
    return failed


def _run_submitted(job: Job) -> None:
    """One job of the array; every task of it does the same, and Fabric tells them apart."""
    code = _call(job)
    if code not in FINE:
        raise FullrankError(f"fullrank {' '.join(job.arguments['argv'])}: exit code {code}")
