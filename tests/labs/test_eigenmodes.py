"""Eigenmodes: toys that are the paper's, arms that differ in what they are compared by, claims, a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullrank.jobs.job import Job
from fullrank.labs import LABS
from fullrank.labs._common.results import Result, Results
from fullrank.labs.eigenmodes import matrix, toys
from fullrank.labs.eigenmodes.deep import half_times
from fullrank.labs.eigenmodes.lab import Eigenmodes
from fullrank.labs.eigenmodes.toy_networks import convergence, figure_panels, simulate

NOTEBOOK = Path(__file__).parents[2] / "examples" / "eigenmodes.ipynb"

LAPTOP, PAPER, TINY = (Eigenmodes.presets[name] for name in ("laptop", "paper", "tiny"))


def flat(values: Any, under: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {under: values}
    return {key: value for name in values for key, value in flat(values[name], f"{under}.{name}").items()}


def different(one: Job, other: Job) -> set[str]:
    a, b = flat(one.config().as_dict()), flat(other.config().as_dict())
    return {key.strip(".") for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def jobs(preset: Any, part: str) -> dict[str, Job]:
    return {job.arm: job for job in LABS["eigenmodes"]().jobs(preset, part, 0)}


# toys


def test_seed_zero_is_the_published_seed_and_the_job_measures_what_the_toy_does() -> None:
    found = toys.panel("identity", 2, 0, "laptop", steps=100)
    toy = figure_panels("identity", "laptop", 2)[2]
    trained = simulate(type(toy)(**{**vars(toy), "steps": 100}))
    assert found["spread"] == convergence(trained).spread
    assert found["eigenvalues"][-1] == pytest.approx(trained.eigenvalues[-1], rel=1e-3)
    assert found["steps"][0] == 0 and found["steps"][-1] == 100
    assert np.shape(found["paths"]) == (20, 60, 2)


def test_figure_5_starts_once_from_twice_the_weights() -> None:
    starts = [run[0] for run in toys.two_neurons("euclidean", 0, "laptop", steps=5)["eigenvalues"]]
    assert np.array(starts[1]) == pytest.approx(4 * np.array(starts[0]), rel=1e-3)


def fake(arm: str, seed: int, **numbers: Any) -> Result:
    return Result("toys", arm, seed, Path("nowhere"), {"unfinished": 0, **numbers}, 1.0)


def test_the_claim_is_confirmed_where_isoloss_is_more_even_on_every_seed_and_not_where_it_never_is() -> None:
    for base, iso, verdict in ((1.0, 0.5, "confirmed"), (0.5, 1.0, "not confirmed")):
        found = [
            fake(f"{name}, cosine, ReLU", seed, spread=value)
            for name, value in (("DirectPred", base), ("IsoLoss", iso))
            for seed in (0, 1, 2)
        ]
        (claim,) = toys.claims(Results(found))
        assert claim.verdict == verdict and "cosine, ReLU" in claim.text


def test_every_panel_of_the_paper_is_a_job_and_the_paper_preset_has_its_steps() -> None:
    found = list(LABS["eigenmodes"]().jobs(PAPER, "toys", 0))
    assert len(found) == 2 * 8 + 2
    assert figure_panels("relu", PAPER["toys"]["preset"])[1].steps == 100_000


# deep networks


def test_directpred_and_isoloss_differ_in_nothing_but_the_method() -> None:
    for preset in (LAPTOP, PAPER):
        found = jobs(preset, "deep")
        for distance in ("euclidean", "cosine"):
            assert different(found[f"DirectPred, {distance}"], found[f"IsoLoss, {distance}"]) <= {
                "method", "options.eps_inside",
            }  # fmt: skip


def test_the_predictor_of_figure_4_is_linear_and_looked_at() -> None:
    for job in jobs(LAPTOP, "linear").values():
        assert job.config().options["predictor"] == "linear" and job.config().diagnostics_every == 3


def test_published_pairs_differ_in_optimiser_and_rate_and_matched_ones_in_the_average_alone() -> None:
    for preset in (LAPTOP, PAPER):
        found = jobs(preset, "matrix")
        assert len(found) == 16 and sum("matched" in arm for arm in found) == 6
        for name, method in matrix.METHODS.items():
            published = different(found[f"{name}, EMA"], found[f"{name}, no EMA"])
            assert {"optimizer", "lr", "options.tau_base"} <= published
            without = found.get(f"{name}, no EMA, matched", found[f"{name}, no EMA"])
            matched = different(found[f"{name}, EMA, matched"], without)
            used = {key for key in matched if not key.startswith("lars")}  # of no account under SGD
            assert used == {"options.tau_base", "options.tau_final"}, method


def test_half_of_an_exponential_way_is_gone_at_half_of_the_time_whatever_the_rate() -> None:
    epochs = np.arange(11)
    rates = np.array([0.5, -1.0, 2.0])
    assert half_times(epochs, np.exp(rates * epochs[:, None])) == pytest.approx([5.0, 5.0, 5.0])


def test_a_mode_that_jumps_at_once_and_one_that_jumps_late_are_told_apart() -> None:
    early = np.array([0.0, 2.0, 2.0, 2.0, 2.0])
    late = np.array([0.0, 0.0, 0.0, 0.0, 2.0])
    assert half_times(np.arange(5), np.exp(np.stack([early, late], axis=1))) == pytest.approx([0.5, 3.5])
