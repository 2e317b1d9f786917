"""Panels beside the step with several processes: the records of panels between epochs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def epochs(folder: Path, panels: str) -> list[dict[str, Any]]:
    """Records of the epochs of a run of two processes."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "fullrank", "train", "simsiam", "--data", "shapes", "--backbone", "resnet8-w4"]
    words += [
        "--epochs",
        "2",
        "--limit",
        "128",
        "--batch-size",
        "32",
        "--watch-every",
        "1",
        "--accelerator",
        "cpu",
    ]
    words += ["--panels", panels, "--out", str(folder / panels)]
    done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (folder / panels / "metrics.jsonl").read_text().splitlines()
    return [record for line in lines if (record := json.loads(line))["event"] == "epoch"]


@pytest.mark.slow
def test_panels_beside_the_steps_of_two_processes_are_those_between_epochs(tmp_path: Path) -> None:
    between, beside = epochs(tmp_path, "between"), epochs(tmp_path, "beside")
    assert len(between) == len(beside) == 3
    for one, other in zip(between, beside, strict=True):
        assert other["panels"] == one["panels"] and other["verdict"] == one["verdict"]
        assert other.get("knn") == one.get("knn") and other["loss"] == one["loss"]
