"""Indexes of images that are damaged, empty or of other data are built anew, whichever kind they are."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fullrank.errors import DataError
from fullrank.images import parquet_rows
from fullrank.images.opening import open_data
from fullrank.images.sources import Data
from images.shard_writer import write_shards

N = 40


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(folder: Path, first: int) -> str:
    folder.mkdir()
    for shard, start in enumerate(range(first, first + N, N // 2)):
        images = [{"bytes": _png(start + i), "path": None} for i in range(N // 2)]
        table = pa.table({"image": images, "label": [(start + i) % 3 for i in range(N // 2)]})
        pq.write_table(table, folder / f"train-{shard:05}-of-00002.parquet", row_group_size=7)
    return str(folder)


def _litdata(folder: Path, first: int) -> str:
    pytest.importorskip("litdata", reason="litdata is not installed: pip install 'fullrank[litdata]'")
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes=2_000)
    for i in range(N):
        writer[i] = {"image": _png(first + i), "label": (first + i) % 3}
    writer.done()
    writer.merge()
    return f"litdata:{folder}"


def _shards(folder: Path, first: int) -> str:
    write_shards(folder, [N // 2 + first, N // 2], labels=3)
    return f"shards:{folder}"


WRITERS: dict[str, Callable[[Path, int], str]] = {
    "parquet": _parquet,
    "litdata": _litdata,
    "tar": _shards,
}
DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda own, other: b"",
    "cut in its header": lambda own, other: own[:20],
    "cut in the middle": lambda own, other: own[: len(own) // 2],
    "without its last byte": lambda own, other: own[:-1],
    "random bytes": lambda own, other: random.Random(0).randbytes(len(own)),
    "zeros": lambda own, other: bytes(len(own)),
    "of other data": lambda own, other: other,
}


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLRANK_INDEX", str(tmp_path / "indexes"))
    monkeypatch.setattr(parquet_rows, "READ_AT_ONCE_BYTES", 0)
    return tmp_path / "indexes"


def content(data: Data) -> tuple[object, ...]:
    """Images, labels and fingerprint of a data set."""
    sources = data.train, data.held_out
    images = [[source.load(i).flatten().tolist() for i in range(len(source))] for source in sources]
    labels = [None if source.labels is None else source.labels.tolist() for source in sources]
    return images, labels, data.fingerprint


def opened(address: str) -> Data:
    return open_data(address, memory_limit_bytes=0)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_index_is_built_anew_with_the_same_images(
    tmp_path: Path, indexes: Path, kind: str, damage: str
) -> None:
    address = WRITERS[kind](tmp_path / "data", 0)
    before = content(opened(address))
    (path,) = indexes.glob(f"{kind}-*.safetensors")
    sound = path.read_bytes()
    opened(WRITERS[kind](tmp_path / "other", 100))
    (other,) = set(indexes.glob(f"{kind}-*.safetensors")) - {path}
    path.write_bytes(DAMAGES[damage](sound, other.read_bytes()))
    again = opened(address)
    assert content(again) == before
    notes = [note for note in again.notes if "was damaged, and is built anew" in note]
    assert len(notes) == (damage != "of other data"), "a sound one of other data is no damage"
    assert len(path.read_bytes()) == len(sound)
    assert not any("damaged" in note for note in opened(address).notes), "only once"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_in_the_place_of_an_index_is_left_alone_and_told(
    tmp_path: Path, indexes: Path, kind: str
) -> None:
    address = WRITERS[kind](tmp_path / "data", 0)
    before = content(opened(address))
    (path,) = indexes.glob(f"{kind}-*.safetensors")
    path.unlink()
    path.mkdir()
    again = opened(address)
    assert content(again) == before
    assert path.is_dir()
    assert any("cannot be written" in note for note in again.notes)


LISTS: dict[str, Callable[[bytes, bytes], bytes]] = {
    **DAMAGES,
    "no list": lambda own, other: b"[]",
    "no chunks": lambda own, other: json.dumps({**json.loads(own), "chunks": None}).encode(),
    "a chunk that is not there": lambda own, other: own.replace(b"chunk-0-0", b"chunk-7-7"),
}


@pytest.mark.usefixtures("indexes")
@pytest.mark.parametrize("damage", LISTS)
def test_litdatas_own_list_of_chunks_that_is_damaged_is_refused_by_its_name(
    tmp_path: Path, damage: str
) -> None:
    address = _litdata(tmp_path / "data", 0)
    _litdata(tmp_path / "other", 100)
    for chunk in (tmp_path / "other").glob("*.bin"):  # so that none of its names is here
        shutil.move(chunk, chunk.with_name(f"other-{chunk.name}"))
    listed, other = (tmp_path / name / "index.json" for name in ("data", "other"))
    foreign = other.read_bytes().replace(b'"chunk-', b'"other-chunk-')
    listed.write_bytes(LISTS[damage](listed.read_bytes(), foreign))
    with pytest.raises(DataError, match=r"data.(index\.json|(other-)?chunk)") as refusal:
        opened(address)
    assert "\n" not in str(refusal.value)
