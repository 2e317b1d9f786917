"""Meeting of a run's processes: who is there, and who is missing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from fullrank.errors import FullrankError, UsageError, first_line, printable
from fullrank.launchers import Processes, saying_that_it_waits

SHOWN = 8  # ranks that a message names
PAUSE = 0.2  # seconds between two questions who has come
LEAVING = 2.0  # seconds in which the others hear from the first that it gives up
UNSAID = "without a word, as of kill -9 or for want of memory"
STEP = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID")
"""What tells processes of one start from those of another, that meet at the same port by mistake."""


@dataclass(frozen=True)
class Peer:
    """A process of a run."""

    rank: int
    pid: int
    host: str


@dataclass(frozen=True)
class Failure:
    """A process that failed: with its error, without a word, or with an exit code."""

    peer: Peer
    error: str = ""
    code: int = -signal.SIGKILL

    def line(self, world: int) -> str:
        """Say which process it was, and what became of it.

        Example:
            >>> Failure(Peer(1, 7, "node")).line(2)
            'rank 1 of 2 (process 7 on node) died without a word, as of kill -9 or for want of memory'
        """
        name = f"rank {self.peer.rank} of {world} (process {self.peer.pid} on {self.peer.host})"
        return f"{name} failed: {self.error}" if self.error else f"{name} {how_ended(self.code)}"


def how_ended(code: int) -> str:
    """Say what the exit code of a process means, negative for a signal.

    Example:
        >>> how_ended(-15), how_ended(3)
        ('was ended by SIGTERM', 'ended with exit code 3')
    """
    if code == -signal.SIGKILL:
        return f"died {UNSAID}"
    known = -code in {each.value for each in signal.Signals}
    return f"was ended by {signal.Signals(-code).name}" if known else f"ended with exit code {code}"


@dataclass(frozen=True)
class Meeting:
    """Processes that have met.

    Attributes:
        store: what all of them read and write.
        peers: of the first process all, by rank; of another one the first alone.
    """

    store: Store
    peers: tuple[Peer, ...]


def meet(processes: Processes, host: str, port: int, longest: timedelta, words: str) -> Meeting:
    """Wait until all processes of a run have come.

    Args:
        processes: how many, and which this one is.
        host: where the first one listens.
        port: likewise.
        longest: how long to wait.
        words: the same for messages, with the option that says it.

    Raises:
        UsageError: the first cannot listen there.
        FullrankError: some have not come, or the first has ended; the message names them.
    """
    end = time.monotonic() + longest.total_seconds()
    place = f"{printable(host)}:{port}"
    waited = _Waited(processes, place, host)
    with saying_that_it_waits(processes, words, lambda: waited.words):
        try:
            waited.store = _store(processes, host, port, longest)
            own = Peer(processes.rank, os.getpid(), socket.gethostname())
            waited.store.set(_here(processes.rank), json.dumps(asdict(own)))
            if processes.rank == 0:
                _gather(waited, end, words)
            else:
                _await_all(waited, end, words)
            known = range(processes.world if processes.rank == 0 else 1)
            peers = [Peer(**json.loads(waited.store.get(_here(rank)))) for rank in known]
        except RuntimeError as error:  # of the store
            raise _problem(error, waited, place, time.monotonic() >= end, words) from error
    return Meeting(waited.store, tuple(peers))


@dataclass
class _Waited:
    """Who is waited for.

    Attributes:
        store: None as long as the first process has not been reached.
        missing: ranks that the first one knows not to have come.
    """

    processes: Processes
    place: str
    host: str
    store: Store | None = None
    missing: Sequence[int] = ()

    @property
    def words(self) -> str:
        """Who that is, for a message."""
        if self.store is None and self.processes.rank:
            return f"rank 0 at {self.place}{_unknown(self.host)}"
        return named_ranks(self.missing) if self.missing else "the other processes"


def named_ranks(ranks: Sequence[int]) -> str:
    """Name some ranks.

    Example:
        >>> named_ranks([2]), named_ranks([1, 3]), named_ranks(range(1, 16))
        ('rank 2', 'ranks 1 and 3', 'ranks 1, 2, 3, 4, 5, 6, 7, 8 and 7 more')
    """
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > SHOWN:
        return f"ranks {', '.join(map(str, ranks[:SHOWN]))} and {len(ranks) - SHOWN} more"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _here(rank: int) -> str:
    return f"here/{rank}"


def _store(processes: Processes, host: str, port: int, longest: timedelta) -> Store:
    """What the first process serves, or torchrun, and all others connect to."""
    if processes.launcher == "torchrun" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        served: Store = next(rendezvous("env://", processes.rank, processes.world, timeout=longest))[0]
        return served
    first = processes.rank == 0
    store = TCPStore(host, port, is_master=first, timeout=longest, wait_for_workers=False, multi_tenant=True)
    return PrefixStore("/".join(os.environ.get(name, "") for name in STEP), store)


def _gather(waited: _Waited, end: float, words: str) -> None:
    """Wait for all as the first process, and tell them the outcome."""
    assert waited.store is not None
    missing: Sequence[int] = range(1, waited.processes.world)
    while missing := [rank for rank in missing if not waited.store.check([_here(rank)])]:
        waited.missing = missing
        if time.monotonic() > end:
            waited.store.set("missing", waited.words)
            time.sleep(LEAVING)
            raise _not_met(waited.processes.world, words, waited.words)
        time.sleep(PAUSE)
    waited.store.set("all", "")


def _await_all(waited: _Waited, end: float, words: str) -> None:
    """Wait until the first process says that all have come, or who has not."""
    store, world = waited.store, waited.processes.world
    assert store is not None
    while not store.check(["all"]):
        if store.check(["missing"]):
            raise _not_met(world, words, store.get("missing").decode())
        if time.monotonic() > end + LEAVING:
            missing = [rank for rank in range(world) if not store.check([_here(rank)])]
            raise _not_met(world, words, named_ranks(missing) if missing else "rank 0")
        time.sleep(PAUSE)


def _not_met(world: int, words: str, missing: str) -> FullrankError:
    return FullrankError(f"the {world} processes have not met within {words}: {missing} did not come")


def _problem(error: RuntimeError, waited: _Waited, place: str, late: bool, words: str) -> FullrankError:
    """What an error of the store means."""
    world, said = waited.processes.world, first_line(error)
    if "EADDRINUSE" in str(error):
        return UsageError(
            f"port {place.rpartition(':')[2]} of this machine is in use, where {world} processes are to "
            "meet: by another process that was started as rank 0, too, or else set MASTER_PORT to a free "
            "one; torchrun --standalone finds one"
        )
    if waited.store is None and waited.processes.rank == 0:
        return UsageError(
            f"rank 0 cannot be reached at {place}{_unknown(waited.host)}, where {world} processes are to "
            f"meet: MASTER_ADDR must be an address of the machine of rank 0 ({said})"
        )
    if waited.store is None or late:
        return _not_met(world, words, waited.words)
    return FullrankError(f"rank 0 of {world} ended before all processes had met at {place} ({said})")


def _unknown(host: str) -> str:
    """What is to be said of a name that has no address."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return ", a name that is not known here"
    return ""
