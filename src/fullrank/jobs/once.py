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

from fullrank.atomic import write_atomically
from fullrank.errors import DataError, FullrankError, UsageError
from fullrank.jobs.agenda import Agenda, InOrder
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.pool import cores, run_pool
from fullrank.training.records import Listener
from fullrank.training.signals import EndedBySignal, StoppedError
from fullrank.untrusted.parsing import parse_json, read_json, read_text

PAUSE = "pause.json"


def run_once(
    jobs: Sequence[Job],
    out: Path,
    at_once: int = 0,
    notify: Notify = lambda *_: None,
    agenda: Agenda | None = None,
) -> dict[str, str]:
    """Run every job without a result; return failures as {name: message}.

    Args:
        jobs: what to run.
        out: where their folders lie.
        at_once: how many at a time; 0: see `jobs_at_once`. One alone runs in this process.
        notify: called at every change and with every record.
        agenda: which of those without a result begins when; None: one after another.

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
        return run_pool(waiting, partial(_run, out=out), at_once, partial(_log, out=out), notify, agenda)
    failed = {}
    agenda = InOrder(waiting) if agenda is None else agenda
    while taken := agenda.take():
        notify(taken, "running", None)
        try:
            error = _run(taken, out, [partial(notify, taken, "running")])
        except StoppedError as stop:  # which asks for the end of all of them
            raise EndedBySignal(stop.received) from stop
        notify(taken, "failed" if error else "done", error or None)
        if error:
            failed[taken.name] = error
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
        return read_json(folder_of(job, out) / "result.json")
    except DataError:
        return {}


def pause_jobs(out: Path, epoch: int) -> None:
    """Let all jobs in a folder, running ones too, pause after that epoch."""
    write_atomically(out / PAUSE, json.dumps({"until": epoch}).encode())


def _until(job: Job, out: Path) -> int:
    """The epoch after which a job pauses, as things stand; 0: at its end."""
    try:
        earlier = int(read_json(out / PAUSE)["until"])
    except (DataError, LookupError, TypeError, ValueError):  # none was written
        return job.until
    return min(job.until or earlier, earlier)


def _log(job: Job, out: Path) -> Path:
    return folder_of(job, out) / "run" / "metrics.jsonl"


def _claim(job: Job, out: Path) -> None:
    path, plan = folder_of(job, out) / "cell.json", job.plan()
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2).encode())
        return
    try:
        before = parse_json(read_text(path).replace("study_every", "diagnostics_every"), str(path))
    except DataError as error:
        raise UsageError(f"{error}: remove {path.parent}, and its job runs anew") from error
    if not isinstance(before, dict):
        raise UsageError(f"{path} holds no plan: remove {path.parent}, and its job runs anew")
    flat, old = _flat(plan), _flat(before)
    later = [
        key for key in flat if key.startswith("train.") and key not in old
    ]  # settings newer than the job
    changed = [key for key in (*flat, *(old.keys() - flat.keys())) if flat.get(key) != old.get(key)]
    key = next((key for key in changed if key not in later), "")
    if not key:
        return
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
    from fullrank.encoders.initial import open_initial_weights  # the lists of labs do without these
    from fullrank.training.run import resume, train

    folder = folder_of(job, out)
    (folder / "error.txt").unlink(missing_ok=True)
    try:
        seconds, arguments = 0.0, dict(job.arguments)
        if job.train:
            run, until = folder / "run", partial(_until, job, out)
            arguments["run"] = run
            if (run / "config.yaml").exists():
                outcome = resume(run, listeners, open_initial_weights, until=until)
            else:
                shutil.rmtree(run, ignore_errors=True)  # killed before it was anything
                config = job.config()
                initial = open_initial_weights(config)
                outcome = train(config, run, listeners, initial=initial, until=until)
            seconds = outcome.seconds["total"]
        begun = time.perf_counter()
        numbers = dict(job.measure(**arguments)) if job.measure else {}
        seconds += time.perf_counter() - begun
        result = {"numbers": numbers, "seconds": seconds}
        write_atomically(folder / "result.json", json.dumps(result).encode())
    except StoppedError:
        raise
    except Exception as problem:
        message = " ".join(str(problem).split())
        line = message if isinstance(problem, FullrankError) else f"{type(problem).__name__}: {message}"
        (folder / "error.txt").write_text(f"{line}\n\n{traceback.format_exc()}")
        return line
    return ""
