"""The profile of a step: its phases are the step, its operations are counted, its trace opens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fullrank.errors import UsageError
from fullrank.training.profile import PHASES, Profile, profile, reachable_rate
from training.test_loop import config


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(config(epochs=10), 3, tmp_path_factory.mktemp("profile"))


def test_every_phase_is_there_and_together_they_are_the_step(found: Profile) -> None:
    assert tuple(found.phases) == PHASES
    assert sum(found.phases.values()) == pytest.approx(found.step, rel=0.5)
    assert min(found.phases[name] for name in ("views", "forward", "backward", "optimiser")) > 0


def test_operations_are_those_of_both_views_forward_and_twice_that_backward(found: Profile) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from fullrank.images.opening import open_data
    from fullrank.networks.backbones import build_backbone

    size = open_data("shapes", limit=8).train.image_size
    assert size is not None
    network = build_backbone("resnet8-w16", 32).network
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(64, 3, *size))
    backbone = 3 * 2 * counter.get_total_flops()  # less what needs no gradient: the first layer's input
    assert 0.9 * backbone < found.flops < 1.2 * backbone


def test_the_floor_is_what_the_operations_take_at_the_rate_of_the_machine(found: Profile) -> None:
    assert found.floor == pytest.approx(found.flops / found.rate)
    assert found.rate > 1e8
    assert json.loads(json.dumps(found.as_dict()))["share_of_rate"] == pytest.approx(found.floor / found.step)


def test_the_trace_is_one_that_chrome_opens(found: Profile) -> None:
    events = json.loads(found.trace.read_text())["traceEvents"]
    assert any("conv" in str(event.get("name")) for event in events)


def test_more_steps_than_the_run_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the run has 6"):
        profile(config(), 5, tmp_path)


@pytest.mark.slow  # minutes on a CPU without bf16
def test_the_rate_of_another_precision_is_measured_too() -> None:
    assert reachable_rate(torch.device("cpu"), "bf16") > 1e8


@pytest.mark.slow
def test_the_tracer_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from fullrank.training.config import TrainConfig\n"
        "from fullrank.training.profile import profile\n"
        "config = TrainConfig(limit=64, batch_size=8, accelerator='cpu', backbone='resnet8-w16',"
        " views='shapes', options={'proj_output_dim': 32})\n"
        f"profile(config, 1, Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
