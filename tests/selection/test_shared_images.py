"""Held-out images of runs of several seeds: none that a run trained on, where there are enough."""

from __future__ import annotations

import numpy as np
import pytest

from fullrank.encoders.runs import own_data
from fullrank.selection.shared_images import held_out_of_all
from fullrank.training.config import TrainConfig


def seeds(limit: int) -> list[TrainConfig]:
    return [TrainConfig(data="shapes", limit=limit, seed=seed) for seed in (0, 1)]


@pytest.mark.parametrize("limit", [0, 3000])
def test_images_that_every_run_held_out_are_taken_where_there_are_enough(limit: int) -> None:
    found = held_out_of_all(seeds(limit), 40).held_out
    for config in seeds(limit):
        own = {image.numpy().tobytes() for image in map(own_data(config).held_out.load, _all(config))}
        assert {found.load(i).numpy().tobytes() for i in range(len(found))} <= own


def test_too_few_of_them_are_no_choice_and_the_first_runs_images_come_with_a_word() -> None:
    found = held_out_of_all(seeds(20), 40)
    assert len(found.held_out) == 20 and "may have trained on them" in found.notes[-1]


def _all(config: TrainConfig) -> list[int]:
    return np.arange(len(own_data(config).held_out)).tolist()
