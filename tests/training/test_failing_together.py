"""Whatever fails in one process of a run ends all of them, by name, and the run goes on elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.helpers import WIDTHS, call, records
from fullrank.images.shapes import shapes
from images.shard_writer import Member, write_members

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("failing_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = (
    *("--image-size", "16", "--backbone", "resnet8-w16", "--batch-size", "24", "--level-every", "1", *WIDTHS),
    *("--epochs", "3", "--watch-every", "1", "--accelerator", "cpu", "--checkpoint-every", "1", "--quiet"),
    *("--lr", "0.02"),
)
SAYS = {  # by place in `failing_worker.py`
    "step": "RuntimeError: a step that fails",
    "loss": "ran out of memory: take a smaller --batch-size",
    "views": "ran out of memory: take a smaller --batch-size",
    "images": "ValueError: no such image, in a process that decodes",
    "probe": "IndexError: no such label",
    "panel": "FloatingPointError: no such number",
    "neighbours": "KeyError: 'knn'",
    "parts": "/scratch/x: No space left on device; with some space free, `fullrank resume",
    "records": "/scratch/x: No space left on device; with some space free, `fullrank resume",
    "checkpoint": "/scratch/x: No space left on device; with some space free, `fullrank resume",
}
OF_THE_FIRST = ("records", "checkpoint")  # which alone writes them


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images of two sizes as a folder of classes, and as tar shards of uneven numbers."""
    folder, rows = tmp_path_factory.mktemp("sets"), []
    for i, (image, label) in enumerate(zip(*shapes(150, 0, 16), strict=True)):
        path = folder / "photos" / f"class-{label}" / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.pad(image.transpose(1, 2, 0), ((0, i % 2), (0, 0), (0, 0)), mode="edge")
        Image.fromarray(pixels).save(path)
        rows.append((path.read_bytes(), int(label)))
    for shard, (a, b) in enumerate(pairwise([0, 17, 80, 81, 150])):
        members: list[Member] = []
        for i in range(a, b):
            members += [(f"{i:04}.png", rows[i][0]), (f"{i:04}.cls", str(rows[i][1]).encode())]
        write_members(folder / "shards" / f"part-{shard:02}.tar", members)
    return folder


def data_of(sets: Path, kind: str) -> str:
    return f"shards:{sets / 'shards'}" if kind == "shards" else str(sets / kind)


def failed(place: str, rank: int, run: Path, *more: str) -> tuple[int, str]:
    """Exit code and last words of a run of two processes, one of which fails at a place."""
    words = ("train", "simsiam", *SMALL, "--devices", "2", "--out", str(run), *more)
    done = subprocess.run(
        [sys.executable, str(WORKER), place, str(rank), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("place", SAYS)
def test_a_failure_of_one_process_is_named_by_the_other(place: str, sets: Path, tmp_path: Path) -> None:
    rank = 0 if place in OF_THE_FIRST else 1
    more = ["--strategy", "fsdp"] if place == "parts" else []
    more += ["--workers", "1" if place == "images" else "0", "--data", data_of(sets, "photos")]
    code, said = failed(place, rank, tmp_path / "run", *more)
    assert code == 1
    line = next(line for line in said.splitlines() if f"rank {rank} of 2 (process " in line)
    assert f"failed: {SAYS[place]}" in line or (" failed: " in line and SAYS[place] in line)
    assert f"rank {1 - rank} ends with it" in line


@pytest.fixture(scope="module")
def whole(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Records of runs that one process trains without an interruption."""
    found = {}
    for kind in ("photos", "shards"):
        run = tmp_path_factory.mktemp("whole") / kind
        words = ("train", "simsiam", *SMALL, "--workers", "0", "--data", data_of(sets, kind))
        assert call(*words, "--out", str(run)).code == 0
        found[kind] = records(run)
    return found


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(("kind", "end"), [("photos", "killed"), ("shards", "killed"), ("shards", "asked")])
def test_a_run_goes_on_with_another_number_of_processes_as_if_never_cut(
    kind: str, end: str, processes: int, sets: Path, whole: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, said = failed(end, 1, run, "--workers", "0", "--data", data_of(sets, kind))
    if end == "asked":
        assert code == 143 and said.count("stopped after step 6 of ") == 1
    else:
        assert code == 1 and "rank 1 of 2" in said and "died without a word" in said
    words = ["-m", "fullrank", "resume", str(run), "--devices", str(processes), "--quiet"]
    done = subprocess.run(
        [sys.executable, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = records(run), whole[kind]
    places = [[(record["event"], record["step"]) for record in found] for found in (ours, theirs)]
    assert places[0] == places[1]
    for our, their in zip(ours, theirs, strict=True):
        if their.get("loss") is not None:
            assert our["loss"] == pytest.approx(their["loss"], abs=2e-3)
