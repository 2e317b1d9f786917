"""Toy networks: closed forms of their dynamics, what each setting shows, how evenly modes converge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.errors import UsageError
from fullrank.labs.eigenmodes.toy_networks import (
    Toy,
    Trajectory,
    convergence,
    figure_5,
    figure_panels,
    largest_probes,
    simulate,
)
from fullrank.labs.eigenmodes.toy_steps import (
    SETTINGS,
    Setting,
    closed_form_predictor,
    exact_descent,
    predictor_from_samples,
    reference_descent,
)

BASE, ISO = Setting("base", "euclidean"), Setting("iso", "euclidean")
LAMBDA = torch.tensor([0.04, 0.1, 0.3, 0.8], dtype=torch.float64)


def weights_with(eigenvalues: torch.Tensor, in_dim: int = 6) -> torch.Tensor:
    """[out, in] with these eigenvalues of W W^T, in directions of no particular order."""
    generator = torch.Generator().manual_seed(0)
    n = len(eigenvalues)
    U: torch.Tensor = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    V: torch.Tensor = torch.linalg.qr(torch.randn(in_dim, n, generator=generator, dtype=torch.float64)).Q
    return (U * eigenvalues.sqrt()) @ V.mT


def expected_trajectory(setting: Setting, lr: float, steps: int, alpha: float = 1.0) -> np.ndarray:
    """Eigenvalues when every step is the expected one: inputs whose second moment is exactly I, no noise."""
    W = weights_with(LAMBDA)
    X = torch.eye(6, dtype=torch.float64) * 6**0.5
    rows = []
    for _ in range(steps + 1):
        rows.append(torch.linalg.eigvalsh(W @ W.T))
        W = W + lr * reference_descent(setting, W, X, X, closed_form_predictor(W, alpha))
    return torch.stack(rows).numpy()


def relative_speed(setting: Setting, alpha: float = 1.0) -> np.ndarray:
    """Of each mode, per unit of time: lambda' / (lambda (1 - lambda^alpha))."""
    start, after = expected_trajectory(setting, 1e-6, 1, alpha)
    return np.asarray((after - start) / 1e-6 / (start * (1 - start**alpha)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_rate_of_a_mode_is_the_predictors_eigenvalue_and_one_for_all_under_isoloss(alpha: float) -> None:
    assert relative_speed(BASE, alpha) == pytest.approx(2 * LAMBDA.numpy() ** alpha, rel=1e-5)
    assert relative_speed(ISO, alpha) == pytest.approx(np.full(4, 2.0), rel=1e-5)


def test_eigenvalues_under_isoloss_are_logistic() -> None:
    seen = expected_trajectory(ISO, lr=1e-3, steps=2000)
    t = 1e-3 * np.arange(2001)[:, None]
    logistic = 1 / (1 + (1 / seen[0] - 1) * np.exp(-2 * t))
    assert np.abs(seen - logistic).max() < 1e-3


def test_eigenvalues_with_a_predictor_follow_their_own_closed_form() -> None:
    """lambda' = 2 lambda^2 (1 - lambda): `ln(lambda / (1 - lambda)) - 1 / lambda` grows by 2 t."""
    seen = expected_trajectory(BASE, lr=1e-3, steps=2000)
    integral = np.log(seen / (1 - seen)) - 1 / seen
    assert integral[-1] - integral[0] == pytest.approx(np.full(4, 4.0), rel=5e-3)


def test_without_a_stop_gradient_every_mode_decays_and_without_a_predictor_and_noise_nothing_moves() -> None:
    """lambda' = -2 lambda (1 - lambda)^2, and 0."""
    start, after = expected_trajectory(Setting("nosg", "euclidean"), 1e-6, 1)
    assert (after - start) / 1e-6 == pytest.approx(-2 * start * (1 - start) ** 2, rel=1e-5)
    start, after = expected_trajectory(Setting("nopred", "euclidean"), 1e-2, 100)[[0, -1]]
    assert start.tolist() == after.tolist()


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def descents(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    W, X1 = 0.5 * gaussian(4, 6, seed=1), gaussian(6, 64, seed=2)
    X2 = X1 + 0.1 * gaussian(6, 64, seed=3)
    arguments = (setting, W, X1, X2, closed_form_predictor(W))
    return reference_descent(*arguments), exact_descent(*arguments)


@pytest.mark.parametrize("setting", [*SETTINGS, Setting("base", "euclidean", "relu")], ids=str)
def test_the_formulas_are_gradients_but_for_the_guard_and_the_named_approximations(setting: Setting) -> None:
    reference, exact = descents(setting)
    off = (reference - exact).norm() / exact.norm()
    assert off > 0.05 if str(setting) in ("nosg cosine", "base euclidean relu") else off < 1e-5


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_predictor_times_the_direction_of_isoloss_is_that_of_base(distance: Any) -> None:
    W, X1 = 0.5 * gaussian(4, 6, seed=1), gaussian(6, 64, seed=2)
    X2 = X1 + 0.1 * gaussian(6, 64, seed=3)
    Wp = closed_form_predictor(W)
    base, iso = (reference_descent(Setting(arm, distance), W, X1, X2, Wp) for arm in ("base", "iso"))
    assert torch.allclose(Wp @ iso, base, rtol=1e-10)


def test_the_closed_form_predictor_is_the_power_of_the_second_moment() -> None:
    W = 0.5 * gaussian(3, 6)
    assert torch.allclose(closed_form_predictor(W), W @ W.T)
    half = closed_form_predictor(W, alpha=0.5)
    assert torch.allclose(half @ half, W @ W.T)


def test_the_predictor_from_samples_approaches_the_closed_form() -> None:
    W, X = 0.5 * gaussian(3, 6), gaussian(6, 200_000, seed=1)
    Z1, Z2 = (W @ (X + 0.1 * gaussian(6, 200_000, seed=seed)) for seed in (2, 3))
    assert torch.allclose(predictor_from_samples(Z1, Z2), closed_form_predictor(W), atol=0.01)


def test_complex_eigenvalues_are_refused() -> None:
    rotated = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    with pytest.raises(UsageError, match="complex eigenvalues; use more samples"):
        predictor_from_samples(torch.eye(2), rotated)


def quick(arm: Any, distance: Any = "euclidean", **changes: Any) -> Trajectory:
    options = {"in_dim": 6, "out_dim": 2, "lr": 0.05, "steps": 300, "samples": 500} | changes
    return simulate(Toy(Setting(arm, distance), **options))


def test_no_stop_gradient_collapses_and_the_others_do_not() -> None:
    ends = {arm: quick(arm).eigenvalues[-1] for arm in ("nosg", "nopred", "base", "iso")}
    starts = quick("base").eigenvalues[0]
    assert ends["nosg"].max() < 0.02
    assert ends["nopred"] == pytest.approx(starts, rel=0.1)
    assert ends["iso"] == pytest.approx([1, 1], abs=0.02)
    assert ends["base"] == pytest.approx([1, 1], abs=0.02)


def test_the_cosine_makes_modes_equal_and_keeps_their_sum() -> None:
    trajectory = quick("iso", "cosine", lr=0.01, samples=2000)
    assert trajectory.eigenvalues[0, 0] > 2 * trajectory.eigenvalues[0, 1]
    assert trajectory.eigenvalues[-1, 0] == pytest.approx(trajectory.eigenvalues[-1, 1], rel=0.05)
    assert trajectory.eigenvalues[-1].sum() == pytest.approx(trajectory.eigenvalues[0].sum(), rel=0.3)


def test_weight_decay_lowers_where_the_modes_end() -> None:
    """lambda' = 2 lambda (1 - lambda) - 2 w lambda ends at 1 - w."""
    assert quick("iso", weight_decay=0.2).eigenvalues[-1] == pytest.approx([0.8, 0.8], abs=0.03)


def test_a_predictor_from_samples_gives_nearly_the_same_trajectory() -> None:
    options = {"samples": 20_000, "steps": 60}
    closed, sampled = quick("iso", **options), quick("iso", predictor="samples", **options)
    assert sampled.eigenvalues == pytest.approx(closed.eigenvalues, abs=0.03)


def test_the_published_relu_without_predictor_never_moves_and_the_exact_one_does() -> None:
    setting = Setting("nopred", "cosine", "relu")
    toy = Toy(setting, in_dim=6, out_dim=2, lr=0.1, steps=20, samples=200)
    published, exact = simulate(toy), simulate(replace(toy, gradient="exact"))
    assert (published.eigenvalues == published.eigenvalues[0]).all()
    assert (exact.eigenvalues[-1] != exact.eigenvalues[0]).all()


def test_a_network_that_diverges_stops_there_and_says_so() -> None:
    trajectory = quick("base", lr=1e4)
    assert trajectory.diverged
    assert len(trajectory.steps) < 300
    assert np.isfinite(trajectory.eigenvalues).all()


def test_a_trajectory_records_what_was_asked_for_and_repeats() -> None:
    toy = Toy(ISO, in_dim=6, out_dim=2, steps=25, samples=50, record_every=10)
    W = toy.initial_weights()
    probes = largest_probes(W, count=3)
    first, again = simulate(toy, probes=probes), simulate(toy, probes=probes)
    assert first.steps.tolist() == [0, 10, 20, 25]
    assert first.eigenvalues.shape == (4, 2)
    assert (np.diff(first.eigenvalues, axis=1) <= 0).all()
    assert first.outputs[0] == pytest.approx((W @ probes).T.numpy())
    assert (first.outputs == again.outputs).all()
    assert (first.eigenvalues[1:] != simulate(replace(toy, seed=3), W).eigenvalues[1:]).all()


def test_probes_are_those_of_the_largest_norm() -> None:
    probes = largest_probes(torch.ones(2, 6), count=20, drawn=5000, seed=0)
    drawn = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    assert probes.norm(dim=0).min() == drawn.norm(dim=0).sort().values[-20]


def test_the_presets_hold_the_published_settings() -> None:
    for activation in ("identity", "relu"):
        toys = {str(replace(t.setting, activation="identity")): t for t in figure_panels(activation, "paper")}
        assert list(toys) == [str(s) for s in SETTINGS]
        assert {t.setting.activation for t in toys.values()} == {activation}
        assert {(t.in_dim, t.out_dim, t.samples, t.seed) for t in toys.values()} == {(15, 10, 50_000, 2)}
        at_a_hundredth = {name for name, t in toys.items() if t.lr == 0.01}
        assert at_a_hundredth == {"nosg euclidean", "base euclidean", "iso euclidean"}
        assert {t.lr for t in toys.values()} == {0.01, 0.1}
        assert [t.steps for t in toys.values()] == [1500, 100_000, 1500, 1500] * 2
    pairs = list(figure_5("paper"))
    assert [toy.setting.distance for toy, _ in pairs] == ["euclidean"] * 3 + ["cosine"] * 3
    assert {(t.in_dim, t.out_dim, t.lr, t.steps, t.samples) for t, _ in pairs} == {(6, 2, 0.01, 1500, 50_000)}
    assert torch.equal(pairs[1][1], 2 * pairs[0][1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps of a toy network must be at least 1"),
        ({"lr": -1.0}, "lr .* must not be negative"),
    ],
)
def test_a_toy_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Toy(ISO, **changes)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"weights of shape \[2, 6\] do not fit 15 inputs and 10 outputs"):
        simulate(Toy(ISO), torch.zeros(2, 6))


# how evenly the modes converge


def recorded(eigenvalues: np.ndarray, setting: Setting = ISO) -> Trajectory:
    none = np.empty((len(eigenvalues), 0, eigenvalues.shape[1]))
    return Trajectory(Toy(setting), np.arange(len(eigenvalues)), eigenvalues, none, False)


def test_half_way_is_where_the_closed_form_has_it() -> None:
    """Logistic modes are half way to 1 at t = ln(1 + 1 / lambda_0) / 2."""
    start = np.array([0.5, 0.1, 0.01])
    t = 0.01 * np.arange(1000)[:, None]
    measured = convergence(recorded(1 / (1 + (1 / start - 1) * np.exp(-2 * t))))
    expected = 100 * np.log(1 + 1 / start) / 2
    assert measured.steps == pytest.approx(expected, abs=1)
    assert measured.unfinished == 0
    assert measured.spread == pytest.approx(np.log(expected).std(), abs=0.01)


def test_modes_of_one_exponential_rate_have_no_spread() -> None:
    start = np.array([3.0, 0.5, 0.1])
    t = 0.01 * np.arange(1000)[:, None]
    assert convergence(recorded(1 + (start - 1) * np.exp(-t))).spread == pytest.approx(0, abs=0.01)


def test_unfinished_modes_and_those_without_a_way_to_go_are_told_apart() -> None:
    eigenvalues = np.array([[1.0, 0.5, 0.1]] * 5)
    eigenvalues[2:, 1] = 0.9
    measured = convergence(recorded(eigenvalues))
    assert np.isnan(measured.steps[0])
    assert measured.steps[1:].tolist() == [2, 4]
    assert measured.unfinished == 1


def test_what_gives_no_convergence_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="every mode began where it ends"):
        convergence(recorded(np.ones((3, 2))))
    with pytest.raises(UsageError, match="share of the way lies between 0 and 1, not 1"):
        convergence(recorded(np.zeros((3, 2))), share=1.0)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_modes_of_isoloss_converge_at_more_equal_rates(distance: Any, seed: int) -> None:
    toy = Toy(Setting("base", distance), lr=0.1, steps=1000, samples=500, seed=seed)
    base, iso = (
        convergence(simulate(replace(toy, setting=Setting(arm, distance)))) for arm in ("base", "iso")
    )
    assert iso.unfinished == 0
    assert iso.spread < 0.75 * base.spread
