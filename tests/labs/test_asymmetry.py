"""The asymmetry lab: its diagnostics on tensors whose answer is known, and its arms on a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.jobs.job import Job
from fullrank.jobs.once import run_once
from fullrank.labs._common.results import finished
from fullrank.labs._common.selectors import knn_end
from fullrank.labs.asymmetry.halves import HALVES
from fullrank.labs.asymmetry.lab import Asymmetry
from fullrank.labs.asymmetry.measures import (
    encoding_variance,
    level_and_shape,
    seen_by_the_loss,
    softmax_use,
    variance_within,
)

TINY = Asymmetry.presets["tiny"]


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# diagnostics


def test_constant_rows_have_no_level_and_no_rank() -> None:
    found = level_and_shape(torch.full((64, 8), 0.3))
    assert (found["level"], found["centred_share"], found["rank"]) == (0.0, 0.0, None)
    assert found["singular_values_uncentred"][0] == pytest.approx(0.3 * 8**0.5)


def test_rows_of_rank_r_have_that_rank_and_a_full_level() -> None:
    found = level_and_shape(gaussian(4000, 4) @ torch.eye(4, 16, dtype=torch.float64))
    assert found["rank"] == pytest.approx(4, rel=0.01) and found["centred_share"] > 0.99


def test_a_large_mean_takes_the_level_but_not_the_rank() -> None:
    found = level_and_shape(gaussian(4000, 16) + 100.0)
    assert found["level"] < 0.02 and found["centred_share"] < 2e-4
    assert found["rank"] == pytest.approx(16, rel=0.02)
    assert found["singular_values_uncentred"][0] > 50 * found["singular_values"][0]


def test_one_answer_for_all_no_answer_and_as_many_answers_as_outputs_are_told_apart() -> None:
    one, none = torch.zeros(100, 8), torch.zeros(100, 8)
    one[:, 3] = 1e4
    many = 1e4 * torch.eye(8).repeat(10, 1)
    assert softmax_use(one) == {"marginal": 0.0, "conditional": 0.0, "information": 0.0}
    assert softmax_use(none) == pytest.approx({"marginal": 1.0, "conditional": 1.0, "information": 0.0})
    assert softmax_use(many) == pytest.approx({"marginal": 1.0, "conditional": 0.0, "information": 1.0})


def test_views_that_agree_have_no_variance_and_unrelated_ones_all_but_a_share_of_one_over_their_number() -> (
    None
):
    rows = gaussian(500, 64)
    assert variance_within(torch.stack([rows, 3.0 * rows])) == pytest.approx(0.0, abs=1e-12)
    unrelated = torch.stack([gaussian(500, 64, seed) for seed in range(8)])
    assert variance_within(unrelated) == pytest.approx(1 - 1 / 8, abs=0.01)


# arms


def job(part: str, arm: str, **settings: Any) -> Job:
    found = next(c for c in Asymmetry().jobs(TINY, part, 0) if c.arm == arm)
    return Job(arm, 0, {**found.train, **settings}, found.measure, part=part)


def ran(job: Job, out: Path) -> Any:
    assert run_once([job], out, at_once=1) == {}
    return finished(job, out)


def test_a_frozen_teachers_measures_are_the_same_to_the_last_bit_and_a_copied_ones_are_not(
    tmp_path: Path,
) -> None:
    frozen = ran(job("tutorial-fixed", "B: teacher frozen"), tmp_path)
    copied = ran(job("tutorial-fixed", "C: teacher copied"), tmp_path)
    for result, constant in ((frozen, True), (copied, False)):
        panels = [row.panels["target"]["measures"] for row in result.run.epochs]
        assert len(panels) == 3 and all(panel == panels[0] for panel in panels) is constant
    assert copied.numbers["trained distance"] == 0.0 < frozen.numbers["trained distance"]
    assert frozen.numbers["trained teacher"] == frozen.numbers["untrained teacher"]


def test_what_the_loss_sees_is_measured_before_and_after_training(tmp_path: Path) -> None:
    result = ran(job("tutorial-fixed", "A: both trained"), tmp_path)
    again = seen_by_the_loss(result.folder / "run")
    assert again == result.numbers
    assert result.numbers["trained student"] != result.numbers["untrained student"]
    spectrum = result.numbers["trained student"]["tokens"]
    assert len(spectrum["centred"]) == 16 and spectrum["uncentred"][0] >= spectrum["centred"][0]


def test_views_that_do_not_vary_have_no_variance_on_either_side(tmp_path: Path) -> None:
    result = ran(job("asym-siam", "baseline", views="none"), tmp_path)
    assert encoding_variance(result.folder / "run") == pytest.approx({"source": 0.0, "target": 0.0}, abs=1e-9)


def test_a_design_makes_its_own_side_vary_more_and_its_mirror_image_the_other(tmp_path: Path) -> None:
    ratios = {}
    for arm in ("aug, as published", "aug, mirrored"):
        numbers = ran(job("asym-siam", arm), tmp_path).numbers
        ratios[arm] = numbers["source"] / numbers["target"]
    assert ratios["aug, as published"] > ratios["aug, mirrored"]


def test_the_four_halves_have_the_options_that_their_names_say() -> None:
    for found in Asymmetry().jobs(TINY, "simsiam-2x2", 0):
        options = found.config().options
        assert (options["stop_gradient"], options["predictor"] == "mlp") == HALVES[found.arm]


@pytest.mark.slow
def test_two_trained_networks_come_to_one_answer_and_an_averaged_centred_teacher_does_not(
    tmp_path: Path,
) -> None:
    laptop = Asymmetry.presets["laptop"]
    found = {c.arm: c for c in Asymmetry().jobs(laptop, "tutorial-fixed", 0)}
    both = ran(found["A: both trained"], tmp_path)
    held = ran(found["E: averaged, centred, sharpened"], tmp_path)
    use, level = both.numbers["trained student"]["use"], both.numbers["trained student"]["logits"]["level"]
    assert level < 0.1 or use["marginal"] < 0.05
    assert held.verdict == "healthy" and (knn_end(held) or 0.0) > (knn_end(both) or 1.0)
