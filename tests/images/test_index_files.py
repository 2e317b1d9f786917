"""An index whose bytes were altered is built anew, with a note, whichever bytes they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullrank.images.index_files import index_notes, open_index
from fullrank.images.opening import open_data
from images.shard_writer import write_shards


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLRANK_INDEX", str(tmp_path / "indexes"))
    return tmp_path / "indexes"


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.8, 0.95, 0.999])
def test_altered_bytes_anywhere_are_noticed(tmp_path: Path, indexes: Path, place: float) -> None:
    write_shards(tmp_path / "data", [30, 30], labels=3)
    before = open_data(f"shards:{tmp_path / 'data'}")
    image, fingerprint = before.train.load(5), before.fingerprint
    (path,) = indexes.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= 0x55
    path.write_bytes(content)
    again = open_data(f"shards:{tmp_path / 'data'}")
    assert any("was damaged, and is built anew" in note for note in again.notes)
    assert again.train.load(5).equal(image) and again.fingerprint == fingerprint
    assert not any("damaged" in note for note in open_data(f"shards:{tmp_path / 'data'}").notes), "only once"


@pytest.mark.usefixtures("indexes")
def test_a_sound_index_is_mapped_without_a_note() -> None:
    def build() -> tuple[dict[str, np.ndarray], dict[str, object]]:
        return {"sizes": np.arange(9), "none": np.arange(0)}, {"word": "größer", "share": 0.1}

    first, second = (open_index("kind", "here", lambda _: True, build) for _ in range(2))
    assert first.path == second.path and first.path is not None
    assert index_notes(second, "each") == [] and second.facts == first.facts
