"""Two processes with half the batch each do what one process does with the whole batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.methods import METHODS

WORKER = Path(__file__).parent / "gloo_worker.py"


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, processes: Callable[[Path, list[list[str]]], None]
) -> list[dict[str, Any]]:
    """What one process computes, then each of two."""
    folder = tmp_path_factory.mktemp("gloo")
    places = [(0, 1), (0, 2), (1, 2)]
    outputs = [folder / f"{world}-{rank}.pt" for rank, world in places]
    calls = [
        [str(rank), str(world), str(folder / "meet"), str(output)]
        for (rank, world), output in zip(places, outputs, strict=True)
    ]
    processes(WORKER, calls)
    return [torch.load(output, weights_only=True) for output in outputs]


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("what", ["loss", "gradients", "buffers", "panel"])
def test_two_processes_equal_one(results: list[dict[str, Any]], name: str, what: str) -> None:
    one, *two = (result[name][what] for result in results)
    for other in two:
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_a_run_on_two_processes_logs_what_one_logs(tmp_path: Path) -> None:
    words = ["train", "simsiam", "--data", "shapes", "--limit", "256", "--batch-size", "64", "--epochs", "1"]
    words += ["--accelerator", "cpu", "--quiet", "--backbone", "resnet8-w16", "--level-every", "1"]
    words += ["--options.proj-output-dim", "32", "--options.pred-hidden-dim", "8"]
    records = []
    for count in (1, 2):
        out = tmp_path / str(count)
        launcher = [] if count == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        run = ["-m", "fullrank", *words, "--devices", str(count), "--out", str(out)]
        done = subprocess.run([sys.executable, *launcher, *run], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        records.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    for one, two in zip(*records, strict=True):
        assert one["event"] == two["event"]
        if one.get("loss") is not None:
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        if one["event"] == "epoch" and one["epoch"] == 0:  # before single precision drifts apart
            for tap, panel in one["panels"].items():
                for name, measure in panel["measures"].items():
                    other = two["panels"][tap]["measures"][name]["value"]
                    assert other == pytest.approx(measure["value"], rel=1e-6), (tap, name)
