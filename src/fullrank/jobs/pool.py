"""A process pool: several jobs at a time, each with its share of cores and GPUs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from typing import Any

from fullrank.jobs.agenda import Agenda, InOrder
from fullrank.jobs.job import Job, Notify
from fullrank.training.record_files import follow
from fullrank.training.records import Listener
from fullrank.training.signals import EndedBySignal, StoppedError, stop_on_signals

GRACE = 10.0  # seconds that jobs have for a last checkpoint
QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
"""What jobs that were killed left in /dev/shm is removed without a word about it."""
Work = Callable[[Job], str]
"""Does a job in the process that it is called in; returns what failed, in one line, or nothing."""


def run_pool(
    jobs: Sequence[Job],
    work: Work,
    at_once: int,
    log: Callable[[Job], Path],
    notify: Notify = lambda *_: None,
    agenda: Agenda | None = None,
) -> dict[str, str]:
    """Run jobs in separate processes; return failures as {name: message}.

    Args:
        jobs: in the order in which they begin.
        work: does one of them; it is pickled.
        at_once: how many at a time; they share the cores evenly, and take a GPU each where there are several.
        log: a job's `metrics.jsonl`, whose new records go to `notify`.
        notify: called at every change and with every record.
        agenda: which of the jobs begins when; None: one after another.
    """
    # one server imports torch once, and every job is a fork of it
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        own = {job.measure.__module__ for job in jobs if job.measure}
        context.set_forkserver_preload(["fullrank.training.run", "fullrank.jobs.once", *sorted(own)])
    shares = [share(place, at_once) for place in range(at_once)]
    agenda = InOrder(jobs) if agenda is None else agenda
    running, failed = dict[str, _Running](), dict[str, str]()
    with stop_on_signals() as asked:
        try:
            while (agenda or running) and asked.received is None:
                while len(running) < at_once and asked.received is None and (job := agenda.take()):
                    asked.at_once = _end_server  # which the start of a process may wait for
                    started = _Running(context, job, work, shares.pop(0), log)
                    asked.at_once = _nothing
                    running[started.job.name] = started
                    notify(started.job, "running", None)
                wait([found.process.sentinel for found in running.values()], timeout=0.2)
                for name, found in list(running.items()):
                    ended = found.process.exitcode is not None  # asked before its last records are read
                    found.read(partial(notify, found.job, "running"))
                    if ended and asked.received is None:
                        shares.append(running.pop(name).share)
                        if error := found.error():
                            failed[name] = error
                        notify(found.job, "failed" if error else "done", error or None)
        except EOFError:  # the server was ended while a process was to start
            if asked.received is None:
                raise
        finally:
            asked.at_once = _nothing
            _end([found.process for found in running.values()], patience=bool(asked.received))
    if asked.received is not None:
        _end_server()
        with contextlib.suppress(OSError):
            _forkserver._stop()  # type: ignore[attr-defined]  # waits for it: nothing outlives the command
        raise EndedBySignal(asked.received)
    return failed


def _nothing() -> None:
    """Do nothing at once where the loop asks soon enough."""


def _end_server() -> None:
    """Kill the server of forks, so that nobody waits for a process from it."""
    pid = getattr(_forkserver, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _end(processes: Sequence[Any], patience: bool) -> None:
    """End processes; with patience they may write their checkpoints first."""
    try:
        until = time.monotonic() + (GRACE if patience else 0.0)
        for process in processes if patience else ():
            process.terminate()
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:  # also where a second signal ends the patience
        for process in processes:
            process.kill()
            process.join()


class _Running:
    def __init__(
        self, context: Any, job: Job, work: Work, share: dict[str, str], log: Callable[[Job], Path]
    ) -> None:
        self.job, self.share, self.log = job, share, log(job)
        self.position = self.log.stat().st_size if self.log.exists() else 0  # of a run that is resumed
        self.answer, answer = context.Pipe(duplex=False)
        self.process = context.Process(target=_process, args=(job, work, share, answer))
        with _environment(
            {"PYTHONWARNINGS": QUIET_TRACKER} | share
        ):  # what the server of all forks is started with
            self.process.start()
        answer.close()

    def read(self, listener: Listener) -> None:
        self.position = follow(self.log, self.position, listener)

    def error(self) -> str:
        """What failed, of a process that has ended; nothing where nothing did."""
        try:
            return str(self.answer.recv())
        except EOFError:
            return f"its process ended with code {self.process.exitcode}"


def _process(job: Job, work: Work, share: Mapping[str, str], answer: Any) -> None:
    """One job, in a process that ends with the one that started it."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=end_with, daemon=True).start()
    os.environ.update(share)
    if "OMP_NUM_THREADS" in share:
        import torch

        torch.set_num_threads(int(share["OMP_NUM_THREADS"]))
    try:
        answer.send(work(job))
    except StoppedError as stop:
        os._exit(stop.exit_code)
    except KeyboardInterrupt:  # of a terminal, whose Ctrl-C goes to all
        os._exit(128 + signal.SIGINT)


def share(place: int, at_once: int) -> dict[str, str]:
    """Environment of one of several parallel jobs: threads, unless set, and a GPU.

    Example:
        >>> share(0, 1)
        {}
    """
    if at_once == 1:
        return {}
    import torch

    own: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(max(1, cores() // at_once)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = [gpu for gpu in visible.split(",") if gpu]
    return {**own, "CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else own


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
