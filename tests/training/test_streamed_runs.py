"""Runs on streams: shards, row groups; cut anywhere they resume to the last bit."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fullrank.cli import main
from fullrank.errors import UsageError
from fullrank.images.shapes import shapes
from fullrank.images.skipped import read_skipped
from fullrank.report.run.notes import data_note
from fullrank.report.run.summary import Summary
from fullrank.training.records import EndRecord
from images.shard_writer import Member, write_members
from training.test_loop import assert_ends_as_if_never_cut, records, run

IMAGES, CLASSES = 96, 10


def encoded() -> list[tuple[bytes, int]]:
    images, labels = shapes(IMAGES, 0, 16)
    found = []
    for image, label in zip(images, labels, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
        found.append((buffer.getvalue(), int(label)))
    return found


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as tar shards of uneven sizes, and as parquet."""
    folder, rows = tmp_path_factory.mktemp("sets"), encoded()
    cuts = [0, 10, 45, 46, 80, IMAGES]
    for shard, (a, b) in enumerate(pairwise(cuts)):
        members: list[Member] = []
        for i in range(a, b):
            members += [(f"{i:04}.png", rows[i][0]), (f"{i:04}.cls", str(rows[i][1]).encode())]
        write_members(folder / "shards" / f"part-{shard:02}.tar", members)
    table = pa.table({"image": [{"bytes": b, "path": None} for b, _ in rows], "label": [y for _, y in rows]})
    (folder / "parquet").mkdir()
    pq.write_table(table, folder / "parquet" / "train-0.parquet", row_group_size=9)
    return folder


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param("shards", {}, marks=pytest.mark.slow),
        pytest.param("shards", {"shuffle_window": 20}, marks=pytest.mark.slow),
        ("shards", {"shuffle_window": 20, "workers": 2}),
        pytest.param("hub", {"shuffle_window": 20}, marks=pytest.mark.slow),
    ],
    ids=["shards", "window", "workers", "hub"],
)
def test_a_streamed_run_cut_within_an_epoch_resumes_to_the_last_bit(
    sets: Path, tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    data = f"{kind}:{sets / {'shards': 'shards', 'hub': 'parquet'}[kind]}"
    settings = {"data": data, "limit": 0, "image_size": 16, "checkpoint_every": 2, "batch_size": 16, **more}
    assert_ends_as_if_never_cut(tmp_path, 5, **settings)


def test_the_window_that_a_run_decides_on_stands_in_its_configuration(sets: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", data=f"hub:{sets / 'parquet'}", limit=0, image_size=16, batch_size=16, epochs=1)
    assert f"shuffle_window: {IMAGES}\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_window_for_images_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shuffle-window belongs to images in shards"):
        run(tmp_path / "run", shuffle_window=10)


def test_damage_is_listed_and_the_end_tells_what_the_steps_waited_for(sets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for path in (sets / "shards").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    cut = folder / "part-04.tar"
    cut.write_bytes(cut.read_bytes()[:-12_000])  # of zeros at the end, and members
    settings: dict[str, Any] = {"image_size": 16, "batch_size": 16, "epochs": 1, "max_corrupt": 0.1}
    run(tmp_path / "run", data=f"shards:{folder}", limit=0, **settings)
    assert str(cut) in read_skipped(tmp_path / "run")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "end" and 0 < last["time"]["share_waiting"] < 1
    assert last["time"]["waiting"] < last["time"]["steps"] < last["time"]["total"]
    assert records(tmp_path / "run")[-1]["reason"] == "finished"


@pytest.mark.parametrize(
    ("share", "data", "says"),
    [
        (0.05, "photos", ""),
        (0.5, "photos", "tar shards in place of single files"),
        (0.5, "shards:x.tar", "images stored smaller"),
        (0.5, "hub:a/b", "the files on this machine"),
    ],
)
def test_a_run_that_waited_says_what_helps(share: float, data: str, says: str) -> None:
    summary = Summary("run")
    summary.end = EndRecord(time={"share_waiting": share, "steps": 100.0})
    note = data_note({"data": data, "workers": 2}, summary)
    assert (says in note) if says else (note == "")


@pytest.mark.slow
def test_every_command_takes_shards(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = f"shards:{sets}/shards/part-{{00..04}}.tar", str(tmp_path / "run")
    small = ["--epochs", "1", "--batch-size", "16", "--backbone", "resnet8-w4", "--image-size", "16"]
    assert main(["train", "simsiam", "--data", data, "--out", out, *small, "--workers", "0"]) == 0
    embedded = str(tmp_path / "rows")
    assert main(["embed", out, "--data", data, "--out", embedded]) == 0
    assert main(["audit", out, "--data", data, "--out", str(tmp_path / "audit")]) in (0, 3)
    assert main(["evaluate", "knn", out, "--data", data]) == 0
    assert "5 tar shards" in capsys.readouterr().out
    assert len(np.unique([label for _, label in encoded()])) == CLASSES
