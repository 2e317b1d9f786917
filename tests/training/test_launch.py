"""The launcher's variables decide how many processes a run has, not the devices that are seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli.helpers import WIDTHS, records
from fullrank.errors import UsageError
from fullrank.training import launch
from fullrank.training.config import TrainConfig
from fullrank.training.launch import Processes, launched_processes

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


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*TORCHRUN, *SLURM]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, None),
        (TORCHRUN, Processes(4, 2, "torchrun", 1, 1)),
        (SLURM, Processes(8, 4, "SLURM", 5, 1)),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, None),  # a shell on a node: nothing was started
        ({"WORLD_SIZE": "4"}, None),
    ],
    ids=["none", "torchrun", "slurm", "slurm shell", "a stray variable"],
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
        (SLURM | {"SLURM_PROCID": "8"}, "SLURM_PROCID is 8 in the environment, and 8 processes"),
        (SLURM | {"SLURM_LOCALID": "4"}, "SLURM_LOCALID is 4 in the environment, and 4 processes"),
        (SLURM | {"SLURM_NNODES": "0"}, "SLURM_NNODES is '0'"),
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
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    words = ["train", "simsiam", *small, *WIDTHS, "--epochs", "1", "--out", str(run), "--quiet"]
    subprocess.run([*launcher, "-m", "fullrank", *words], env=environment, check=True, timeout=300)
    words = ["resume", str(run), "--epochs", "2", "--quiet"]
    subprocess.run([*launcher, "-m", "fullrank", *words], env=environment, check=True, timeout=300)
    steps = [record["step"] for record in records(run) if record["event"] == "step"]
    assert steps == list(range(1, 13))
