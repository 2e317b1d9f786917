"""Features in a folder: what was written is opened, whoever wrote it and however often it was killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.features import writing
from fullrank.features.claims import claim
from fullrank.features.embeddings import open_embeddings
from fullrank.features.store import LAYOUTS, Stored, is_stored, open_stored
from fullrank.features.writing import StoreWriter

N = 5003
GENERATOR = torch.Generator().manual_seed(0)
ROWS = {"features": torch.randn(N, 7, generator=GENERATOR), "target": torch.randn(N, 3, generator=GENERATOR)}
LABELS = torch.arange(N) % 5 - 1
SETTINGS = {"subject": "noise", "taps": ["features", "target"]}
every_layout = pytest.mark.parametrize("layout", list(LAYOUTS))


def write(
    folder: Path,
    layout: Any = "safetensors",
    rank: int = 0,
    size: int = 1,
    stop: int = N,
    labels: bool = True,
) -> Path | None:
    """One process's part, from where it was left; `stop` leaves it as a killed process would."""
    writer = StoreWriter(folder, "train", SETTINGS, layout=layout, rank=rank, world_size=size)
    part = torch.from_numpy(np.array_split(np.arange(N), size)[rank])
    for chosen in part[writer.images :].split(400) if writer.images < len(part) else ():
        if int(chosen[-1]) >= stop:
            writer.lock.close()  # as the end of the process would
            return None
        rows = {tap: z[chosen] for tap, z in ROWS.items()}
        done = int(chosen[-1] - part[0]) + 1
        writer.add(rows, chosen, LABELS[chosen] if labels else None, done)
    return writer.finish({"classes": ["a", "b", "c", "d"]})


def assert_same(stored: Stored) -> None:
    assert list(stored.rows) == ["features", "target"]
    assert all(torch.equal(stored.rows[tap], z) for tap, z in ROWS.items())
    assert stored.labels is not None and torch.equal(stored.labels, LABELS)
    assert torch.equal(stored.indices, torch.arange(N))


@every_layout
def test_what_was_written_is_what_is_opened(layout: str, tmp_path: Path) -> None:
    file = write(tmp_path / "F", layout)
    assert file is not None and file.exists() and is_stored(tmp_path / "F")
    stored = open_stored(tmp_path / "F")
    assert list(stored) == ["train"]
    assert_same(stored["train"])
    said = {"subject": "noise", "split": "train", "classes": ["a", "b", "c", "d"]}
    assert said.items() <= stored["train"].provenance.items()
    with pytest.raises(UnknownNameError, match="unknown tap 'feature'; did you mean 'features'"):
        stored["train"].rows["feature"]


@every_layout
def test_parts_of_several_processes_are_joined_byte_for_byte(layout: Any, tmp_path: Path) -> None:
    assert write(tmp_path / "one", layout) is not None
    assert [write(tmp_path / "many", layout, rank, 3) is None for rank in (2, 0, 1)] == [True, True, False]
    one, many = LAYOUTS[layout].place(tmp_path / "one", "train"), tmp_path / "many"
    other = LAYOUTS[layout].place(many, "train")
    assert_same(open_stored(many)["train"])
    if layout != "parquet":  # whose row groups end where a part does
        files = sorted(one.iterdir()) if one.is_dir() else [one]
        for file in files:
            assert (other / file.name if one.is_dir() else other).read_bytes() == file.read_bytes()
    assert not list(many.glob(".*.partial")), "the parts are gone"


def test_the_library_of_safetensors_and_of_parquet_read_them(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet
    from safetensors import safe_open
    from safetensors.torch import load_file

    file = write(tmp_path / "F")
    assert file is not None
    tensors = load_file(file)
    assert sorted(tensors) == ["features", "indices", "labels", "target"]
    assert torch.equal(tensors["target"], ROWS["target"]) and torch.equal(tensors["labels"], LABELS)
    with safe_open(file, framework="np") as opened:
        assert json.loads(opened.metadata()["provenance"])["subject"] == "noise"
    table = parquet.read_table(write(tmp_path / "P", "parquet"))
    assert table.schema.names == ["index", "label", "features", "target"]
    assert np.array_equal(np.stack(table["features"].to_numpy()), ROWS["features"].numpy())


@pytest.mark.parametrize(
    ("layout", "file"), [("safetensors", "train.safetensors"), ("parquet", "train.parquet")]
)
def test_an_audit_finds_rows_and_labels_in_them(layout: str, file: str, tmp_path: Path) -> None:
    write(tmp_path / "F", layout)
    rows = open_embeddings(tmp_path / "F" / file, "features")
    assert (rows.n, rows.d) == (N, 7) and rows.labels is not None
    assert np.array_equal(rows.labels, LABELS.numpy())


def test_rows_are_mapped_and_writing_to_them_does_not_reach_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "F")
    assert file is not None
    before = file.read_bytes()
    open_stored(tmp_path / "F")["train"].rows["features"].zero_()
    assert file.read_bytes() == before


def test_without_labels_there_are_none(tmp_path: Path) -> None:
    write(tmp_path / "F", labels=False)
    assert open_stored(tmp_path / "F")["train"].labels is None


@pytest.mark.parametrize("cut", [0, 1, 5, 17])
def test_a_part_that_was_cut_at_any_byte_goes_on_to_the_same_file(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "RECORD_SECONDS", 0.0)
    write(tmp_path / "whole")
    folder = tmp_path / "F"
    write(folder, stop=2500)
    own = folder / ".train.partial" / "part-0-of-1"
    recorded = json.loads((own / "progress.json").read_text())["rows"]
    assert 0 < recorded < N
    with (own / "0.raw").open("ab") as file:
        file.write(b"x" * cut)  # of a batch that no record promises
    with pytest.raises(DataError, match="is not finished: the same `fullrank embed` again"):
        open_stored(folder)
    seen: list[int] = []
    add = StoreWriter.add

    def watched(self: StoreWriter, rows: Any, indices: Tensor, *rest: Any, **more: Any) -> None:
        seen.append(int(indices[0]))
        add(self, rows, indices, *rest, **more)

    monkeypatch.setattr(StoreWriter, "add", watched)
    write(folder)
    assert seen[0] == recorded, "what was recorded is not done again"
    assert (folder / "train.safetensors").read_bytes() == (tmp_path / "whole/train.safetensors").read_bytes()


def test_a_process_killed_while_it_joins_leaves_parts_that_are_joined_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> Path:
        if self.name.startswith("joined"):
            raise KeyboardInterrupt
        return Path(shutil.move(self, target))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "F", "npy")
    write(tmp_path / "F", "npy")
    assert_same(open_stored(tmp_path / "F")["train"])


def test_what_a_process_left_that_was_killed_before_it_cleared_up_is_removed(tmp_path: Path) -> None:
    write(tmp_path / "F")
    left = tmp_path / "F" / ".train.partial"
    (left / "part-0-of-1").mkdir(parents=True)
    StoreWriter(tmp_path / "F", "train", SETTINGS)
    assert not left.exists()


def test_a_finished_split_is_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "F")
    assert file is not None
    when = file.stat().st_mtime_ns
    writer = StoreWriter(tmp_path / "F", "train", SETTINGS)
    assert writer.finished and writer.finish({}) == file and file.stat().st_mtime_ns == when


def other_settings(folder: Path) -> None:
    write(folder)
    StoreWriter(folder, "test", SETTINGS | {"taps": ["layer4"]})


def other_layout(folder: Path) -> None:
    write(folder)
    StoreWriter(folder, "test", SETTINGS, layout="npy")


def other_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    StoreWriter(folder, "train", SETTINGS)


def a_file(folder: Path) -> None:
    folder.touch()
    StoreWriter(folder, "train", SETTINGS)


def other_count(folder: Path) -> None:
    write(folder, rank=0, size=2)
    StoreWriter(folder, "train", SETTINGS, rank=0, world_size=3)


def at_once(folder: Path) -> None:
    first = StoreWriter(folder, "train", SETTINGS)
    StoreWriter(folder, "train", SETTINGS)
    del first


def test_a_folder_that_holds_no_features_yet_may_be_deleted(tmp_path: Path) -> None:
    one, other = ({"layout": "npy", "data": data} for data in "BA")
    claim(tmp_path / "out", one)
    with pytest.raises(UsageError, match=r"\(data B, not A\): .*, or delete .*out, which holds none yet$"):
        claim(tmp_path / "out", other)
    (tmp_path / "out" / "part.npy").touch()
    with pytest.raises(UsageError, match=r"\(data B, not A\): take another --out$"):
        claim(tmp_path / "out", other)


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        (
            other_settings,
            r"features of another command \(taps features,target, not layer4\): take another --out",
        ),
        (other_layout, r"another command \(layout safetensors, not npy\)"),
        (other_files, "exists already and holds other files: take another --out"),
        (a_file, "is a file: features go into a folder"),
        (other_count, "was begun by 2 processes: go on with as many, or take another --out"),
        (at_once, "another process is writing train"),
    ],
)
def test_another_command_in_the_same_folder_is_refused_in_one_line(
    attempt: Callable[[Path], None], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=line):
        attempt(tmp_path / "F")


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "F")
    assert file is not None
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"train\.safetensors is damaged"):
        open_stored(tmp_path / "F")
    with pytest.raises(DataError, match="holds no features of ours: `fullrank embed"):
        open_stored(tmp_path)
    with pytest.raises(UsageError, match="a tap cannot be called labels"):
        StoreWriter(tmp_path / "G", "train", SETTINGS).add(
            {"labels": torch.zeros(1, 2)}, torch.zeros(1), None, images=1
        )
