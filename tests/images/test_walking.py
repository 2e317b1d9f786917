"""Folders of millions: walked once, their list mapped by every process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullrank.errors import DataError
from fullrank.images import index_files, walking
from fullrank.images.folders import open_image_folder
from fullrank.images.index_files import Index, open_index, read_index
from fullrank.images.walking import Files, open_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(walking, "INDEXED_FROM", 1)
    monkeypatch.setenv("FULLRANK_INDEX", str(tmp_path / "indexes"))
    for kind in ("cat", "dog/inner", "eel"):
        for k in range(4):
            path = tmp_path / "set" / kind / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "set" / "notes.txt").touch()
    rest(tmp_path / "set")
    return tmp_path / "set"


def rest(folder: Path) -> None:
    """As if nothing had changed for a minute."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            os.utime(path, (time.time() - 60, path.stat().st_mtime - 60))


def walks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found, original = list[Path](), walking._walk

    def counted(walk: Any, folder: Path, within: bytes, linked: Any) -> None:
        found.append(folder)
        original(walk, folder, within, linked)

    monkeypatch.setattr(walking, "_walk", counted)
    return found


def test_a_folder_is_walked_once_and_then_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = walks(monkeypatch)
    lists = []
    for _ in range(3):
        skipped: dict[str, str] = {}
        files = open_files(folder, skipped)
        lists.append((list(files), skipped))
    assert len(found) == 5 and lists[0] == lists[1] == lists[2]
    assert files.index.path is not None and isinstance(files.index.arrays["text"].base, np.ndarray)
    assert sorted(lists[0][1]) == [str(folder / "notes.txt")]


@pytest.mark.parametrize("change", ["add", "remove", "rename", "new folder", "remove folder"])
def test_a_folder_that_changed_is_walked_anew(folder: Path, change: str) -> None:
    before = list(open_files(folder, {}))
    match change:
        case "add":
            (folder / "dog" / "inner" / "9.png").touch()
        case "remove":
            (folder / "cat" / "0.png").unlink()
        case "rename":
            (folder / "cat" / "0.png").rename(folder / "cat" / "zero.png")
        case "new folder":
            (folder / "new").mkdir()
            (folder / "new" / "1.png").touch()
        case _:
            for path in (folder / "eel").iterdir():
                path.unlink()
            (folder / "eel").rmdir()
    after = list(open_files(folder, {}))
    assert after != before and after == walking.list_images(folder, {})


def test_a_folder_that_has_just_changed_is_not_kept(folder: Path) -> None:
    (folder / "cat" / "new.png").touch()
    assert open_files(folder, {}).index.path is None
    rest(folder)
    assert open_files(folder, {}).index.path is not None


def test_what_is_written_into_a_file_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_files(folder, {})
    (folder / "cat" / "0.png").write_bytes(b"other pixels")
    found = walks(monkeypatch)
    assert len(open_files(folder, {})) == 12 and not found


def test_the_index_has_the_order_classes_and_labels_of_a_walk(folder: Path) -> None:
    for _ in range(2):
        train, _, _ = open_image_folder(folder / "..")  # with other things beside
        train, _, notes = open_image_folder(folder)
        assert train.classes is None  # folders of two depths
    (folder / "dog" / "inner").rename(folder / "fox")
    rest(folder)
    for _ in range(2):
        train, _, notes = open_image_folder(folder)
        assert train.classes == ["cat", "eel", "fox"] and notes[0] == "classes are named by 3 sub-folders"
        assert train.labels is not None and train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_names_of_any_bytes_are_kept(folder: Path) -> None:
    names = [b"\xff\xfe.png", "ü\n.png".encode(), b" .png"]
    for name in names:
        (Path(os.fsdecode(os.fsencode(folder) + b"/cat/" + name))).touch()
    rest(folder)
    lists = [sorted(open_files(folder, {})) for _ in range(2)]
    assert lists[0] == lists[1] and all(path.exists() for path in lists[1]) and len(lists[1]) == 15


def test_a_pickle_holds_the_name_of_the_index_alone(folder: Path) -> None:
    files = open_files(folder, {})
    again = pickle.loads(pickle.dumps(files))
    assert isinstance(again, Files) and list(again) == list(files) and again.where(0) == str(files[0])
    assert len(pickle.dumps(files)) < 1_000


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "other format"])
def test_a_damaged_index_is_built_anew(folder: Path, damage: str) -> None:
    before = list(open_files(folder, {}))
    path = open_files(folder, {}).index.path
    assert path is not None
    whole = path.read_bytes()
    spoilt = {"cut": whole[:-10], "empty": b"", "garbage": b"\xff" * 100}
    path.write_bytes(spoilt.get(damage, whole.replace(b"fullrank-index-2", b"fullrank-index-0")))
    with pytest.raises(DataError):
        read_index(path)
    assert list(open_files(folder, {})) == before and read_index(path).path == path


def test_where_no_index_can_be_written_that_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_INDEX", str(folder / "notes.txt" / "indexes"))
    train, _, notes = open_image_folder(folder)
    assert len(train) == 12 and any("every process lists the files for itself" in note for note in notes)


def _build(name: str, folder: Path) -> None:
    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        with (folder / "built").open("a") as file:
            file.write("once\n")
        time.sleep(0.5)
        return {"x": np.arange(1000)}, {}

    assert len(open_index("test", name, lambda _: True, build).arrays["x"]) == 1000


def test_of_processes_that_start_together_one_builds(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    together = [context.Process(target=_build, args=("here", folder)) for _ in range(4)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0] * 4
    assert (folder / "built").read_text() == "once\n"


def test_a_small_list_stays_in_memory() -> None:
    index = open_index("test", "small", lambda _: True, lambda: ({"x": np.arange(3)}, {}), least=10)
    assert isinstance(index, Index) and index.path is None
    assert not list(index_files.index_root().glob("test-*.safetensors"))
