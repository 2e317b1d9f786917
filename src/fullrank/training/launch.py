"""Processes of a run: as torchrun or SLURM started them, or one a device."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning_fabric.utilities.distributed import _init_dist_connection
from torch.nn.parallel import DistributedDataParallel

from fullrank.errors import FullrankError, UsageError, first_line, printable
from fullrank.launchers import (
    LONGEST_NUMBER,
    Processes,
    check_meeting,
    check_srun,
    launched_processes,
)
from fullrank.malloc import keep_freed_memory
from fullrank.terminal import say
from fullrank.training.config import TrainConfig
from fullrank.training.lifeline import met
from fullrank.training.meeting import Meeting, how_ended, meet
from fullrank.training.orphans import child_of_this, end_with_parent, parent_has_ended
from fullrank.training.sharding import ShardSyncControl

OVER_MACHINES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""Variables by which processes of several machines meet without a launcher."""
FIRST_PORT, STEP_PORTS = 15_000, 509  # where tasks of srun meet, by job and step
ENDING = 1.0  # seconds in which all that failed alike say so


def launch_fabric(config: TrainConfig) -> Fabric:
    """Launch Fabric for the devices and the precision that the configuration names.

    Where torchrun or SLURM started the processes, their number decides, whatever devices each of them sees.
    """
    gpu = _uses_gpu(config)
    if config.accelerator == "gpu" and not gpu:
        raise UsageError("no GPU is there: --accelerator cpu, or auto, trains on the CPU")
    if config.precision == "fp16" and not gpu:
        raise UsageError("fp16 needs a GPU; on the CPU use --precision fp32 or bf16")
    if not gpu:
        keep_freed_memory()
    precision: Any = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[config.precision]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # a line of our own says it all
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    check_srun()
    launched = launched_processes()
    processes = launched or _own_processes(config, gpu)
    check_meeting(processes)
    strategy: Any = "auto"
    if processes.world > 1:
        strategy = ProcessStrategy(config, processes, _devices(processes, gpu))
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=processes.local if processes.world > 1 else 1,
        num_nodes=processes.world // processes.local,
        strategy=strategy,
        plugins=[cluster_environment(processes)],
        precision=precision,
    )
    if launched is None and fabric.local_rank:
        threading.Thread(target=_observe_first, args=(processes,), daemon=True, name="parent").start()
    try:
        fabric.launch()
    except RuntimeError as error:
        raise FullrankError(
            f"the {processes.world} processes have met, and not been connected: {first_line(error)}"
        ) from error
    if launched:
        end_with_parent()
    return fabric


def expected_processes(config: TrainConfig) -> int:
    """How many processes a run of a configuration has, known before they meet.

    Raises:
        UsageError: there cannot be so many.

    Example:
        >>> expected_processes(TrainConfig(accelerator="cpu", devices=2))
        2
    """
    return (launched_processes() or _own_processes(config, _uses_gpu(config))).world


def _uses_gpu(config: TrainConfig) -> bool:
    return torch.cuda.is_available() and config.accelerator != "cpu"


def launch_line(fabric: Fabric) -> str:
    """Say which processes train; empty for one.

    Example:
        >>> launch_line(Fabric(accelerator="cpu", devices=1))
        ''
    """
    world = fabric.world_size
    if world == 1:
        return ""
    launched = launched_processes()
    local = launched.local if launched else getattr(fabric.strategy, "num_processes", world)
    nodes, by = world // local, launched.launcher if launched else "fullrank itself"
    where = f"{nodes} machines" if nodes > 1 else "one machine"
    backend = torch.distributed.get_backend()
    sharded = " sharded (fsdp)" if getattr(fabric.strategy, "sharded", False) else ""
    return f"{world} processes on {where}, started by {by}, exchange{sharded} gradients through {backend}"


def _own_processes(config: TrainConfig, gpu: bool) -> Processes:
    """Processes that the configuration asks this one to start, one a device."""
    local = config.devices or (torch.cuda.device_count() if gpu else 1)
    nodes = config.num_nodes
    if nodes > 1 and (missing := [name for name in OVER_MACHINES if name not in os.environ]):
        raise UsageError(
            f"--num-nodes {nodes} needs torchrun or SLURM, which start a process for each device; or "
            f"{', '.join(OVER_MACHINES[:-1])} and {OVER_MACHINES[-1]} in the environment of the command on "
            f"each machine, of which {missing[0]} is missing"
        )
    for name, processes in (("NODE_RANK", nodes), ("LOCAL_RANK", local)):
        number = os.environ.get(name, "0")
        if local * nodes > 1 and not (number.isdecimal() and int(number[:LONGEST_NUMBER]) < processes):
            raise UsageError(
                f"{name} is {printable(number[:LONGEST_NUMBER])} in the environment, and must be a whole "
                f"number below {processes}: unset it, or let torchrun start the processes"
            )
    if local > 1 and "LOCAL_RANK" in os.environ and "MASTER_PORT" not in os.environ:
        raise UsageError(
            "LOCAL_RANK is in the environment, as if these processes were started already, and MASTER_PORT "
            "is missing, where they meet: unset it, or let torchrun start them"
        )
    if not gpu and local > (os.cpu_count() or 1) and local > 4:  # a few may share a core, to try things out
        raise UsageError(f"--devices {local} are more processes than this machine has cores")
    return Processes(local * nodes, local, "fullrank")


def cluster_environment(processes: Processes) -> ClusterEnvironment:
    """Where Fabric asks for ranks and addresses: the launcher of the processes."""
    if processes.launcher == "SLURM":
        return SrunEnvironment()
    if processes.launcher == "fullrank":
        return OwnEnvironment(processes.world == processes.local)
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(processes.local))
    os.environ.setdefault("LOCAL_RANK", str(processes.local_rank))  # who is alone on a machine has none
    return TorchElasticEnvironment()


class SrunEnvironment(SLURMEnvironment):
    """Tasks as srun has started them, whichever of its options their number came from."""

    @property
    def main_port(self) -> int:
        """Port where they meet, of its own for each of the first steps of a job."""
        step = os.environ.get("SLURM_STEP_ID", "0")
        if "MASTER_PORT" not in os.environ and step.isdecimal():
            job = int(os.environ["SLURM_JOB_ID"][-4:]) if "SLURM_JOB_ID" in os.environ else 0
            os.environ["MASTER_PORT"] = str(FIRST_PORT + (job + STEP_PORTS * int(step)) % 10_000)
        return super().main_port

    def node_rank(self) -> int:
        """Node of this process; unless SLURM says it, nodes fill one after another."""
        found = launched_processes()
        return int(os.environ.get("SLURM_NODEID", found.rank // found.local if found else 0))

    @staticmethod
    def _validate_srun_variables() -> None:
        """Nothing: `launched_processes` has seen to it."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: both numbers are those of the step, and not those of its job."""


class OwnEnvironment(LightningEnvironment):
    """Processes that the first one starts.

    Args:
        one_machine: whether all are on this one, and meet there whatever MASTER_ADDR says.
    """

    def __init__(self, one_machine: bool) -> None:
        super().__init__()
        self.one_machine = one_machine

    @property
    def main_address(self) -> str:
        """Where the processes meet."""
        return "127.0.0.1" if self.one_machine else super().main_address


def _devices(processes: Processes, gpu: bool) -> list[torch.device]:
    """A device for each process of this machine, by its local rank.

    Raises:
        UsageError: processes would share a GPU.
    """
    if not gpu:
        return [torch.device("cpu")] * processes.local
    seen = torch.cuda.device_count()
    if seen == 1 and processes.launcher != "fullrank":  # each process is shown one of its own
        return [torch.device("cuda", 0)] * processes.local
    if seen < processes.local:
        if processes.launcher == "fullrank":
            raise UsageError(f"--devices {processes.local} are more than the {seen} GPUs of this machine")
        raise UsageError(
            f"{processes.launcher} started {processes.local} processes on this machine, which has {seen} "
            "GPUs: start one a GPU"
        )
    return [torch.device("cuda", index) for index in range(processes.local)]


class ProcessStrategy(DDPStrategy):
    """Fabric's DDP, or with `--strategy fsdp` networks that are sharded already.

    Attributes:
        sharded: whether networks come sharded, and exchange their own gradients.
        meeting: of the processes, once they have met.
        launcher: starts the processes of this machine, where no other launcher did.
    """

    meeting: Meeting

    def __init__(self, config: TrainConfig, processes: Processes, devices: list[torch.device]) -> None:
        self.longest = timedelta(minutes=config.timeout_minutes)
        super().__init__(parallel_devices=devices, timeout=self.longest)
        self.processes = processes
        self.sharded = config.strategy == "fsdp"
        self._reduces_bf16 = config.reduce_precision == "bf16"
        if self.sharded:
            self._backward_sync_control: Any = ShardSyncControl()

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def _setup_distributed(self) -> None:
        """Connect the processes where they meet, which tells who is missing."""
        assert self.cluster_environment is not None
        self._set_world_ranks()
        processes = self.processes._replace(rank=self.global_rank, local_rank=self.local_rank)
        place, words = self.cluster_environment, f"--timeout-minutes {self.longest.total_seconds() / 60:g}"
        self.meeting = meet(processes, place.main_address, place.main_port, self.longest, words)
        backend = self._process_group_backend = self._get_process_group_backend()
        device = self.root_device if self.root_device.type != "cpu" else None
        more: Any = {"timeout": self.longest, "store": self.meeting.store, "device_id": device}
        _init_dist_connection(place, backend, **more)

    def setup_module(self, module: torch.nn.Module) -> Any:
        """Wrap a method for DDP; a sharded one is what it is."""
        if self.sharded:
            return module
        wrapped: DistributedDataParallel = super().setup_module(module)
        if self._reduces_bf16:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            wrapped.register_comm_hook(None, bf16_compress_hook)
        return wrapped


class _Launcher(_SubprocessScriptLauncher):
    """Fabric's launcher, whose end of a process is said in a line and ends the others."""

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            with child_of_this():
                self._call_children_scripts()
            threading.Thread(target=_observe, args=(self.procs,), daemon=True, name="children").start()
        return function(*args, **kwargs)


def _observe(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process and its children where one of them fails before all have met.

    From then on the lifeline does that, which knows more.
    """
    while not met.wait(0.2):
        failed = [(rank, child) for rank, child in enumerate(children, 1) if child.poll()]
        if not failed:
            continue
        rank, child = failed[0]
        time.sleep(ENDING)
        for each in children:
            each.kill()
        say(
            f"fullrank: local rank {rank} (process {child.pid}) {how_ended(child.returncode)}; the other "
            "processes end with it",
            sys.stderr,
        )
        os._exit(1)


def _observe_first(processes: Processes) -> None:
    """End this process where its parent ends before all have met."""
    while not met.wait(0.2):
        if parent_has_ended():
            time.sleep(ENDING)
            which = f"local rank {os.environ.get('LOCAL_RANK', '')} of {processes.local}"
            say(f"fullrank: local rank 0, which started {which}, has ended; {which} ends with it", sys.stderr)
            os._exit(1)
