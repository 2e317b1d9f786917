"""Jobs that leave a result: each is run once, and resumed where it was killed."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.pool import cores, run_pool
from fullrank.training.records import Listener
from fullrank.training.run_dir import write_atomically


def run_once(
    jobs: Sequence[Job], out: Path, at_once: int = 0, notify: Notify = lambda *_: None
) -> dict[str, str]:
    """Run every job without a result; return failures as {name: message}.

    Args:
        jobs: what to run.
        out: where their folders lie.
        at_once: how many at a time; 0: see `jobs_at_once`. One alone runs in this process.
        notify: called at every change and with every record.

    Raises:
        UsageError: a job of that name was begun with other settings; nothing is run then.
    """
    for job in jobs:
        _claim(job, out)
    ready = [job for job in jobs if result_of(job, out)]
    for job in ready:
        notify(job, "done", None)
    waiting = [job for job in jobs if job not in ready]
    at_once = at_once or jobs_at_once(len(waiting))
    if at_once > 1 and len(waiting) > 1:
        return run_pool(waiting, partial(_run, out=out), at_once, partial(_log, out=out), notify)
    failed = {}
    for job in waiting:
        notify(job, "running", None)
        error = _run(job, out, [partial(notify, job, "running")])
        notify(job, "failed" if error else "done", error or None)
        if error:
            failed[job.name] = error
    return failed


def jobs_at_once(jobs: int) -> int:
    """Number of jobs at a time: one on a GPU, else one single-threaded per core.

    Two runs of one thread each do more than one of two threads after another: small networks leave the
    second thread idle most of the time.
    """
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(jobs, cores()))


def folder_of(job: Job, out: Path) -> Path:
    """Where a job's result lies, and its run."""
    return out / "cells" / job.folder


def result_of(job: Job, out: Path) -> dict[str, Any]:
    """What a job left: `numbers` and `seconds`; empty where it has not ended."""
    try:
        return dict(json.loads((folder_of(job, out) / "result.json").read_text()))
    except (OSError, ValueError):
        return {}


def _log(job: Job, out: Path) -> Path:
    return folder_of(job, out) / "run" / "metrics.jsonl"


def _claim(job: Job, out: Path) -> None:
    path, plan = folder_of(job, out) / "cell.json", job.plan()
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2).encode())
        return
    before = json.loads(path.read_text().replace("study_every", "diagnostics_every"))
    if before == plan:
        return
    flat, old = _flat(plan), _flat(before)
    key = next((key for key in flat if flat[key] != old.get(key)), next(iter(old.keys() - flat.keys()), ""))
    raise UsageError(
        f"{out} holds the job {job.name!r} with {key} {old.get(key)} instead of {flat.get(key)}: take "
        f"another --out, or the settings it was begun with"
    )


def _flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{under}{key}.") if isinstance(value, dict) else {f"{under}{key}": value}
    return found


def _run(job: Job, out: Path, listeners: Sequence[Listener] = ()) -> str:
    from fullrank.training.loop import resume, train  # the lists of labs do without it

    folder = folder_of(job, out)
    (folder / "error.txt").unlink(missing_ok=True)
    try:
        seconds, arguments = 0.0, dict(job.arguments)
        if job.train:
            run = arguments["run"] = folder / "run"
            if (run / "config.yaml").exists():
                outcome = resume(run, listeners)
            else:
                shutil.rmtree(run, ignore_errors=True)  # killed before it was anything
                outcome = train(job.config(), run, listeners)
            seconds = outcome.seconds["total"]
        begun = time.perf_counter()
        numbers = dict(job.measure(**arguments)) if job.measure else {}
        seconds += time.perf_counter() - begun
        result = {"numbers": numbers, "seconds": seconds}
        write_atomically(folder / "result.json", json.dumps(result).encode())
    except Exception as problem:
        message = " ".join(str(problem).split())
        line = message if isinstance(problem, FullrankError) else f"{type(problem).__name__}: {message}"
        (folder / "error.txt").write_text(f"{line}\n\n{traceback.format_exc()}")
        return line
    return ""
