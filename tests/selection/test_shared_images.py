"""Held-out images of runs of several seeds: none that a run trained on, where there are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullrank.encoders.runs import own_data
from fullrank.errors import UnknownNameError
from fullrank.options import PickOptions
from fullrank.selection.candidates import Candidate
from fullrank.selection.measuring import choose_images
from fullrank.selection.shared_images import held_out_of_all
from fullrank.training.config import TrainConfig
from fullrank.training.run_dir import RunDir


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


@pytest.mark.parametrize("views", [("shapes", "digits", "digits"), ("digits", "shapes", "digits")])
def test_runs_that_were_trained_on_different_views_are_compared_by_the_most_frequent_ones(
    tmp_path: Path, views: tuple[str, ...]
) -> None:
    runs = [
        RunDir.create(tmp_path / str(place), TrainConfig(data="shapes", limit=100, image_size=16, views=each))
        for place, each in enumerate(views)
    ]
    candidates = [Candidate(str(place), str(run.path), run) for place, run in enumerate(runs)]
    found = choose_images(candidates, PickOptions(images=20))
    assert found.preset == "digits" and "all are compared by digits" in found.notes[-1]
    assert choose_images(candidates, PickOptions(images=20, view_preset="simsiam")).preset == "simsiam"
    assert choose_images(candidates[:1], PickOptions(images=20)).preset == views[0]


def test_views_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", TrainConfig(data="shapes", limit=100, image_size=16))
    with pytest.raises(UnknownNameError, match="digitz"):
        choose_images([Candidate("run", str(run.path), run)], PickOptions(images=20, view_preset="digitz"))


def _all(config: TrainConfig) -> list[int]:
    return np.arange(len(own_data(config).held_out)).tolist()
