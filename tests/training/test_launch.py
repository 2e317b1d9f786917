"""The launcher's variables decide how many processes a run has, not the devices that are seen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cli.helpers import WIDTHS, Called, call, records
from fullrank import launchers
from fullrank.cli import COMMANDS, SHARED
from fullrank.errors import UsageError
from fullrank.launchers import (
    IMPORTED,
    UNNAMED,
    VARIABLES,
    Processes,
    launched_processes,
    saying_that_it_waits,
)
from fullrank.terminal import speaks
from fullrank.training import launch
from fullrank.training.config import TrainConfig
from fullrank.training.orphans import PARENT

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
}
SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "8", "SLURM_NNODES": "2",
    "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_ID": "0",
}  # fmt: skip
BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip


def without(variables: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key != name}


MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*TORCHRUN, *SLURM, *VARIABLES, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, None),
        (TORCHRUN, Processes(4, 2, "torchrun", 1, 1)),
        (SLURM, Processes(8, 4, "SLURM", 5, 1)),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, None),  # a shell on a node: nothing was started
        (SLURM | {"SLURM_PTY_PORT": "4000", "SLURM_PROCID": "0"}, None),
        (SLURM | {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0"}, None),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, Processes(8, 4, "SLURM", 5, 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "1"}, None),
        (BATCH, None),
        ({"WORLD_SIZE": "4"}, None),
        ({"RANK": "0"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"LOCAL_RANK": "1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Processes(4, 1, UNNAMED, 2, 0)),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}, Processes(4, 4, UNNAMED, 2, 2)),
        (BATCH | {"RANK": "2", "WORLD_SIZE": "4"}, Processes(4, 1, UNNAMED, 2, 0)),
        (OPEN_MPI, Processes(4, 2, "mpirun", 3, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, Processes(2, 2, "mpirun", 1, 1)),
        (BATCH | {"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        (SLURM | OPEN_MPI, Processes(8, 4, "SLURM", 5, 1)),
        (SLURM | TORCHRUN, Processes(4, 2, "torchrun", 1, 1)),
    ],
)
def test_processes_are_counted_as_the_launcher_tells(
    variables: dict[str, str], processes: Processes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == processes


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (TORCHRUN | {"RANK": "4"}, "RANK is 4 in the environment, and 4 processes are said to run: it must"),
        (TORCHRUN | {"LOCAL_RANK": "2"}, "LOCAL_RANK is 2 in .* 2 processes are said to run on this machine"),
        (TORCHRUN | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, "RANK is 1 .* 1 process is said to run"),
        (
            TORCHRUN | {"LOCAL_WORLD_SIZE": "8"},
            "LOCAL_WORLD_SIZE is 8 in .* more than WORLD_SIZE 4",
        ),
        (
            TORCHRUN | {"WORLD_SIZE": "0"},
            "WORLD_SIZE is '0' in .* must be a whole number from 1",
        ),
        (TORCHRUN | {"RANK": "-1"}, "RANK is '-1' in the environment, and must be a whole number from 0"),
        (TORCHRUN | {"RANK": "9" * 5000}, "RANK is '9999999999' in the environment"),
        *(
            ({name: value}, f"{name} is {value!r} in the environment")
            for name in IMPORTED
            for value in ("", "x")
        ),
        (SLURM | {"SLURM_PROCID": "8"}, "SLURM_PROCID is 8 in the environment, and 8 processes"),
        (SLURM | {"SLURM_LOCALID": "4"}, "SLURM_LOCALID is 4 in the environment, and 4 processes"),
        (SLURM | {"SLURM_NNODES": "0"}, "SLURM_NNODES is '0'"),
        ({"RANK": "1"}, "RANK is 1 in the environment, and WORLD_SIZE is missing"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2 .* MASTER_ADDR and MASTER_PORT are missing"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "and MASTER_PORT is missing"),
        ({**TORCHRUN, "MASTER_PORT": "29500"}, "and MASTER_ADDR is missing"),
        (TORCHRUN | MEETING | {"MASTER_PORT": "0"}, "MASTER_PORT is 0 .* torchrun --standalone finds a free"),
        (TORCHRUN | MEETING | {"MASTER_PORT": "65536"}, "MASTER_PORT is 65536 .* a port from 1 to 65535"),
        (TORCHRUN | MEETING | {"MASTER_PORT": "http"}, "MASTER_PORT is 'http' in the environment"),
        (without(TORCHRUN, "RANK"), "RANK is missing in the environment, and 4 processes are said to run"),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID is missing in the environment, and 8 processes"),
        (without(SLURM, "SLURM_LOCALID"), "SLURM_LOCALID is missing .* 4 processes .* on this machine"),
        (TORCHRUN | {"WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE is 2 .* does not divide WORLD_SIZE 5"),
        (OPEN_MPI, "mpirun has started 4 processes, which do not know where to meet"),
        (BATCH, "this job has 4 tasks, and a batch script is one of none: start the command with srun"),
    ],
)
def test_a_rank_that_cannot_be_is_refused_before_others_are_waited_for(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=says) as refused:
        launch.launch_fabric(TrainConfig(accelerator="cpu"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "local_rank", "node"),
    [
        ({"RANK": "2", "WORLD_SIZE": "4"}, 0, 0),  # alone on its machine, and without GROUP_RANK
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}, 2, 0),
        (TORCHRUN, 1, 0),
        (without(SLURM, "SLURM_NODEID"), int(SLURM["SLURM_LOCALID"]), int(SLURM["SLURM_PROCID"]) // 4),
        (SLURM | {"SLURM_NODEID": "1"}, int(SLURM["SLURM_LOCALID"]), 1),
    ],
)
def test_a_place_that_the_launcher_does_not_name_follows_from_what_it_names(
    variables: dict[str, str], local_rank: int, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_NODEID", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = launched_processes()
    assert before is not None
    environment = launch.cluster_environment(before)
    assert (environment.local_rank(), environment.node_rank()) == (local_rank, node)
    assert launched_processes() == before


@pytest.mark.parametrize(
    ("variables", "settings", "says"),
    [
        ({}, {"num_nodes": 2}, "of which MASTER_ADDR is missing"),
        ({"MASTER_ADDR": "10.0.0.1", "NODE_RANK": "0"}, {"num_nodes": 2}, "of which MASTER_PORT is missing"),
        (MEETING, {"num_nodes": 2}, "of which NODE_RANK is missing"),
        (MEETING | {"NODE_RANK": "2"}, {"num_nodes": 2}, "NODE_RANK is 2 .* a whole number below 2"),
        (MEETING | {"LOCAL_RANK": "2"}, {"devices": 2}, "LOCAL_RANK is 2 .* a whole number below 2"),
        ({"LOCAL_RANK": "first"}, {"devices": 2}, "LOCAL_RANK is 'first' in the environment"),
        (
            {"LOCAL_RANK": "1"},
            {"devices": 2},
            "LOCAL_RANK is in .* started already, and MASTER_PORT",
        ),
    ],
)
def test_what_is_half_set_beside_devices_and_machines_is_refused(
    variables: dict[str, str], settings: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=says) as refused:
        launch.launch_fabric(TrainConfig(accelerator="cpu", **settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tasks", ["1", "4"])
@pytest.mark.parametrize("name", ["interactive", "bash", "a name of one's own"])
def test_a_shell_of_salloc_is_one_process_whatever_its_job_is_called(
    name: str, tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in (
        without(BATCH, "SLURM_PROCID") | {"SLURM_NTASKS": tasks, "SLURM_JOB_NAME": name}
    ).items():
        monkeypatch.setenv(key, value)
    assert launched_processes() is None
    launchers.check_srun()


@pytest.mark.parametrize("step", range(4))
def test_steps_of_one_job_meet_at_ports_of_their_own(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (SLURM | {"SLURM_JOB_ID": "1239999", "SLURM_STEP_ID": str(step)}).items():
        monkeypatch.setenv(key, value)
    port = launch.SrunEnvironment().main_port
    monkeypatch.delenv("MASTER_PORT")
    monkeypatch.setenv("SLURM_STEP_ID", str(step + 1))
    assert port != launch.SrunEnvironment().main_port
    assert 1023 < port < 32_768  # below those that a system gives out by itself


def test_processes_of_one_machine_meet_on_it_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.9.8.7")
    assert launch.cluster_environment(Processes(2, 2, "fullrank")).main_address == "127.0.0.1"
    assert launch.cluster_environment(Processes(4, 2, "fullrank")).main_address == "10.9.8.7"


def test_a_process_that_was_started_ends_where_the_first_is_gone_before_all_have_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(launch, "ENDING", 0)
    monkeypatch.setattr(launch, "met", threading.Event())
    monkeypatch.setenv(PARENT, str(os.getpid()))  # which is not its parent
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ended:
        launch._observe_first(Processes(2, 2, "fullrank"))
    line = (
        "fullrank: local rank 0, which started local rank 1 of 2, has ended; local rank 1 of 2 ends with it"
    )
    assert (ended.value.code, capsys.readouterr().err) == (1, f"{line}\n")


@pytest.mark.parametrize("variables", [SLURM, SLURM | {"SLURM_NTASKS_PER_NODE": "2"}])
def test_tasks_of_srun_count_whichever_option_their_number_came_from(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = launch.cluster_environment(Processes(8, 4, "SLURM", 5, 1))
    found.validate_settings(num_devices=4, num_nodes=2)
    assert (found.world_size(), found.global_rank(), found.local_rank()) == (8, 5, 1)


@pytest.mark.parametrize("variables", [TORCHRUN | MEETING, SLURM, OPEN_MPI])
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - set(SHARED)))
def test_what_one_process_does_the_others_of_a_launcher_leave_to_the_first(
    command: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call(command) == Called(0, "", "")


@pytest.mark.parametrize("command", ["list", "report"])
def test_who_has_a_rank_of_no_known_launcher_hears_that_the_first_does_it(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = f"note    {command} is done by rank 0, and RANK is 1 in the environment: unset it to do it here\n"
    assert call(command, "run") == Called(0, "", said)


@pytest.mark.parametrize("command", SHARED)
def test_a_job_is_submitted_by_the_first_process_alone(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | MEETING).items():
        monkeypatch.setenv(name, value)
    assert call(command, "x", "--slurm") == Called(0, "", "")


@pytest.mark.parametrize("command", ["compare", "demo", "report"])
def test_the_first_process_says_that_the_others_are_not_needed_and_forgets_them(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (TORCHRUN | MEETING | {"RANK": "0", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    done = call(command, "no-such-run", "--no-such-option")
    said = f"note    {command} is done by one process: the others that torchrun has started are not needed\n"
    assert done.code == 2 and done.err.startswith(said)
    assert launched_processes() is None and speaks()


@pytest.mark.parametrize("words", [("audit", "rows.npy"), ("evaluate", "knn", "rows.npy")])
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT are missing"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "0"}, "mpirun has started 4 processes"),
    ],
)
def test_processes_that_cannot_meet_are_refused_before_they_measure(
    words: Sequence[str],
    variables: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.ones((8, 2), np.float32))
    done = call(*words)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1


def test_who_waits_for_others_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launchers, "WAITING", 0.01)
    with saying_that_it_waits(Processes(2, 2, "torchrun"), "30 minutes"):
        time.sleep(0.3)
    line = "rank 0 waits for the other processes: WORLD_SIZE is 2, as torchrun has it; for 30 minutes at most"
    assert capsys.readouterr().err == f"fullrank: {line}\n"


@pytest.mark.parametrize(
    ("seen", "local", "indices"), [(1, 4, [0, 0, 0, 0]), (2, 2, [0, 1]), (8, 2, [0, 1]), (4, 4, [0, 1, 2, 3])]
)
def test_each_process_gets_a_device_of_its_own(
    seen: int, local: int, indices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    devices = launch._devices(Processes(local, local, "torchrun"), gpu=True)
    assert devices == [torch.device("cuda", index) for index in indices]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="SLURM started 4 processes on this machine, which has 2 GPUs"):
        launch._devices(Processes(8, 4, "SLURM"), gpu=True)


@pytest.mark.slow
def test_torchrun_is_one_training_of_two_processes_and_goes_on_as_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ("--limit", "96", "--backbone", "resnet8-w16", "--batch-size", "16", "--level-every", "1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["train", "simsiam", *small, *WIDTHS, "--epochs", "1", "--out", str(run), "--quiet"]
    subprocess.run([*launcher, "-m", "fullrank", *words], env=environment, check=True, timeout=300)
    words = ["resume", str(run), "--epochs", "2", "--quiet"]
    subprocess.run([*launcher, "-m", "fullrank", *words], env=environment, check=True, timeout=300)
    steps = [record["step"] for record in records(run) if record["event"] == "step"]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(("rank", "prints"), [(0, True), (1, False)])
def test_of_machines_without_a_launcher_the_first_process_prints_once_they_have_met(
    rank: int, prints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank)
    monkeypatch.setitem(sys.modules, "torch.distributed", met)
    assert speaks() is prints
