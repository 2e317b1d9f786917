"""A directory that is lost while a run writes into it, or a disk that is full, ends the run in a line."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.errors import DiskFullError, LostFolderError, UnwritableError
from fullrank.training import run_dir
from fullrank.training.config import TrainConfig
from fullrank.training.records import RunRecord
from fullrank.training.run import resume
from fullrank.training.run_dir import RunDir
from training.test_loop import run

ALONE: Any = SimpleNamespace(is_global_zero=True, broadcast=lambda value: value)  # in place of Fabric
WRITERS: dict[str, Callable[[RunDir], object]] = {
    "records": lambda run: run.append({"event": "step"}),
    "spectra": lambda run: run.write_spectra(1, {"backbone": np.ones(3)}),
    "encoder": lambda run: run.save_encoder({"weight": torch.ones(3)}, {}),
    "checkpoint": lambda run: run.checkpoints.write({"step": 1}),
    "configuration": lambda run: run.write_config(TrainConfig()),
}


def _replaced(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _of_another_run(path: Path) -> None:
    shutil.copytree(path, path.with_name("copy"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)


def _by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "moved": lambda path: path.rename(path.with_name("elsewhere")),
    "replaced by an empty one": _replaced,
    "replaced by another run": _of_another_run,
    "replaced by a file": _by_a_file,
    "half removed": lambda path: (path / "config.yaml").unlink(),
}


def tree(path: Path) -> dict[str, bytes]:
    """All files beneath a folder, but for locks."""
    files = (each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_written_where_a_directory_was_that_is_lost(
    tmp_path: Path, loss: str, writer: str
) -> None:
    run = RunDir.create(tmp_path / "run", TrainConfig())
    line = r"run was removed, moved or replaced while it was trained, .*`fullrank resume` goes on there$"
    with run.written_alone(ALONE):
        LOSSES[loss](run.path)
        left = tree(tmp_path)
        with pytest.raises(LostFolderError, match=line) as error:
            WRITERS[writer](run)
    assert error.value.exit_code == 1
    assert tree(tmp_path) == left
    assert loss not in ("removed", "moved") or not run.path.exists()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_error_of_the_system_on_the_way_says_that_the_directory_is_lost(tmp_path: Path, loss: str) -> None:
    def fail(run: RunDir) -> None:
        LOSSES[loss](run.path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "tensorboard")

    run = RunDir.create(tmp_path / "run", TrainConfig())
    with pytest.raises(LostFolderError, match="was removed, moved or replaced"), run.written_alone(ALONE):
        fail(run)


def test_an_error_of_the_system_elsewhere_stays_what_it_is(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", TrainConfig())
    with pytest.raises(FileNotFoundError, match=r"photo\.jpg"), run.written_alone(ALONE):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "photo.jpg")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("file", ["some/file", None])
def test_a_disk_that_is_full_amid_a_run_is_a_line_with_what_goes_on(
    tmp_path: Path, file: str | None, number: int
) -> None:
    run = RunDir.create(tmp_path / "run", TrainConfig())
    line = rf"{file or 'run'}: .*; with some space free, `fullrank resume .*run` goes on$"
    with pytest.raises(DiskFullError, match=line) as error, run.written_alone(ALONE):
        raise OSError(number, os.strerror(number), *([file] if file else []))
    assert error.value.exit_code == 1


@pytest.mark.parametrize("name", [".lock", ".owner.json"])
def test_a_folder_in_the_way_of_a_lock_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    run = RunDir.create(tmp_path / "run", TrainConfig())
    (run.path / name).mkdir()
    with pytest.raises(UnwritableError, match=rf"run/{name}: Is a directory; move it away$") as error:
        run.written_alone(ALONE).__enter__()
    assert error.value.exit_code == 2


def test_a_disk_that_is_full_before_a_run_begins_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr(run_dir, "write_atomically", full)
    with pytest.raises(UnwritableError, match=r"run cannot be written: .*; free some space$"):
        RunDir.create(tmp_path / "run", TrainConfig())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_moved_while_it_was_trained_goes_on_where_it_lies(tmp_path: Path) -> None:
    def lose(record: RunRecord) -> None:
        if record.event == "step" and record.step == 2:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(LostFolderError):
        run(tmp_path / "run", [lose], epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert resume(tmp_path / "elsewhere").reason == "finished"
