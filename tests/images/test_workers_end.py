"""A process that decoded with workers ends when its work does."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.helpers import save_images
from fullrank.images.loader import evaluation_batches
from fullrank.images.opening import open_data
from images.shard_writer import write_shards
from training.test_loop import Interrupted, run, stop_at

HELD = """
import sys
from fullrank.images.batch_loaders import CentreCrop, LazyLoader, Wanted
from fullrank.images.opening import open_data
import numpy as np
if __name__ == "__main__":
    source = open_data(sys.argv[1], memory_limit_bytes=0).train
    loader = LazyLoader(source, CentreCrop(8, 8), workers=2, replace_corrupt=True)
    plan = [Wanted(np.arange(2), 0, np.arange(2))] * 5
    batches = loader.load(plan)
    kept = [next(batches), loader, batches]
    kept.append(kept)  # in a circle, so that nothing but the end of the process collects it
    {ending}
"""


def workers() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.is_alive()]


def test_a_run_that_is_cut_leaves_no_workers_though_its_error_is_kept(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [40], labels=4)
    settings = {"data": f"shards:{tmp_path / 'shards'}", "limit": 0, "image_size": 16, "batch_size": 8}
    with pytest.raises(Interrupted) as kept:
        run(tmp_path / "run", [stop_at(2)], **settings, watch_images=8, knn_bank=8, workers=2)
    assert kept.value.__traceback__ and workers() == []


def test_images_that_are_read_once_leave_no_workers(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 12)
    source = open_data(str(tmp_path / "images"), memory_limit_bytes=0).train
    read = evaluation_batches(source, 4, image_size=8, workers=2)
    next(read)
    assert workers() != []
    assert sum(len(indices) for indices, _ in read) == len(source) - 4 and workers() == []


ENDINGS = {"its end": "print('done')", "an error": "raise SystemExit(7)", "a signal": "sys.exit(143)"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_still_holds_a_loader_ends_at(ending: str, tmp_path: Path) -> None:
    save_images(tmp_path / "images", 12)
    script = tmp_path / "script.py"
    script.write_text(HELD.replace("{ending}", ENDINGS[ending]))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "images")], capture_output=True, timeout=60
    )
    assert done.returncode == {"its end": 0, "an error": 7, "a signal": 143}[ending], done.stderr.decode()
