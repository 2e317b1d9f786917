"""Folders of litdata: read at random, never unpickled. Needs `pip install 'fullrank[litdata]'`."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullrank.errors import DataError
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data

pytest.importorskip("litdata", reason="litdata is not installed: pip install 'fullrank[litdata]'")


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def write(folder: Path, items: list[Any]) -> Path:
    from litdata.streaming.writer import BinaryWriter

    writer: Any = BinaryWriter(str(folder), chunk_bytes=20_000)
    for i, item in enumerate(items):
        writer[i] = item
    writer.done()
    writer.merge()
    return folder


KINDS: dict[str, Callable[[int], Any]] = {
    "bytes": lambda i: {"image": jpeg(i), "label": i % 3},
    "pil": lambda i: {"image": Image.open(io.BytesIO(jpeg(i))).convert("RGB"), "label": i % 3},
    "jpeg": lambda i: {"image": Image.open(io.BytesIO(jpeg(i))), "label": i % 3},
    "array": lambda i: {"image": np.full((3, 8, 8), i, np.uint8), "label": i % 3},
    "tuple": lambda i: (jpeg(i), i % 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_of_every_form(tmp_path: Path, kind: str) -> None:
    data = open_data(f"litdata:{write(tmp_path / 'set', [KINDS[kind](i) for i in range(120)])}")
    assert (len(data.train), len(data.held_out)) == (80, 40)
    for source in (data.train, data.held_out):
        for i in range(0, len(source), 9):
            n = int(source.index[i])  # type: ignore[attr-defined]
            assert abs(int(source.load(i)[0, 4, 4]) - n) <= 2
            assert source.labels is not None and source.labels[i] == n % 3


def test_every_image_comes_once_for_any_number_of_workers(tmp_path: Path) -> None:
    train = open_data(f"litdata:{write(tmp_path / 'set', [KINDS['bytes'](i) for i in range(150)])}").train
    runs = [
        [indices.tolist() for _, (indices, _) in Batches(train, 10, 0, workers=w).epoch(1)] for w in (0, 2)
    ]
    assert runs[0] == runs[1] and sorted(i for batch in runs[0] for i in batch) == list(range(110))


def test_pickles_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path / "set", [{"image": jpeg(1), "more": object.__class__} for _ in range(3)])
    with pytest.raises(DataError, match=r"holds items as pickle.*can run code"):
        open_data(f"litdata:{tmp_path / 'set'}")


def test_an_index_that_lies_about_its_formats_unpickles_nothing(tmp_path: Path) -> None:
    write(tmp_path / "set", [{"image": jpeg(1), "more": object.__class__} for _ in range(3)])
    path = tmp_path / "set" / "index.json"
    said = json.loads(path.read_text())
    said["config"]["data_format"] = ["jpeg", "json"]
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match="holds no image that can be read"):
        open_data(f"litdata:{tmp_path / 'set'}")


def test_a_truncated_chunk_is_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [KINDS["bytes"](i) for i in range(300)])
    chunk = sorted(folder.glob("*.bin"))[-1]
    chunk.write_bytes(chunk.read_bytes()[:-700])
    data = open_data(f"litdata:{folder}", max_corrupt=0.2)
    assert list(data.skipped.values()) == [why for why in data.skipped.values() if "cut short" in why]
    assert list(data.skipped) == [str(chunk)] and 250 < len(data.train) + len(data.held_out) < 300
    with pytest.raises(DataError, match="missing or lie in damaged shards"):
        open_data(f"litdata:{folder}", max_corrupt=0.001)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "has no index.json"), ("{", "is damaged, or no JSON"), ("{}", "no index of")]
)
def test_what_is_no_folder_of_litdata_is_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=says):
        open_data(f"litdata:{tmp_path}")


def test_a_pickle_of_the_source_is_small(tmp_path: Path) -> None:
    train = open_data(f"litdata:{write(tmp_path / 'set', [KINDS['bytes'](i) for i in range(120)])}").train
    assert len(pickle.dumps(train)) < 5_000
    assert pickle.loads(pickle.dumps(train)).load(3).shape == (3, 8, 8)
