"""Processes that share a command, started by torchrun or by the command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from fullrank.atomic import is_alive
from fullrank.collapse.peers import PATIENCE, Peers
from fullrank.errors import FullrankError, UsageError, first_line
from fullrank.features.writing import processes
from fullrank.launchers import (
    MEETING,
    Processes,
    check_meeting,
    launched_processes,
)
from fullrank.terminal import say
from fullrank.training.meeting import Failure, Peer, meet
from fullrank.training.orphans import child_of_this, end_with_parent

_WORDS = "fullrank/why"  # where processes meet, why one of them ends
MOST = 256  # processes that a command starts
ENDING = 2.0  # seconds in which the first says why another one ends
_SHARED: ContextVar[Peers | None] = ContextVar("shared", default=None)


def shared_peers() -> Peers:
    """Processes that share the running command; one outside of `sharing`.

    Example:
        >>> shared_peers().size
        1
    """
    return _SHARED.get() or Peers(alone=True)


def is_helper() -> bool:
    """Whether another process than this one prints and writes what a command finds."""
    return processes()[0] > 0


@contextmanager
def sharing(words: Sequence[str], number: int = 0, parts: Callable[[], int] | None = None) -> Iterator[Peers]:
    """Share a command with torchrun's processes, or with some started here.

    An error in one of the helpers ends it without a word: the first process says the same, or names it.

    Args:
        words: of the command line, for the processes that are started.
        number: of processes, this one too; 0: those of torchrun, or this one alone.
        parts: counts what can be shared, above which no process is started.

    Raises:
        UsageError: torchrun has started another number of processes, or there cannot be so many.
        FullrankError: a process ended before its time.

    Example:
        >>> with sharing(["audit", "features.npy"]) as peers:
        ...     peers.size
        1
    """
    rank, size, _ = processes()
    if number < 0:
        raise UsageError(f"--processes must not be negative, and is {number}")
    if number > MOST:
        raise UsageError(f"--processes is {number:,}: {MOST} on one machine are the most")
    if MEETING in os.environ:  # which the first of them may have started fewer of
        number = size
    if number > 1 and size == 1:
        number = _as_many_as_parts(number, parts)
    if number > 1 and size == 1:
        with _started(words, number):
            yield from _met(0, number)
        return
    if number not in (0, size):
        raise UsageError(f"--processes {number} beside {size} of torchrun: leave --processes out")
    if size == 1:
        yield Peers(alone=True)
        return
    yield from _met(rank, size)


def _as_many_as_parts(number: int, parts: Callable[[], int] | None) -> int:
    """A number of processes that each have a part, with a note where it is less."""
    there = parts() if parts else number
    if 0 < there < number:
        are = "1 process reads" if there == 1 else f"{there:,} processes read"
        why = "each file is read by one, and a large one by several in parts"
        say(f"note    {are} this, not {number}: {why}", sys.stderr)
    return max(min(number, there), 1)


def _met(rank: int, size: int) -> Iterator[Peers]:
    meeting, found = os.environ.get(MEETING), launched_processes() or Processes(size, size, "fullrank", rank)
    check_meeting(found)
    if meeting and rank:
        end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_threads(size))
    store, peers = None, tuple[Peer, ...]()
    if not meeting:
        met = meet(found, *_place(found), PATIENCE, f"{PATIENCE.total_seconds() / 3600:g} hours")
        store, peers = met.store, met.peers
    try:
        dist.init_process_group("gloo", meeting, PATIENCE, size, rank, store)
        _SHARED.set(Peers())
        yield Peers()
        dist.barrier()  # none leaves while another one still needs it
    except Exception as error:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            why = _words_left() or _dead(peers, rank, size)
            why = why or f"another process has ended before its time: {first_line(error)}"
            raise FullrankError(why) from error
        if rank and dist.is_initialized():
            _leave_words(f"rank {rank} of {size} failed: {_in_a_line(error)}")
        if rank and isinstance(error, FullrankError):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    finally:
        _SHARED.set(None)
        if dist.is_initialized():
            dist.destroy_process_group()


def _leave_words(line: str) -> None:
    """Tell the first process why this one ends, while no launcher ends that, too."""
    with suppress(RuntimeError):  # of a first process that has ended itself
        _get_default_store().set(_WORDS, line)
        dist.destroy_process_group()
        time.sleep(ENDING)


def _words_left() -> str:
    """Why another process has ended, where it told the first."""
    end = time.monotonic() + ENDING
    with suppress(RuntimeError):
        while not _get_default_store().check([_WORDS]) and time.monotonic() < end:
            time.sleep(0.1)
        if _get_default_store().check([_WORDS]):
            return str(_get_default_store().get(_WORDS).decode())
    return ""


def _dead(peers: Sequence[Peer], rank: int, size: int) -> str:
    """Which other process of this machine has died, of those that this one met."""
    here = [peer for peer in peers if peer.rank != rank and peer.host == socket.gethostname()]
    dead = [peer for peer in here if not is_alive(peer.pid)]
    return f"{Failure(dead[0]).line(size)}; rank {rank} ends with it" if dead else ""


def _in_a_line(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, FullrankError) else f"{type(error).__name__}: {line}"


def _place(processes: Processes) -> tuple[str, int]:
    """Where the processes of a launcher meet."""
    if processes.launcher != "SLURM":
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    from fullrank.training.launch import SrunEnvironment

    srun = SrunEnvironment()
    return srun.main_address, srun.main_port


def _threads(size: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", size)))


@contextmanager
def _started(words: Sequence[str], number: int) -> Iterator[None]:
    """Start the other processes of a command, and end them with it."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        common = {MEETING: meeting, "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
        common.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(_threads(number))))
        helpers = []
        os.environ[MEETING] = meeting
        done = threading.Event()
        try:
            for rank in range(1, number):
                command = [sys.executable, "-m", "fullrank", *words]
                with child_of_this():
                    own = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                    helpers.append(subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL))
            threading.Thread(target=_watch, args=(helpers, done), daemon=True).start()
            yield
        finally:
            done.set()
            os.environ.pop(MEETING, None)
            for helper in helpers:
                if helper.poll() is None and sys.exc_info()[0] is not None:
                    helper.terminate()
                helper.wait()


def _watch(helpers: Sequence[subprocess.Popen[bytes]], done: threading.Event) -> None:
    """End this process where a helper has died, for it would wait for it."""
    while not done.wait(0.2):
        dead = [rank for rank, helper in enumerate(helpers, 1) if helper.poll() is not None and helper.poll()]
        if dead:
            time.sleep(2)  # an error of all processes is told by the first
            if done.is_set():
                return
            helper = helpers[dead[0] - 1]
            peer = Peer(dead[0], helper.pid, socket.gethostname())
            line = Failure(peer, code=helper.returncode).line(len(helpers) + 1)
            say(f"fullrank: {line}; rank 0 ends with it", sys.stderr)
            for helper in helpers:
                helper.terminate()
            os._exit(1)
