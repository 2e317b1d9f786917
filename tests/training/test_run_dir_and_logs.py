"""The run directory survives being cut short, and further logs get the numbers of a record."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fullrank.atomic import write_atomically
from fullrank.errors import UsageError
from fullrank.training.checkpoint_files import DamagedCheckpointError
from fullrank.training.config import TrainConfig
from fullrank.training.logs import flatten, open_log
from fullrank.training.record_files import truncate_records
from fullrank.training.records import EndRecord, EpochRecord, StartRecord
from fullrank.training.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", TrainConfig(epochs=3, betas=(0.8, 0.9)))


def test_a_write_that_fails_leaves_the_old_file_and_the_last_checkpoint(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.path / "file"
    write_atomically(path, b"old")
    run.checkpoints.write({"step": 1})

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new and longer")
    with pytest.raises(OSError, match="disk full"):
        run.checkpoints.write({"step": 2})
    assert path.read_bytes() == b"old"
    found = run.checkpoints.newest()
    assert found is not None and found.state == {"step": 1}


def test_a_write_replaces_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / f".file.{socket.gethostname()}.{2**22 + 1}-7.partial"  # no process has this number
    left.write_bytes(b"a long piece of a file that was never finished")
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_that_carries_code_is_not_executed(run: RunDir) -> None:
    assert run.checkpoints.newest() is None  # before the first
    torch.save({"surprise": Path("x")}, run.checkpoints.path("last"))  # an object, as an attacker's would be
    with pytest.raises(DamagedCheckpointError, match="is damaged, and no checkpoint"):
        run.checkpoints.newest()


def test_truncating_drops_exactly_what_came_after_and_no_broken_line_is_written(run: RunDir) -> None:
    run.append({"step": 1})
    size = run.metrics_size()
    run.append({"step": 2})
    truncate_records(run.metrics_path, size)
    run.append({"step": 3})
    with pytest.raises(ValueError, match="JSON"):
        run.append({"loss": float("nan")})
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1, 3]


def test_the_configuration_comes_back_as_it_was_beside_the_versions(run: RunDir) -> None:
    assert RunDir.open(run.path).config().as_dict() == TrainConfig(epochs=3, betas=(0.8, 0.9)).as_dict()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_an_empty_folder_may_be_taken_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no config\.yaml"):
        RunDir.open(tmp_path)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        RunDir.create(tmp_path, TrainConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "note.txt").unlink()
    assert RunDir.create(tmp_path, TrainConfig()).config().epochs == TrainConfig().epochs


def test_spectra_come_back_as_arrays(run: RunDir) -> None:
    run.write_spectra(7, {"projector.centred": np.arange(3.0)})
    with np.load(run.path / "spectra/epoch_0007.npz") as file:
        assert file["projector.centred"].tolist() == [0.0, 1.0, 2.0]
    assert [path.name for path in (run.path / "spectra").iterdir()] == ["epoch_0007.npz"]


def test_the_encoders_header_is_readable_by_anybodys_safetensors(run: RunDir) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    run.save_encoder({"conv.weight": weight}, {"backbone": "resnet18", "mean": [0.1, 0.2, 0.3], "step": 5})
    with safe_open(run.path / "encoder.safetensors", framework="pt") as file:
        header = file.metadata()
        assert torch.equal(file.get_tensor("conv.weight"), weight)
    assert header["format"] == "fullrank-encoder"
    assert header["backbone"] == "resnet18"
    assert json.loads(header["mean"]) == [0.1, 0.2, 0.3]
    assert json.loads(header["step"]) == 5


RECORD = {
    "event": "epoch", "epoch": 2, "step": 40, "loss": -0.75, "flag": True, "knn": {"top1": 0.5},
    "panels": {"projector": {"measures": {"erank": {"value": 9.0, "null": 12.0}}}}, "verdict": {"kind": "x"},
}  # fmt: skip


def test_flattening_keeps_numbers_under_their_path_and_a_measures_null_beside_it() -> None:
    assert flatten(RECORD) == {
        "loss": -0.75, "knn/top1": 0.5, "panels/projector/erank": 9.0, "panels/projector/erank/null": 12.0,
    }  # fmt: skip


def test_tensorboard_gets_every_number_at_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = open_log("tensorboard", tmp_path)
    log(StartRecord())
    log(EpochRecord.from_dict(RECORD))
    log(EndRecord(step=40))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(flatten(RECORD))
    (scalar,) = events.Scalars("loss")
    assert (scalar.step, scalar.value) == (40, -0.75)


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_logger_that_is_not_installed_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)  # importing it fails from now on
    with pytest.raises(UsageError, match=rf"pip install 'fullrank\[{kind}\]'"):
        open_log(kind, tmp_path)
