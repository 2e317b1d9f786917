"""Two and three processes with a part of the batch each do what one process does with the whole batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank import methods
from fullrank.methods import METHODS
from methods.public_losses import ELSEWHERE, LOSSES, public_functions
from processes import printed_together

WORKER = Path(__file__).parent / "gloo_worker.py"
every_method = pytest.mark.parametrize("name", list(METHODS))


def found_by(world: int, folder: Path) -> list[dict[str, Any]]:
    """What each of `world` processes computes, by rank."""
    outputs = [folder / f"{rank}.pt" for rank in range(world)]
    calls = [[str(rank), str(world), str(folder / "meet"), str(path)] for rank, path in enumerate(outputs)]
    printed_together(WORKER, calls)
    return [torch.load(path, weights_only=True) for path in outputs]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return found_by(1, tmp_path_factory.mktemp("one"))[0]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return found_by(request.param, tmp_path_factory.mktemp("several"))


@every_method
@pytest.mark.parametrize("what", ["losses", "gradients", "weights", "buffers", "panel"])
def test_several_processes_equal_one_over_four_steps_in_double_precision(
    one: dict[str, Any], several: list[dict[str, Any]], name: str, what: str
) -> None:
    for each in several:
        torch.testing.assert_close(each[name][what], one[name][what], rtol=1e-6, atol=1e-9)


@every_method
def test_the_first_step_in_single_precision_is_that_of_one_process(
    one: dict[str, Any], several: list[dict[str, Any]], name: str
) -> None:
    whole = one[name]["single"]
    scale = max(float(gradient.abs().max()) for gradient in whole["gradients"].values())
    for each in several:
        torch.testing.assert_close(each[name]["single"]["loss"], whole["loss"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            each[name]["single"]["gradients"], whole["gradients"], rtol=1e-3, atol=1e-4 * scale
        )


@pytest.mark.parametrize("name", LOSSES)
def test_a_public_loss_of_several_processes_is_that_of_one(
    one: dict[str, Any], several: list[dict[str, Any]], name: str
) -> None:
    for each in several:
        torch.testing.assert_close(each[f"loss:{name}"], one[f"loss:{name}"], rtol=1e-6, atol=1e-9)


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
