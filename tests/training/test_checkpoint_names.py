"""Checkpoint files: their order, names that are free, what is said of damage, and copies."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.errors import NotFiniteError
from fullrank.training import checkpoint_files
from fullrank.training.checkpoint_files import CheckpointFiles, DamagedCheckpointError


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    found = CheckpointFiles(tmp_path)
    for step in range(3):
        found.write({"step": step})
    return found


def steps(files: CheckpointFiles, first: str = "last") -> list[int]:
    return [found.state["step"] for found in files.every(first)]


@pytest.mark.parametrize(("name", "number"), [
    ("last.pt", 0), ("last-1.pt", 1), ("last-12.pt", 12), ("last-0.pt", -1), ("last-01.pt", -1),
    ("last-.pt", -1), ("last-a.pt", -1), ("lastly.pt", -1), ("healthy.pt", -1), ("last.pt.part", -1),
])  # fmt: skip
def test_a_name_tells_how_many_checkpoints_are_newer(name: str, number: int) -> None:
    assert checkpoint_files._number(Path("run") / name) == number


def test_all_are_read_from_the_newest_on_or_from_a_named_one(files: CheckpointFiles) -> None:
    assert steps(files) == [2, 1, 0]
    assert steps(files, "last-1") == [1, 2, 0]
    files.keep_healthy()
    assert steps(files, "healthy") == [2, 2, 1, 0]
    assert [found.path.name for found in files.every()][-1] == "healthy.pt"
    files.path("last-1").write_bytes(b"damaged")
    (files.folder / "last-x.pt").write_bytes(b"no checkpoint")
    assert steps(files) == [2, 0, 2]


def test_ten_and_more_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    for step in range(12):
        files.write({"step": step}, keep=12)
    assert steps(files) == list(range(11, -1, -1))


def test_no_file_at_all_is_no_checkpoint_and_no_error(tmp_path: Path) -> None:
    assert CheckpointFiles(tmp_path).newest() is None
    with pytest.raises(DamagedCheckpointError, match=r"last.pt is no file$"):
        CheckpointFiles(tmp_path).load("last")


def _saved(content: Any) -> bytes:
    written = io.BytesIO()
    torch.save(content, written)
    return written.getvalue()


@pytest.mark.parametrize(("content", "says"), [
    (b"", "is empty"), (b"PK", "is damaged, and no checkpoint"),
    (_saved([1]), "is damaged: it holds no mapping"),
    (_saved({"shards": {"folder": "other", "files": {}}}), "is damaged in what it names: 'other' is no"),
    (_saved({"shards": 3}), "is damaged in what it names"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(files: CheckpointFiles, content: bytes, says: str) -> None:
    (files.folder / checkpoint_files.DIGESTS).unlink()
    files.path("last").write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=rf"last.pt {says}"):
        files.load("last")
    found = files.newest()
    assert found is not None
    assert (found.state, found.path.name, len(found.passed_over)) == ({"step": 1}, "last-1.pt", 1)


def test_another_file_than_was_written_is_damaged_although_it_can_be_read(files: CheckpointFiles) -> None:
    files.path("last").write_bytes(_saved({"step": 9}))
    with pytest.raises(DamagedCheckpointError, match="its SHA-256 is not that of what was written"):
        files.load("last")


def test_files_that_are_set_aside_have_names_of_their_own(files: CheckpointFiles) -> None:
    for name in ("damaged-last.pt", "damaged-last-1.pt", "damaged-last-1.pt-1.pt"):
        (files.folder / name).write_bytes(b"before")
    (files.folder / "damaged-last-1-1.pt").symlink_to("nowhere")
    files.keep_healthy()
    files.promote(files.path("last-2"))
    aside = {path.name for path in files.folder.glob("damaged*")} - {"damaged-last-1.pt-1.pt"}
    assert aside == {
        "damaged-last.pt", "damaged-last-1.pt", "damaged-last-1-1.pt", "damaged-last-1-2.pt",
        *(path.name for path in files.folder.glob("damaged-last-[!1]*")),
    }  # fmt: skip
    assert files.load("last").state == {"step": 0}
    assert files.path("healthy").is_file()


def test_a_copy_that_is_not_what_was_written_is_not_kept(files: CheckpointFiles) -> None:
    files.path("last").write_bytes(_saved({"step": 9}))
    with pytest.raises(OSError, match="it changed since it was written") as caught:
        files.keep_healthy()
    assert caught.value.errno == errno.EIO
    assert not files.path("healthy").exists()


def test_without_a_list_of_digests_a_copy_is_held_against_the_file(files: CheckpointFiles) -> None:
    (files.folder / checkpoint_files.DIGESTS).unlink()
    files.keep("chosen")
    assert files.load("chosen").state == {"step": 2}


@pytest.mark.parametrize("extra", [0, 1])
def test_a_list_of_digests_beyond_its_size_is_not_read(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    size = (files.folder / checkpoint_files.DIGESTS).stat().st_size
    monkeypatch.setattr(checkpoint_files, "LARGEST_LIST", size - extra)
    assert len(files._digests()) == (0 if extra else 3)


def test_bounds_of_the_list_are_what_they_were(files: CheckpointFiles) -> None:
    assert checkpoint_files.LARGEST_LIST == 1_048_576
    assert checkpoint_files.DIGESTS == "digests.json"
    assert checkpoint_files.FICLONE == 1_074_041_865
    assert checkpoint_files.WEIGHTS == ("method", "optimizer", "probe")


def test_a_digest_that_is_remembered_again_is_the_last_of_the_list_once(files: CheckpointFiles) -> None:
    first, second, third = files._digests()
    files._remember(first)
    assert json.loads((files.folder / checkpoint_files.DIGESTS).read_text()) == [second, third, first]


def test_a_list_of_another_kind_is_none(files: CheckpointFiles) -> None:
    (files.folder / checkpoint_files.DIGESTS).write_text('{"a": 1}')
    assert files._digests() == []


@pytest.mark.parametrize("part", ["method", "optimizer", "probe"])
def test_the_number_that_is_not_finite_is_named_with_its_path(files: CheckpointFiles, part: str) -> None:
    bad = {part: {"state": [{"buffer": torch.ones(2)}, {"buffer": torch.tensor([1.0, float("nan")])}]}}
    with pytest.raises(NotFiniteError, match=rf"^{part}\.state\.1\.buffer is not finite: no checkpoint"):
        files.write(bad)
    with pytest.raises(NotFiniteError, match=rf"^{part}\.0 is not finite"):
        files.write({part: (torch.tensor(float("inf")),)})
    files.write({"monitor": torch.tensor(float("nan")), "step": 5})
    assert steps(files)[0] == 5


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("clones", [True, False])
def test_checkpoints_move_back_whatever_the_file_system_can(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch, links: bool, clones: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    if not clones:
        monkeypatch.setattr(checkpoint_files, "fcntl", None)
    files.write({"step": 3})
    files.keep_healthy()
    assert steps(files) == [3, 2, 1, 3]


def test_one_that_is_kept_alone_has_no_past(files: CheckpointFiles) -> None:
    files.write({"step": 3}, keep=1)
    assert steps(files) == [3]
    files.write({"step": 4}, keep=1)
    assert {path.name for path in files.folder.glob("*.pt")} == {"last.pt"}


def test_a_place_that_is_free_is_filled_first(files: CheckpointFiles) -> None:
    files.path("last-1").unlink()
    files.write({"step": 3}, keep=4)
    assert [(found.path.stem, found.state["step"]) for found in files.every()] == [
        ("last", 3), ("last-1", 2), ("last-2", 0),
    ]  # fmt: skip


def test_a_full_disk_is_told_by_its_number_and_the_path(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write({"step": 3})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(files.path("last")))


def test_a_disk_that_gives_back_something_else_is_told_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="the disk does not give back what was written") as caught:
        checkpoint_files._read_back(tmp_path / "file", "0" * 64)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "file"))
