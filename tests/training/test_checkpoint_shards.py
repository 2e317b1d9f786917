"""Sharded checkpoints: parts lie beside the checkpoint that names them, and nothing else is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from fullrank.errors import NotFiniteError
from fullrank.training.checkpoint_shards import remove_unused, with_shards, write_shards


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    """A group of this process alone."""
    folder = tmp_path_factory.mktemp("group")
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    yield DeviceMesh("cpu", [0])
    dist.destroy_process_group()


def sharded(mesh: DeviceMesh, value: float = 1.0) -> torch.Tensor:
    return distribute_tensor(torch.full((4, 2), value), mesh, [Shard(0)])


def state(mesh: DeviceMesh) -> dict[str, Any]:
    return {
        "method": {"backbone.weight": sharded(mesh, 3.0), "bias": torch.ones(2)},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0), "momentum": sharded(mesh, 7.0)}}, "lr": 0.1},
    }


def test_what_was_written_is_read_back_whole(mesh: DeviceMesh, tmp_path: Path) -> None:
    written = write_shards(tmp_path, state(mesh), 42)
    assert written["shards"]["folder"].startswith("shards-00000042-")
    assert len(written["shards"]["folder"]) == len("shards-00000042-") + 8
    assert written["method"].keys() == {"bias"}
    assert written["optimizer"]["state"][0].keys() == {"step"}
    assert written["optimizer"]["lr"] == 0.1
    found = with_shards(written, tmp_path)
    assert "shards" not in found
    assert found["method"]["backbone.weight"].tolist() == [[3.0, 3.0]] * 4
    assert found["method"]["bias"].tolist() == [1.0, 1.0]
    assert found["optimizer"]["state"][0]["momentum"].tolist() == [[7.0, 7.0]] * 4
    assert found["optimizer"]["state"].keys() == {0}
    assert type(found["method"]["backbone.weight"]) is torch.Tensor


def test_two_of_one_step_lie_in_folders_of_their_own(mesh: DeviceMesh, tmp_path: Path) -> None:
    folders = {write_shards(tmp_path, state(mesh), 1)["shards"]["folder"] for _ in range(2)}
    assert len(folders) == 2
    assert {path.name for path in tmp_path.iterdir()} == folders


def test_what_is_not_finite_is_named_and_not_written(mesh: DeviceMesh, tmp_path: Path) -> None:
    bad = {"method": {"head": sharded(mesh, float("inf")), "body": sharded(mesh)}}
    with pytest.raises(NotFiniteError, match=r"^method\.head is not finite: no checkpoint of it is written$"):
        write_shards(tmp_path, bad, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_parts_stays_as_it_is(tmp_path: Path) -> None:
    plain = {"method": {"weight": torch.ones(2)}}
    assert with_shards(plain, tmp_path) is plain


@pytest.mark.parametrize("change", ["missing", "damaged", "another", "elsewhere"])
def test_parts_that_are_not_what_was_written_are_refused(
    mesh: DeviceMesh, tmp_path: Path, change: str
) -> None:
    written = write_shards(tmp_path, state(mesh), 1)
    folder = tmp_path / written["shards"]["folder"]
    file = folder / next(iter(written["shards"]["files"]))
    says = {"missing": "is not there", "damaged": "its SHA-256 is not that of what was written",
            "another": "holds zz, which no process wrote",
            "elsewhere": "is not there"}[change]  # fmt: skip
    if change == "missing":
        file.unlink()
    elif change == "damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    elif change == "another":
        (folder / "zz").write_bytes(b"")
    else:
        (tmp_path / "outside").write_bytes(b"")
        written["shards"]["files"]["../outside"] = ""
    with pytest.raises(ValueError, match=says):
        with_shards(written, tmp_path)


@pytest.mark.parametrize("name", ["other-1", "shards-1/..", "shards-/../x", "shards-link"])
def test_a_folder_that_is_none_of_parts_is_not_opened(mesh: DeviceMesh, tmp_path: Path, name: str) -> None:
    written = write_shards(tmp_path, state(mesh), 1)
    (tmp_path / "shards-link").symlink_to(tmp_path / written["shards"]["folder"])
    written["shards"]["folder"] = name
    with pytest.raises(ValueError, match="is no folder of shards"):
        with_shards(written, tmp_path)


def test_folders_that_no_checkpoint_names_are_removed(tmp_path: Path) -> None:
    for name in ("shards-1", "shards-2", "shards-3", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"")
    (tmp_path / "shards-link").symlink_to(tmp_path / "other")
    (tmp_path / "shards-file").write_bytes(b"")
    torch.save({"shards": {"folder": "shards-2"}}, tmp_path / "last.pt")
    torch.save({"step": 1}, tmp_path / "last-1.pt")
    remove_unused(tmp_path, iter([tmp_path / "last.pt", tmp_path / "last-1.pt"]))
    assert {path.name for path in tmp_path.iterdir()} == {
        "shards-2", "other", "shards-link", "shards-file", "last.pt", "last-1.pt",
    }  # fmt: skip
    assert (tmp_path / "other" / "part").is_file()


def test_nothing_is_removed_beside_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "shards-1").mkdir()
    torch.save({"step": 1}, tmp_path / "last.pt")
    (tmp_path / "last-1.pt").write_bytes(b"damaged")
    remove_unused(tmp_path, iter([tmp_path / "last.pt", tmp_path / "last-1.pt"]))
    assert (tmp_path / "shards-1").is_dir()


def test_checkpoints_are_not_opened_where_there_are_no_parts(tmp_path: Path) -> None:
    (tmp_path / "shards-file").write_bytes(b"")
    opened = iter([tmp_path / "last.pt"])
    remove_unused(tmp_path, opened)
    assert list(opened) == [tmp_path / "last.pt"]
