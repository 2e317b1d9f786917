"""Parquet that is read in place by its row groups, from a folder and by an address of the Hub."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fullrank.errors import DataError, UsageError
from fullrank.images import parquet, parquet_rows
from fullrank.images.hub import parse_address
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data
from fullrank.images.parquet_rows import RowGroups
from fullrank.images.sources import LazySource


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, first: int, n: int, group: int = 7, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(first + i), "path": None} for i in range(n)]
    table = pa.table({"image": images, "label": [(first + i) % 3 for i in range(n)], **columns})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(3):
        write(tmp_path / "set" / f"train-{k:05}-of-00003.parquet", 50 * k, 50)
    write(tmp_path / "set" / "test-00000-of-00001.parquet", 1000, 20)
    return tmp_path / "set"


def number(source: Any, i: int) -> int:
    pixel = source.load(i)[:, 0, 0].tolist()
    return int(pixel[0] + 256 * pixel[1])


def test_a_large_folder_is_read_in_place_and_nothing_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parquet_rows, "READ_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = open_data(str(folder), memory_limit_bytes=0)
    assert isinstance(data.train, LazySource) and isinstance(data.train.items, RowGroups)
    assert [number(data.train, i) for i in range(150)] == list(range(150))
    assert data.train.labels is not None and data.train.labels.tolist() == [i % 3 for i in range(150)]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("spec", ["{folder}", "{folder}@train"])
def test_the_hubs_layout_is_opened_by_its_address(folder: Path, spec: str) -> None:
    data = open_data("hub:" + spec.format(folder=folder))
    held = 150 // 10 if "@" in spec else 20
    assert len(data.train) == (150 if "@" not in spec else 150 - max(held, 40)) and data.train.window > 0
    assert isinstance(data.train, LazySource) and data.train.streamed
    assert number(data.train, 3) == int(data.train.index[3])


def test_a_row_group_is_read_once_an_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(f"hub:{folder}")
    assert isinstance(data.train, LazySource) and isinstance(data.train.items, RowGroups)
    groups = data.train.items
    read = list[int]()
    original = pq.ParquetFile.read_row_group

    def counted(self: Any, i: int, **more: Any) -> Any:
        read.append(i)
        return original(self, i, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    groups.window, groups._keep = 20, 2 + -(-20 * 24 // 150)
    groups._forget()
    from fullrank.images.data_order import DataOrder

    order = DataOrder(150, 10, 1, window=20, groups=data.train.groups)
    seen = [int(i) for _, (indices, _) in Batches(data.train, 10, 0, order=order).epoch(0) for i in indices]
    assert sorted(seen) == list(range(150))
    assert len(read) == len(groups.starts) - 1


def test_the_window_fits_into_the_bytes_that_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "WINDOW_BYTES", 1)
    train = open_data(f"hub:{folder}").train
    assert train.window == 150  # 256 at least, of which there are no more
    assert isinstance(train, LazySource) and isinstance(train.items, RowGroups)
    assert len(train.items.starts) - 1 == 24 <= train.items._keep


def test_the_held_out_images_are_whole_row_groups(folder: Path) -> None:
    data = open_data(f"hub:{folder}@train")
    assert isinstance(data.held_out, LazySource)
    groups = data.held_out.groups
    assert groups is not None and len(np.unique(groups)) <= 40 // 7 + 2
    assert isinstance(data.train, LazySource)
    assert not set(data.train.index.tolist()) & set(data.held_out.index.tolist())


def test_a_pickle_is_small_and_reads_the_same(folder: Path) -> None:
    train = open_data(f"hub:{folder}").train
    pickled = pickle.dumps(train)
    assert number(pickle.loads(pickled), 77) == 77
    assert len(pickled) < 6_000


def test_an_index_follows_its_files(folder: Path) -> None:
    before = len(open_data(f"hub:{folder}").train)
    write(folder / "train-00002-of-00003.parquet", 100, 30)
    assert (before, len(open_data(f"hub:{folder}").train)) == (150, 130)


def test_words_for_labels_are_numbered_alike_in_both_splits(tmp_path: Path) -> None:
    words = {"train": ["cat", "dog", "eel"], "test": ["eel", "new"]}
    for split, names in words.items():
        rows = {"image": [png(i) for i in range(len(names) * 20)], "label": names * 20}
        pq.write_table(pa.table(rows), tmp_path / f"{split}-0.parquet", row_group_size=7)
    data = open_data(f"hub:{tmp_path}")
    assert data.train.classes == data.held_out.classes == ["cat", "dog", "eel"]
    assert data.held_out.labels is not None and data.held_out.labels[:4].tolist() == [2, -1, 2, -1]


def test_addresses_through_fsspec_are_read_by_ranges(folder: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.glob("train*"):
        memory.pipe(f"/set/{path.name}", path.read_bytes())
    files = [f"memory://set/{path.name}" for path in sorted(folder.glob("train*"))]
    groups = parquet_rows.open_row_groups(files, "image", "label")
    content = groups[120]
    assert isinstance(content, bytes) and content == png(120)
    assert groups.where(120) == f"{files[2]} 'image' row 20"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nobody/nothing-of-this-name", "the Hub cannot be reached"),
        ("a/b/c/d", "is no address; what is meant is as hub:OWNER/NAME/CONFIG@SPLIT"),
        ("{folder}@valid", "has no split 'valid'; it has train, test"),
        ("{folder}/nowhere", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    folder: Path, address: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=says) as caught:
        open_data("hub:" + address.format(folder=folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("DatasetNotFoundError", "private or gated.*hf auth login"),
        ("GatedRepoError 403 gated", "accept its terms"),
        ("ConnectionError", "cannot be reached"),
    ],
)
def test_private_and_offline_say_what_to_do(error: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, said = error.partition(" ")
    kind = ConnectionError if name == "ConnectionError" else type(name, (Exception,), {})

    def refuse(*_: object) -> None:
        raise kind(said or "doesn't exist on the Hub or cannot be accessed")

    monkeypatch.setattr("datasets.load_dataset_builder", refuse)
    with pytest.raises(DataError, match=says):
        open_data("hub:somebody/private")


def test_row_groups_that_are_too_large_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 10)
    with pytest.raises(DataError, match="write them smaller"):
        open_data(f"hub:{folder}")


def test_other_files_than_parquet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"holds \.csv and is read in place from \.parquet alone"):
        open_data(f"hub:{tmp_path}")


def test_configurations_and_splits_are_named() -> None:
    assert parse_address("owner/name/config@test") == ("owner/name", "config", "test")


def test_damaged_rows_are_counted_and_replaced(tmp_path: Path) -> None:
    cells = [{"bytes": b"no image" if i == 5 else png(i), "path": None} for i in range(150)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "train-0.parquet", row_group_size=10)
    data = open_data(f"hub:{tmp_path}", max_corrupt=0.02)
    assert any("train-0.parquet 'image' row 5" in where for where in data.skipped)
