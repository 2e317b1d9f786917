"""Linear networks under a contrastive loss: gradients, spectra, and the table of what collapses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.labs._common.results import Result, Results
from fullrank.labs.contrastive_toys import toys as contrastive_toys
from fullrank.labs.contrastive_toys.lab import ContrastiveToys, trained_toy
from fullrank.labs.contrastive_toys.toys import (
    ContrastiveToy,
    implicit_regularisation,
    live_dimensions,
    strong_augmentation,
    train_contrastive,
)

LAPTOP, PAPER = ContrastiveToys.presets["laptop"], ContrastiveToys.presets["paper"]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("subvector", [0, 3])
def test_the_written_out_gradients_are_those_of_differentiation(layers: int, subvector: int) -> None:
    toy = ContrastiveToy(layers=layers, dim=5, noisy_dims=5, subvector=subvector)
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((5, 5)) for _ in range(layers)]
    x1 = rng.standard_normal((12, 5))
    x2 = x1 + 0.1 * rng.standard_normal((12, 5))
    ours = contrastive_toys._gradients(weights, x1, x2, toy)  # type: ignore[arg-type]

    parameters = [torch.tensor(W, requires_grad=True) for W in weights]
    z1, z2 = torch.tensor(x1), torch.tensor(x2)
    for W in parameters:
        z1, z2 = z1 @ W.T, z2 @ W.T
    seen = subvector or 5
    logits = z1[:, :seen] @ z2[:, :seen].T / 0.1
    F.cross_entropy(logits, torch.arange(12)).backward()
    for gradient, parameter in zip(ours, parameters, strict=True):
        assert gradient == pytest.approx(parameter.grad.numpy(), rel=1e-4, abs=1e-5)  # type: ignore[union-attr]


def test_the_spectrum_is_that_of_the_covariance_of_fresh_points() -> None:
    toy = ContrastiveToy(layers=2, dim=4, noisy_dims=4, steps=1, lr=0.0, seed=3)
    found = train_contrastive(toy).log_spectra[0]
    rng = np.random.default_rng(3)
    rng.standard_normal((toy.points, 4), dtype=np.float32)
    first, second = (rng.uniform(-1, 1, (4, 4)) / 2 for _ in range(2))
    z = np.random.default_rng([3, 1]).standard_normal((1000, 4)) @ first.T @ second.T
    assert found == pytest.approx(np.log(np.linalg.svd(np.cov(z.T), compute_uv=False)), abs=1e-4)


def test_a_decaying_start_decays_as_it_says() -> None:
    toy = replace(implicit_regularisation(1), steps=1, lr=0.0)
    spectrum = train_contrastive(toy).log_spectra[0]
    assert np.diff(spectrum) == pytest.approx(np.full(15, -0.7), abs=0.25)  # of variances: twice 0.35


def test_live_dimensions_are_those_near_the_largest() -> None:
    assert live_dimensions(np.array([0.0, -1.49, -1.51])) == 2
    assert live_dimensions(np.array([-3.0, -3.0])) == 2
    assert live_dimensions(np.array([0.0, -1.0, -2.5]), margin=3.0) == 3


def test_noise_alone_decides_which_directions_die() -> None:
    """The same network, as long as it takes to see it; noise on half the coordinates."""
    toys = [replace(strong_augmentation(a), lr=1e-2, steps=1000) for a in (0.01, 1.5)]
    weak, strong = (train_contrastive(toy) for toy in toys)
    assert (weak.live[-1], strong.live[-1]) == (16, 8)


def test_a_loss_of_a_subvector_leaves_the_other_outputs_as_they_were() -> None:
    toy = replace(strong_augmentation(1.5), subvector=4, steps=3)
    before, after = (contrastive_weights(t) for t in (replace(toy, lr=0.0), replace(toy, lr=0.1)))
    assert (before[4:] == after[4:]).all()
    assert (before[:4] != after[:4]).any(axis=1).all()


def contrastive_weights(toy: ContrastiveToy) -> np.ndarray:
    """The one layer of a toy after training, from the outside: its outputs of the unit vectors."""
    seen: list[np.ndarray] = []
    real = contrastive_toys._log_spectrum

    def keep(weights: Any, fresh: Any) -> Any:
        seen.append(weights[0])
        return real(weights, fresh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive_toys, "_log_spectrum", keep)
        train_contrastive(toy)
    return seen[-1]


def test_a_trajectory_records_what_was_asked_for_and_repeats() -> None:
    toy = ContrastiveToy(steps=25, record_every=10)
    first, again, other = (train_contrastive(t) for t in (toy, toy, replace(toy, seed=1)))
    assert first.steps.tolist() == [0, 10, 20, 25]
    assert first.log_spectra.shape == (4, 16)
    assert (first.log_spectra == again.log_spectra).all()
    assert (first.log_spectra != other.log_spectra).any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": 0}, "layers of a contrastive toy must be at least 1, not 0"),
        ({"noisy_dims": 17}, "noisy_dims of a contrastive toy lies in 0 to 16, not 17"),
        ({"temperature": 0.0}, "temperature > 0"),
    ],
)
def test_a_toy_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ContrastiveToy(**changes)


# the lab


def test_a_job_trains_the_toy_that_its_arguments_name() -> None:
    toy = ContrastiveToy(dim=6, noisy_dims=2, noise=0.5, steps=20, record_every=10, seed=3)
    found, trained = trained_toy(vars(toy)), train_contrastive(toy)
    assert found["steps"] == [0, 10, 20] and found["live"] == trained.live.tolist()
    assert np.array(found["log_spectra"]) == pytest.approx(trained.log_spectra, abs=1e-4)


TABLE = {
    **{f"noise {noise:g}": strong_augmentation(noise) for noise in (0.01, 1.5)},
    "2 layers, decaying start": implicit_regularisation(2),
    "3 layers, decaying start": implicit_regularisation(3),
    "2 layers, uniform start": implicit_regularisation(2, "uniform"),
}


def test_the_published_sizes_are_in_every_preset_but_the_smallest() -> None:
    for preset in (LAPTOP, PAPER):
        for part in ("augmentation", "layers"):
            for job in ContrastiveToys().jobs(preset, part, 0):
                toy = ContrastiveToy(**job.arguments["toy"])
                assert (toy.steps, toy.dim, toy.batch_size, toy.points) == (10_000, 16, 128, 10_000)
                assert toy.lr == (1e-3 if part == "augmentation" else 1e-2)
                assert toy == TABLE.get(job.arm, toy)


def test_the_paper_contrasts_360_of_2048_channels_among_others() -> None:
    found = [job.config() for job in ContrastiveToys().jobs(PAPER, "directclr", 0)]
    assert any((c.options["num_channels"], c.batch_size, c.epochs) == (360, 4096, 100) for c in found)


def ended(arm: str, seed: int, live: int) -> Result:
    spectrum = [-1.0] * live + [-9.0] * (16 - live)
    numbers = {"steps": [0, 1], "live": [16, live], "log_spectra": [[-1.0] * 16, spectrum]}
    return Result("augmentation", arm, seed, Path("nowhere"), numbers, 1.0)


@pytest.mark.parametrize(("at_one", "at_half", "verdict"), [(8, 16, "confirmed"), (8, 15, "not confirmed")])
def test_the_first_amplitude_that_costs_a_direction_is_found(at_one: int, at_half: int, verdict: str) -> None:
    lives = {"noise 0.01": 16, "noise 0.5": at_half, "noise 1": at_one, "noise 1.5": 8}
    results = Results([ended(arm, seed, live) for seed in (0, 1) for arm, live in lives.items()])
    findings = ContrastiveToys().analyse(results, LAPTOP)
    assert findings.claims[-1].verdict == verdict
    assert findings.claims[-1].numbers["onsets"] == [1.0 if at_half == 16 else 0.5] * 2
    assert [claim.verdict for claim in findings.claims[:2]] == ["confirmed"] * 2


# the table of the literature: 10,000 steps each

SEEDS = [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_weak_augmentation_leaves_one_layer_flat(seed: int) -> None:
    spectrum = train_contrastive(strong_augmentation(0.01, seed)).log_spectra[-1]
    assert (spectrum[0], spectrum[-1]) == pytest.approx((-1.45, -1.99), abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_strong_augmentation_all_but_kills_the_directions_that_it_blurs(seed: int) -> None:
    trajectory = train_contrastive(strong_augmentation(1.5, seed))
    spectrum = trajectory.log_spectra[-1]
    assert (spectrum[0], spectrum[7]) == pytest.approx((-1.8, -2.1), abs=0.15)
    assert (spectrum[8], spectrum[15]) == pytest.approx((-4.4, -4.8), abs=0.15)
    at_a_fifth = trajectory.log_spectra[trajectory.steps == 2000][0]
    assert spectrum == pytest.approx(at_a_fifth, abs=0.2)  # a floor, not a fall


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("layers", "live"), [(1, 16), (2, 13), (3, 7)])
def test_deeper_networks_keep_fewer_directions(layers: int, live: int, seed: int) -> None:
    spectrum = train_contrastive(implicit_regularisation(layers, "decaying", seed)).log_spectra[-1]
    assert live_dimensions(spectrum) == pytest.approx(live, abs=min(seed, 1))
    assert (spectrum[live + 1 :] < -8).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_two_layers_from_uniform_weights_stay_flat_but_for_one_direction_at_most(seed: int) -> None:
    spectrum = train_contrastive(implicit_regularisation(2, "uniform", seed)).log_spectra[-1]
    assert live_dimensions(spectrum) >= 15
