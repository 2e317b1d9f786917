"""Which process of how many this is, as its launcher has said in the environment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fullrank.errors import UsageError, printable
from fullrank.terminal import say

LONGEST_NUMBER = 9  # digits of a number of processes
LAST_PORT = 65_535
INTERACTIVE_STEP = 0xFFFFFFF0  # of SLURM: numbers from here on are of shells and batch scripts
WAITING = 15.0  # seconds after which it is said that a process waits for the others
UNNAMED = "the launcher that set RANK"
MEETING = "FULLRANK_MEETING"
"""Where processes meet that a command has started itself; torchrun says it in its own words."""
_OPEN_MPI = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
MPI = (
    tuple(f"OMPI_COMM_WORLD_{name}" for name in _OPEN_MPI),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
"""Rank, processes, and both on this machine, as Open MPI and MPICH name them."""
IMPORTED = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""What Lightning reads as a number as soon as it is imported."""
VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_STEPID", *MPI[0], *MPI[1]),
)


class Processes(NamedTuple):
    """Processes that a launcher has started, and which of them this one is."""

    world: int
    local: int  # of this machine
    launcher: str
    rank: int = 0
    local_rank: int = 0


def launched_processes() -> Processes | None:
    """Processes as torchrun, srun or another launcher tells them; None without one.

    Tasks of a SLURM job count where srun has started them. A shell or a batch script on a node, of however
    many tasks, is one process.

    Raises:
        UsageError: a variable is no whole number, is missing beside another, or a rank is not below its
            number of processes.
    """
    check_ranks()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _of_torchrun("torchrun")
    if MEETING in os.environ and "RANK" in os.environ:
        return _of_torchrun("fullrank")
    tasks = _of_srun()
    if tasks and tasks.world > 1:
        return tasks
    if "RANK" in os.environ and "WORLD_SIZE" not in os.environ and _number("RANK", 0):
        raise UsageError(
            f"RANK is {os.environ['RANK']} in the environment, and WORLD_SIZE is missing: set both as "
            "torchrun does, or unset RANK"
        )
    if "RANK" in os.environ and _number("WORLD_SIZE", 1, least=1) > 1:
        return _of_torchrun(UNNAMED)
    return _of_mpi() or tasks


def check_ranks() -> None:
    """See that ranks in the environment are numbers.

    Raises:
        UsageError: one is not.
    """
    for name in IMPORTED:
        _number(name, 0)


def _of_torchrun(launcher: str) -> Processes:
    world = _number("WORLD_SIZE", 1, least=1)
    alone = launcher == UNNAMED and "LOCAL_RANK" not in os.environ  # one on each machine
    local = _number("LOCAL_WORLD_SIZE", 1 if alone else world, least=1)
    if local > world:
        raise UsageError(f"LOCAL_WORLD_SIZE is {local} in the environment, more than WORLD_SIZE {world}")
    if world % local:
        raise UsageError(
            f"LOCAL_WORLD_SIZE is {local} in the environment, and does not divide WORLD_SIZE {world}: every "
            "machine needs as many processes"
        )
    return Processes(world, local, launcher, *_ranks("RANK", world, "LOCAL_RANK", local))


def _of_srun() -> Processes | None:
    step = os.environ.get("SLURM_STEP_ID", os.environ.get("SLURM_STEPID", ""))
    shell = "SLURM_PTY_PORT" in os.environ or os.environ.get("SLURM_JOB_NAME") == "bash"
    if shell or not step.isdecimal() or int(step) >= INTERACTIVE_STEP or "SLURM_NTASKS" not in os.environ:
        return None
    world, nodes = _number("SLURM_NTASKS", 1, least=1), _number("SLURM_NNODES", 1, least=1)
    if world % nodes:
        raise UsageError(f"{world} tasks on {nodes} nodes: every node needs as many, as {nodes} tasks")
    local = world // nodes
    return Processes(world, local, "SLURM", *_ranks("SLURM_PROCID", world, "SLURM_LOCALID", local))


def _of_mpi() -> Processes | None:
    for rank, size, local_rank, local_size in MPI if "SLURM_JOB_ID" not in os.environ else MPI[:1]:
        if rank in os.environ and (world := _number(size, 1, least=1)) > 1:
            local = _number(local_size, world, least=1)
            return Processes(world, local, "mpirun", *_ranks(rank, world, local_rank, local))
    return None


def check_srun() -> None:
    """See that a batch script of several tasks starts its command with srun.

    Raises:
        UsageError: it does not: one process would do the work of all.
    """
    # a batch script has the rank of a task, a shell of salloc none, whatever the job is called
    script = "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    if not script or launched_processes() or "SLURM_STEP_ID" in os.environ:
        return
    if (world := _number("SLURM_NTASKS", 1, least=1)) > 1:
        raise UsageError(
            f"this job has {world} tasks, and a batch script is one of none: start the command with srun"
        )


def check_meeting(processes: Processes) -> None:
    """See that the processes of a launcher can find each other.

    Raises:
        UsageError: they are not told where, or the launcher is not one that tells it.
    """
    if processes.world == 1 or processes.launcher in ("fullrank", "SLURM"):
        return
    if processes.launcher == "mpirun":
        raise UsageError(
            f"mpirun has started {processes.world} processes, which do not know where to meet: start them "
            f"with srun, or with torchrun --nproc-per-node {processes.local} -m fullrank ..."
        )
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise UsageError(
            f"WORLD_SIZE is {processes.world} in the environment, and {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing, where the processes meet: start them with "
            "torchrun, or unset RANK and WORLD_SIZE for one process"
        )
    if not 0 < _number("MASTER_PORT", 0) <= LAST_PORT:
        raise UsageError(
            f"MASTER_PORT is {os.environ['MASTER_PORT']} in the environment, and must be a port from 1 to "
            f"{LAST_PORT}: torchrun --standalone finds a free one, --master-port 0 does not"
        )


def leave_launcher() -> Processes | None:
    """Forget the launcher, for a command that is done by one process.

    Returns:
        The processes where there are several, of which the first goes on.
    """
    found = launched_processes()
    if found is None or found.world == 1:
        return None
    for name in VARIABLES:
        os.environ.pop(name, None)
    return found


@contextmanager
def saying_that_it_waits(
    processes: Processes, longest: str, awaited: Callable[[], str] = lambda: "the other processes"
) -> Iterator[None]:
    """Say so where the first process of this machine still waits after a while.

    Args:
        processes: which this one meets.
        longest: how long it waits, in words.
        awaited: tells who has not come, when it is said.
    """

    def say_it() -> None:
        say(
            f"fullrank: rank {processes.rank} waits for {awaited()}: WORLD_SIZE is {processes.world}, as "
            f"{processes.launcher} has it; for {longest} at most",
            sys.stderr,
        )

    timer = threading.Timer(WAITING, say_it)
    timer.daemon = True
    own = processes.launcher == "fullrank" and processes.world == processes.local  # whose end is seen
    if not own and processes.world > 1 and processes.local_rank == 0:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _number(name: str, default: int, least: int = 0) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or len(value) > LONGEST_NUMBER or int(value) < least:
        shown = printable(value[: LONGEST_NUMBER + 1])
        raise UsageError(f"{name} is {shown!r} in the environment, and must be a whole number from {least}")
    return int(value)


def _ranks(name: str, world: int, local_name: str, local: int) -> tuple[int, int]:
    """This process among all, and among those of its machine.

    Raises:
        UsageError: one is no rank of so many, or is not there: the others would wait for it in vain.
    """
    found = []
    for each, processes, where in ((name, world, ""), (local_name, local, " on this machine")):
        if processes > 1 and each not in os.environ:
            raise UsageError(
                f"{each} is missing in the environment, and {processes} processes are said to run{where}"
            )
        rank = _number(each, 0)
        if rank >= processes:
            are = f"{processes} processes are" if processes > 1 else "1 process is"
            raise UsageError(
                f"{each} is {rank} in the environment, and {are} said to run{where}: it must be below "
                f"{processes}"
            )
        found.append(rank)
    return found[0], found[1]
