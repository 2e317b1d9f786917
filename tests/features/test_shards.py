"""Rows in many files: in order, each read by one process, wherever the files lie."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.embedding_writers import WRITERS, Writer
from fullrank.collapse.one_pass import take_in
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.statistics import SETTLED, EmbeddingStatistics
from fullrank.errors import DataError, UsageError
from fullrank.features import shards as module
from fullrank.features import tables
from fullrank.features.embeddings import open_embeddings
from fullrank.features.shard_files import is_address, is_pattern, list_shards
from fullrank.features.shards import open_shards


class Together(Peers):
    """Threads that stand for processes: each hears what all say."""

    def __init__(self, rank: int, size: int, heard: list[Any], barrier: threading.Barrier) -> None:
        super().__init__()
        self._rank, self._size, self.heard, self.barrier = rank, size, heard, barrier

    @property
    def size(self) -> int:
        return self._size

    @property
    def rank(self) -> int:
        return self._rank

    def tell(self, words: Any) -> list[Any]:
        self.heard[self._rank] = words
        self.barrier.wait()
        said = list(self.heard)
        self.barrier.wait()
        return said

    def reduce(self, value: torch.Tensor, by: Literal["sum", "min", "max"] = "sum") -> torch.Tensor:
        assert by == "sum"
        return torch.stack(self.tell(value)).sum(0)

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.tell(rows))

    def from_rank(self, value: torch.Tensor, rank: int) -> torch.Tensor:
        found: torch.Tensor = self.tell(value)[rank]
        return found


def together(size: int, work: Callable[[Peers], Any]) -> list[Any]:
    """What each of so many processes makes of its work."""
    heard, barrier, found = [None] * size, threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        found[rank] = work(Together(rank, size, heard, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "shards").mkdir()
    for k in range(12):
        np.save(tmp_path / "shards" / f"part-{k}.npy", rng.standard_normal((30 + 40 * (k % 3), 5)))
    return tmp_path / "shards"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/features", recursive=True)


def whole(folder: Path) -> np.ndarray:
    files = sorted(folder.glob("part-*.npy"), key=lambda path: int(path.stem[5:]))
    return np.concatenate([np.load(file) for file in files])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_row_that_cannot_be_measured_is_named_by_its_file(folder: Path, size: int, value: float) -> None:
    path = folder / "part-7.npy"
    z = np.load(path)
    z[[17, 20], 3] = value
    np.save(path, z)

    def said(peers: Peers) -> str:
        try:
            rows = open_embeddings(folder, peers=peers)
            take_in(rows, rows.part, EmbeddingStatistics(rows.d, peers=peers), Reservoir(8), None)
        except Exception as error:
            return str(error)
        return "nothing was wrong"

    places = [each.partition(":")[0] for each in together(size, said)]
    assert places == [f"{path}, row 17 (the first is 0)"] * size


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_parts_of_processes_are_the_whole_in_order_and_every_file_is_read_once(
    folder: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []
    scan = tables.Shards.scan

    def counted(self: Any, rows: int) -> Any:
        scanned.extend(str(id(table)) for table in self.tables)
        return scan(self, rows)

    monkeypatch.setattr(tables.Shards, "scan", counted)
    shards = list_shards(folder)
    parts = together(size, lambda peers: open_shards(shards, None, peers))
    read = [torch.cat([torch.empty(0, 5).double(), *part.table.scan(64)]) for part in parts]
    assert torch.equal(torch.cat(read), torch.from_numpy(whole(folder)))
    assert len(scanned) == 12
    firsts = np.cumsum([0, *(part.part.held for part in parts)])
    assert [part.part.first for part in parts] == firsts[:-1].tolist()
    assert {part.part.n for part in parts} == {len(whole(folder))}


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(1, 70))
def test_every_file_belongs_to_one_process(sizes: list[int], processes: int) -> None:
    runs = module._by_size(sizes, processes)
    assert len(runs) == processes
    assert [place for run in runs for place in run] == list(range(len(sizes)))


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(1, 9))
def test_the_first_process_has_the_rows_of_a_middle_where_there_are_as_many(
    counts: list[int], processes: int
) -> None:
    runs = module._first_has_enough(module._by_size(counts, processes), counts)
    assert [place for run in runs for place in run] == list(range(len(counts)))
    assert sum(counts[place] for place in runs[0]) >= min(SETTLED, sum(counts))


@pytest.mark.parametrize("size", [2, 3])
def test_a_single_file_is_shared_by_rows(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 5 * 300)
    z = np.random.default_rng(0).standard_normal((2000, 5))
    np.save(tmp_path / "z.npy", z)
    parts = together(size, lambda peers: open_embeddings(tmp_path / "z.npy", peers=peers))
    assert torch.equal(torch.cat([chunk for part in parts for chunk in part]), torch.from_numpy(z))
    assert {part.n for part in parts} == {2000} and all(0 < part.part.held < 2000 for part in parts)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_format_is_shared_and_keeps_its_labels(tmp_path: Path, writer: Writer) -> None:
    rng, whole = np.random.default_rng(0), tmp_path / "whole"
    whole.mkdir()
    for k in range(4):
        (tmp_path / str(k)).mkdir()
        written = writer(
            tmp_path / str(k), rng.standard_normal((150, 3)).astype(np.float32), np.arange(150) % 4
        )
        if written.suffix:
            written.rename(whole / f"part-{k}{written.suffix}")
        else:
            shutil.copytree(written, whole / f"part-{k}", copy_function=shutil.copy)
    files = sorted(path for path in whole.rglob("*") if path.is_file() or path.suffix == ".zarr")
    if not any(path.parent == whole for path in files):
        whole = whole / "part-0"  # a folder of shards by itself
    alone = open_embeddings(whole)
    parts = together(2, lambda peers: open_embeddings(whole, peers=peers))
    assert torch.equal(torch.cat([z for part in parts for z in part]), torch.cat(list(alone)))
    labels = None if alone.labels is None else alone.labels.tolist()
    assert [None if part.labels is None else part.labels.tolist() for part in parts] == [labels] * 2
    assert {(part.n, part.origin) for part in parts} == {(alone.n, alone.origin)}


def test_an_error_in_one_file_is_the_error_of_all_processes(folder: Path) -> None:
    (folder / "part-10.npy").write_bytes(b"nothing of the kind")

    def refused(peers: Peers) -> str:
        with pytest.raises(DataError) as caught:
            open_embeddings(folder, peers=peers)
        return str(caught.value)

    first, second = together(2, refused)
    assert first == second and "part-10.npy" in first


def test_a_pattern_and_an_address_give_the_rows_of_the_folder(folder: Path, memory: Any) -> None:
    for file in folder.iterdir():
        memory.pipe_file(f"/features/{file.name}", file.read_bytes())
    sources: list[Path | str] = [
        folder,
        f"{folder}/part-*.npy",
        f"file://{folder}",
        "memory://features",
        "memory://features/p*",
    ]
    for source in sources:
        rows = open_embeddings(source)
        assert torch.equal(torch.cat(list(rows)), torch.from_numpy(whole(folder))), source
        assert rows.rows([0, 100, 799])[:, 0].tolist() == whole(folder)[[0, 100, 799], 0].tolist()


def test_of_files_behind_an_address_the_header_comes_first_and_nothing_stays(
    folder: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        memory.pipe_file(f"/features/{file.name}", file.read_bytes())
    monkeypatch.setattr("fullrank.features.shard_files.KEPT", 0)
    fetched: list[str] = []
    get = type(memory).get_file

    def counted(self: Any, name: str, *rest: Any) -> Any:
        fetched.append(name)
        return get(self, name, *rest)

    monkeypatch.setattr(type(memory), "get_file", counted)
    shards = list_shards("memory://features")
    rows = open_shards(shards, None, Peers(alone=True))
    assert fetched == []
    assert sum(len(part) for part in rows.table.scan(64)) == len(whole(folder))
    assert len(fetched) == 12
    store = shards.files[0].store
    assert store is not None and list(store.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("nowhere/part-*.npy", DataError, "holds no embedding files"),
        ("memory://nowhere", DataError, "cannot be listed"),
        ("s3://bucket/features", UsageError, "needs the package of s3"),
        ("qq://bucket/features", UsageError, "no address that fsspec knows"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_a_line(what: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_embeddings(what)


def test_names_of_encoders_and_files_are_no_addresses(tmp_path: Path) -> None:
    (tmp_path / "odd[1].npy").touch()
    assert not any(is_address(name) for name in ("timm:resnet18", "hf:some/model", "z.npy", "C:\\z.npy"))
    assert is_pattern("z*.npy") and not is_pattern(tmp_path / "odd[1].npy")
