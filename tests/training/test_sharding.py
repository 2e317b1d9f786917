"""Networks whose parts lie in two processes (FSDP2) learn as those that each has whole."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.helpers import records
from fullrank.errors import UsageError
from fullrank.training.checkpoint_files import CheckpointFiles, DamagedCheckpointError
from fullrank.training.config import TrainConfig
from fullrank.training.run import resume
from fullrank.training.sharding import check_sharding
from processes import printed_together
from training.shard_worker import STEPPED

pytestmark = pytest.mark.acceptance

WORKER = Path(__file__).parent / "shard_worker.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps and runs of two processes."""
    folder = tmp_path_factory.mktemp("shards")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    printed_together(WORKER, [[str(rank), "2", port, str(folder)] for rank in range(2)])
    return folder


@pytest.mark.parametrize("name", STEPPED)
def test_four_steps_in_double_precision_end_in_the_same_weights(made: Path, name: str) -> None:
    both = torch.load(made / "steps.pt", weights_only=True)[name]
    torch.testing.assert_close(both["fsdp"], both["ddp"], rtol=1e-6, atol=1e-9)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in records(run) if record["event"] in ("step", "epoch")][1:]


@pytest.mark.parametrize("run", ["ddp-fsdp", "fsdp-ddp", "fsdp-fsdp"])
def test_a_run_goes_on_sharded_or_not_as_it_would_have(made: Path, run: str) -> None:
    assert losses(made / run) == pytest.approx(losses(made / "ddp-ddp"), rel=1e-5)
    one, other = (load_file(made / name / "encoder.safetensors") for name in (run, "ddp-ddp"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_sharded_run_goes_on_in_one_process(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made / "fsdp", tmp_path / "run")
    resume(run, changes={"epochs": 2, "devices": 1})
    assert losses(run) == pytest.approx(losses(made / "ddp-ddp"), rel=1e-4)


def checkpoint(run: Path) -> dict[str, Any]:
    return CheckpointFiles(run / "checkpoints").load("last").state


def test_one_process_reads_a_sharded_checkpoint_whole(made: Path) -> None:
    sharded, plain = checkpoint(made / "fsdp-fsdp"), checkpoint(made / "ddp-ddp")
    shapes = [{key: value.shape for key, value in state["method"].items()} for state in (sharded, plain)]
    assert shapes[0] == shapes[1]
    assert sharded["optimizer"]["state"].keys() == plain["optimizer"]["state"].keys()
    torch.testing.assert_close(
        sharded["optimizer"]["state"], plain["optimizer"]["state"], rtol=1e-3, atol=1e-6
    )


def test_each_process_wrote_about_half_of_it(made: Path) -> None:
    folder = next((made / "fsdp" / "checkpoints").glob("shards-*"))
    sizes = [path.stat().st_size for path in sorted(folder.iterdir())]
    assert len(sizes) == 2
    assert 0.4 < sizes[0] / sum(sizes) < 0.6


def test_folders_of_shards_that_no_checkpoint_names_are_gone(made: Path) -> None:
    folder = made / "fsdp-fsdp" / "checkpoints"
    named = {torch.load(path, weights_only=True)["shards"]["folder"] for path in folder.glob("*.pt")}
    there = {path.name for path in folder.glob("shards-*")}
    assert named <= there
    assert len(there) <= len(list(folder.glob("*.pt"))) + 1  # healthy.pt may have just left one


@pytest.mark.parametrize("damage", ["flipped", "cut", "lost", "added"])
def test_damaged_shards_are_passed_over_and_named(made: Path, tmp_path: Path, damage: str) -> None:
    run = shutil.copytree(made / "fsdp-fsdp", tmp_path / "run")
    files = CheckpointFiles(run / "checkpoints")
    named = torch.load(files.path("last"), weights_only=True)["shards"]["folder"]
    file = sorted((run / "checkpoints" / named).iterdir())[0]
    content = bytearray(file.read_bytes())
    match damage:
        case "flipped":
            content[-1] ^= 1
            file.write_bytes(content)
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "lost":
            file.unlink()
        case "added":
            (file.parent / "more.safetensors").write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"last\.pt is damaged in what it names"):
        files.load("last")
    found = files.newest()
    assert found is not None
    assert found.path.name != "last.pt"
    assert named in found.passed_over[0]


@pytest.mark.parametrize("folder", ["../elsewhere", "/tmp", "shards-1/../.."])
def test_a_checkpoint_that_names_another_place_is_refused(tmp_path: Path, folder: str) -> None:
    files = CheckpointFiles(tmp_path)
    files.write({"step": 1, "shards": {"folder": folder, "files": {}}})
    with pytest.raises(DamagedCheckpointError, match="is no folder of shards"):
        files.load("last")


@pytest.mark.parametrize(
    "settings",
    [{"precision": "fp16"}, {"compile": "default"}, {"sync_bn": "none"}, {"thaw_epochs": 1}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_does_not_go_sharded_says_so(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--strategy fsdp does not go with --"):
        check_sharding(TrainConfig(strategy="fsdp", **settings))
