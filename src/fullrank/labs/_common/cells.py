"""Runs cells: several side by side, each once, and takes up those that were killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from fullrank.errors import FullrankError, UsageError
from fullrank.labs._common.lab import Job
from fullrank.labs._common.results import Result
from fullrank.training.loop import resume, train
from fullrank.training.records import Listener, RunRecord, follow
from fullrank.training.run_dir import write_atomically

__all__ = ["OnStatus", "finished", "jobs_at_once", "run_cells"]

OnStatus = Callable[[Job, str, RunRecord | None], None]
"""Called with a cell, its state (`running`, `done`, `failed`) and a record of its run, or None."""

CELLS = "cells"


def run_cells(
    cells: Sequence[Job], out: Path, jobs: int = 0, told: OnStatus = lambda *_: None
) -> dict[str, str]:
    """Runs every cell that is not finished; returns what failed: a cell's name to one line.

    Args:
        cells: what to run.
        out: the lab's folder; a cell's is below `cells/`.
        jobs: how many at a time; 0: see `jobs_at_once`. One alone runs in this process.
        told: told of every change.

    Raises:
        UsageError: a cell of that name was begun with other settings; nothing is run then.
    """
    for cell in cells:
        _claim(cell, out)
    ready = [cell for cell in cells if finished(cell, out)]
    for cell in ready:
        told(cell, "done", None)
    todo = [cell for cell in cells if cell not in ready]
    if (jobs or jobs_at_once(len(todo))) > 1 and len(todo) > 1:
        return _side_by_side(todo, out, jobs or jobs_at_once(len(todo)), told)
    failed = {}
    for cell in todo:
        told(cell, "running", None)
        message = _run(cell, out, lambda record, cell=cell: told(cell, "running", record))  # type: ignore[misc]
        told(cell, "failed" if message else "done", None)
        if message:
            failed[cell.name] = message
    return failed


def jobs_at_once(cells: int) -> int:
    """How many cells to run at a time: one on a GPU, else one for each core, with a thread of its own.

    Two runs of one thread each do more than one of two threads after another: small networks leave the
    second thread idle most of the time.
    """
    import torch

    if torch.cuda.is_available():
        return 1
    return max(1, min(cells, _cores()))


def finished(cell: Job, out: Path) -> Result | None:
    """What a cell left, or None where it has not ended."""
    folder = out / CELLS / cell.folder
    try:
        found = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    return Result(cell.part, cell.arm, cell.seed, folder, found["numbers"], found["seconds"])


def _claim(cell: Job, out: Path) -> None:
    """Writes what the cell is, or makes sure that it is what it was."""
    path, plan = out / CELLS / cell.folder / "cell.json", cell.plan()
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2).encode())
        return
    before = json.loads(path.read_text())
    if before == plan:
        return
    flat, old = _flat(plan), _flat(before)
    key = next((key for key in flat if flat[key] != old.get(key)), next(iter(old.keys() - flat.keys()), ""))
    raise UsageError(
        f"{out} holds the cell {cell.name!r} with {key} {old.get(key)} instead of {flat.get(key)}: take "
        f"another --out, or the settings it was begun with"
    )


def _flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{under}{key}.") if isinstance(value, dict) else {f"{under}{key}": value}
    return found


def _run(cell: Job, out: Path, listener: Listener) -> str:
    """Runs one cell in this process, from where it stands; returns what failed, in one line, or nothing."""
    folder = out / CELLS / cell.folder
    error = folder / "error.txt"
    error.unlink(missing_ok=True)
    try:
        seconds, arguments = 0.0, dict(cell.arguments)
        if cell.train:
            run = arguments["run"] = folder / "run"
            if (run / "config.yaml").exists():
                outcome = resume(run, [listener])
            else:
                shutil.rmtree(run, ignore_errors=True)  # killed before it was anything
                outcome = train(cell.config(), run, [listener])
            seconds = outcome.seconds["total"]
        begun = time.perf_counter()
        numbers = dict(cell.measure(**arguments)) if cell.measure else {}
        seconds += time.perf_counter() - begun
        write_atomically(
            folder / "result.json", json.dumps({"numbers": numbers, "seconds": seconds}).encode()
        )
    except Exception as problem:
        told = " ".join(str(problem).split())
        line = told if isinstance(problem, FullrankError) else f"{type(problem).__name__}: {told}"
        error.write_text(f"{line}\n\n{traceback.format_exc()}")
        return line
    return ""


def _side_by_side(cells: Sequence[Job], out: Path, jobs: int, told: OnStatus) -> dict[str, str]:
    """Keeps `jobs` processes busy, each with its share of the threads, and passes on what runs log."""
    threads = max(1, _cores() // jobs)
    # one server imports torch once, and every cell is a fork of it
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["fullrank.labs._common.cells"])
    by_name = {cell.name: cell for cell in cells}
    waiting, running = list(cells), dict[str, Any]()
    places, failed = dict.fromkeys(by_name, 0), dict[str, str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                log = _log(cell, out)
                places[cell.name] = log.stat().st_size if log.exists() else 0  # of a run to be taken up
                process = running[cell.name] = context.Process(target=_work, args=(cell, out, threads))
                process.start()
                told(cell, "running", None)
            wait([process.sentinel for process in running.values()], timeout=0.3)
            for name, process in list(running.items()):
                cell, ended = by_name[name], process.exitcode is not None
                places[name] = follow(_log(cell, out), places[name], partial(told, cell, "running"))
                if ended:
                    del running[name]
                    if finished(cell, out) is None:
                        failed[name] = _last_words(cell, out, process.exitcode)
                    told(cell, "failed" if name in failed else "done", None)
    finally:
        for process in running.values():
            process.kill()
    return failed


def _work(cell: Job, out: Path, threads: int) -> None:
    """One cell, in a process of its own, which ends with the one that started it."""
    import torch

    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(threads)
    sys.exit(1 if _run(cell, out, lambda _: None) else 0)


def _last_words(cell: Job, out: Path, code: int) -> str:
    error = out / CELLS / cell.folder / "error.txt"
    return error.read_text().splitlines()[0] if error.exists() else f"its process ended with code {code}"


def _log(cell: Job, out: Path) -> Path:
    return out / CELLS / cell.folder / "run" / "metrics.jsonl"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
