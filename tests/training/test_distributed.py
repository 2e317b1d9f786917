"""Two and three processes with a part of the batch each do what one process does with the whole batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank import methods
from fullrank.methods import METHODS
from methods.public_losses import ELSEWHERE, LOSSES, public_functions

WORKER = Path(__file__).parent / "gloo_worker.py"
WORLDS = (2, 3)
every_method = pytest.mark.parametrize("name", list(METHODS))
every_world = pytest.mark.parametrize("world", WORLDS)


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, processes: Callable[[Path, list[list[str]]], None]
) -> dict[int, list[dict[str, Any]]]:
    """What one process computes, each of two, and each of three."""
    folder = tmp_path_factory.mktemp("gloo")
    places = [(rank, world) for world in (1, *WORLDS) for rank in range(world)]
    outputs = {(rank, world): folder / f"{world}-{rank}.pt" for rank, world in places}
    processes(WORKER, [[str(r), str(w), str(folder / "meet"), str(outputs[r, w])] for r, w in places])
    found = {place: torch.load(output, weights_only=True) for place, output in outputs.items()}
    return {world: [found[rank, world] for rank in range(world)] for world in (1, *WORLDS)}


@every_world
@every_method
@pytest.mark.parametrize("what", ["losses", "gradients", "weights", "buffers", "panel"])
def test_several_processes_equal_one_over_four_steps_in_double_precision(
    results: dict[int, list[dict[str, Any]]], name: str, world: int, what: str
) -> None:
    whole = results[1][0][name][what]
    for one in results[world]:
        torch.testing.assert_close(one[name][what], whole, rtol=1e-6, atol=1e-9)


@every_world
@every_method
def test_the_first_step_in_single_precision_is_that_of_one_process(
    results: dict[int, list[dict[str, Any]]], name: str, world: int
) -> None:
    whole = results[1][0][name]["single"]
    scale = max(float(gradient.abs().max()) for gradient in whole["gradients"].values())
    for one in results[world]:
        torch.testing.assert_close(one[name]["single"]["loss"], whole["loss"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            one[name]["single"]["gradients"], whole["gradients"], rtol=1e-3, atol=1e-4 * scale
        )


@every_world
@pytest.mark.parametrize("name", LOSSES)
def test_a_public_loss_of_several_processes_is_that_of_one(
    results: dict[int, list[dict[str, Any]]], name: str, world: int
) -> None:
    whole = results[1][0][f"loss:{name}"]
    for one in results[world]:
        torch.testing.assert_close(one[f"loss:{name}"], whole, rtol=1e-6, atol=1e-9)


def test_every_public_loss_is_among_them() -> None:
    assert public_functions(methods) - ELSEWHERE.keys() == set(LOSSES)


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
