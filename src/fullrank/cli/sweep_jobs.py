"""How the runs of a sweep are carried out: a few at a time on this machine, or by SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fullrank.errors import FullrankError, UsageError

__all__ = ["Ended", "Job", "here", "on_slurm"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: what it is called, as `lr=0.1,seed=0`.
        words: what `fullrank train` is told, but for where the run goes.
        run: where it goes.
    """

    name: str
    words: tuple[str, ...]
    run: Path

    @property
    def ended(self) -> bool:
        """Whether its last record says so."""
        records = self.run / "metrics.jsonl"
        if not records.is_file():
            return False
        lines = records.read_bytes().splitlines()
        return bool(lines) and json.loads(lines[-1]).get("event") == "end"

    def command(self) -> list[str]:
        """The words after `fullrank`: begins it, or goes on with it.

        Example:
            >>> Job("lr=0.1", ("simsiam", "--lr", "0.1"), Path("a/lr=0.1")).command()
            ['train', 'simsiam', '--lr', '0.1', '--out', 'a/lr=0.1', '--quiet']
        """
        if (self.run / "config.yaml").exists():
            return ["resume", str(self.run), "--quiet"]
        return ["train", *self.words, "--out", str(self.run), "--quiet"]


@dataclass(frozen=True)
class Ended:
    """How one run came out.

    Attributes:
        cell: which.
        error: what went wrong, in a line; empty where nothing did.
    """

    cell: Job
    error: str = ""


def here(cells: Sequence[Job], jobs: int, logs: Path) -> Iterator[Ended]:
    """Runs them in processes of their own, so many at a time, and gives each back as it ends.

    Several at a time share the processor's cores evenly, and take a GPU each where there are several.

    Args:
        cells: in the order in which they begin.
        jobs: how many at a time.
        logs: folder for what each process printed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    slots: SimpleQueue[dict[str, str]] = SimpleQueue()
    for slot in range(jobs):
        slots.put(_share(slot, jobs))

    def run(cell: Job) -> Ended:
        share = slots.get()
        try:
            return _process(cell, share, logs / f"{cell.name}.txt")
        finally:
            slots.put(share)

    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(run, cell) for cell in cells]):
            yield future.result()
    finally:  # interrupted: what runs is interrupted with us, what waits does not begin
        pool.shutdown(cancel_futures=True)


def _share(slot: int, jobs: int) -> dict[str, str]:
    """Environment of what runs in one of several slots."""
    if jobs == 1:
        return {}
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = {"OMP_NUM_THREADS": str(max(1, cores // jobs))} if "OMP_NUM_THREADS" not in os.environ else {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = [gpu for gpu in visible.split(",") if gpu]
    return {**share, "CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else share


def _process(cell: Job, share: Mapping[str, str], log: Path) -> Ended:
    command = [sys.executable, "-m", "fullrank", *cell.command()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **share})
    log.write_text(f"$ {' '.join(command)}\n{done.stderr}{done.stdout}")
    if done.returncode in (0, 3):
        return Ended(cell)
    return Ended(cell, error=_said(done.stderr or f"ended with exit code {done.returncode}", log))


def _said(printed: str, log: Path) -> str:
    """The line that tells what went wrong: ours, or else the last one."""
    lines = printed.strip().splitlines()
    ours = [line.removeprefix("fullrank: ") for line in lines if line.startswith("fullrank: ")]
    return f"{[*lines, *ours][-1]} (all of it in {log})"


def on_slurm(
    cells: Sequence[Job], settings: Mapping[str, Any], folder: Path, cluster: str = "slurm"
) -> Callable[[], Iterator[Ended]]:
    """Submits them as one job array, and returns what waits for them.

    Args:
        cells: the runs.
        settings: of submitit's executor, as `timeout_min`, `gpus_per_node`, `slurm_partition`.
        folder: for scripts, logs and results.
        cluster: submitit's name of it.

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
        jobs = {executor.submit(work, cell.command()): cell for cell in cells}

    def wait() -> Iterator[Ended]:
        for job in submitit.helpers.as_completed(list(jobs)):
            try:
                job.result()
                yield Ended(jobs[job])
            except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
                yield Ended(jobs[job], error=_said(job.stderr() or str(error), job.paths.stderr))

    return wait


def work(command: Sequence[str]) -> None:
    """What a job of the cluster does; every task of it the same, and Fabric tells them apart.

    Raises:
        FullrankError: the command failed.
    """
    from fullrank.cli import main

    code = main(command)
    if code not in (0, 3):
        raise FullrankError(f"fullrank {' '.join(command)}: exit code {code}")
