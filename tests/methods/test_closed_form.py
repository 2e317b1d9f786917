"""DirectPred, DirectCopy and IsoLoss: the correlation, the predictor written down from it, the gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fullrank.errors import FullrankError, UsageError
from fullrank.methods._closed_form import ClosedFormMethod
from fullrank.networks.correlation import (
    averaged_correlation,
    copied_predictor,
    largest_eigenvalue,
    spectral_predictor,
)
from methods.shrunk import method, views

METHODS = ["directpred", "directcopy", "isoloss"]
every_method = pytest.mark.parametrize("name", METHODS)


def rows(seed: int, n: int = 24, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation(seed: int = 0, n: int = 24, d: int = 6) -> Tensor:
    """Of random rows: symmetric, positive semi-definite, of rank min(n, d)."""
    z = rows(seed, n, d)
    return z.T @ z / n


def with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    frame = torch.linalg.qr(rows(seed, len(values), len(values)))[0]
    made: Tensor = (frame * values.double()) @ frame.T
    return made


def closed_form(name: str, seed: int = 0, **options: Any) -> ClosedFormMethod:
    """In double precision, around a small backbone."""
    built = method(name, seed, **options).double()
    assert isinstance(built, ClosedFormMethod)
    return built


def doubles(count: int = 2, seed: int = 1) -> list[Tensor]:
    return [view.double() for view in views(count=count, seed=seed)]


# the predictor


@pytest.mark.parametrize(("n", "d"), [(24, 6), (4, 6), (6, 6)], ids=["full rank", "rank below d", "square"])
@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_at_power_one_the_eigenvectors_give_the_shifted_copy_that_directcopy_takes(
    n: int, d: int, eps: float
) -> None:
    c = correlation(n=n, d=d)
    by_hand = c / torch.linalg.eigvalsh(c)[-1] + eps * torch.eye(d, dtype=torch.float64)
    torch.testing.assert_close(spectral_predictor(c, alpha=1.0, eps=eps), by_hand)
    torch.testing.assert_close(copied_predictor(c, eps=eps), by_hand)


@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_at_power_two_the_predictor_is_the_square_of_the_shifted_copy(eps: float) -> None:
    c = correlation(n=4)
    n = copied_predictor(c, eps)
    torch.testing.assert_close(spectral_predictor(c, alpha=2.0, eps=eps), n @ n)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_half_the_power_gives_the_matrix_root(alpha: float, normalise: bool) -> None:
    c = correlation(n=4)
    half = spectral_predictor(c, alpha / 2, 0.1, normalise)
    torch.testing.assert_close(half @ half, spectral_predictor(c, alpha, 0.1, normalise))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n", [4, 24])
def test_the_predictor_is_symmetric_and_positive_semidefinite(alpha: float, n: int) -> None:
    for wp in (spectral_predictor(correlation(n=n), alpha), copied_predictor(correlation(n=n), eps=0.0)):
        torch.testing.assert_close(wp, wp.T)
        assert torch.linalg.eigvalsh(wp)[0] >= -1e-12


def test_the_predictor_turns_with_the_correlation() -> None:
    c, turn = correlation(n=4), torch.linalg.qr(rows(5, 6, 6))[0]
    turned = spectral_predictor(turn @ c @ turn.T)
    torch.testing.assert_close(turned, turn @ spectral_predictor(c) @ turn.T, atol=1e-7, rtol=0)


def test_equal_eigenvalues_leave_the_predictor_free_of_the_solvers_choice_of_axes() -> None:
    c = with_eigenvalues(torch.tensor([4.0, 4.0, 4.0, 1.0, 1.0, 0.0]))
    by_hand = with_eigenvalues(torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5, 0.0]))
    torch.testing.assert_close(spectral_predictor(c), by_hand, atol=1e-7, rtol=0)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_a_normalised_predictor_does_not_see_the_scale_of_the_correlation(alpha: float) -> None:
    c = correlation()
    torch.testing.assert_close(spectral_predictor(1e-6 * c, alpha, 0.1), spectral_predictor(c, alpha, 0.1))


def test_without_normalising_the_predictor_is_the_power_of_the_correlation_itself() -> None:
    c = correlation()
    wp = spectral_predictor(c, alpha=0.5, normalise=False)
    torch.testing.assert_close(wp @ wp, c)
    torch.testing.assert_close(copied_predictor(c, 0.3, normalise=False), c + 0.3 * torch.eye(6).double())


def test_without_normalising_eigenvalues_are_clipped_at_a_million_and_eps_is_not_added() -> None:
    c = with_eigenvalues(torch.tensor([4e8, 4.0, 1.0, 0.0]))
    by_hand = with_eigenvalues(torch.tensor([1e3, 2.0, 1.0, 0.0]))
    torch.testing.assert_close(spectral_predictor(c, 0.5, 0.3, normalise=False), by_hand, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["directpred", "isoloss"])
def test_eps_without_normalising_is_refused_as_it_would_do_nothing(name: str) -> None:
    with pytest.raises(UsageError, match="option eps must be 0 where normalise is off"):
        method(name, eps=0.1, normalise=False)


def test_isoloss_without_normalising_clips_its_copy_of_the_correlation_too() -> None:
    isoloss = closed_form("isoloss", alpha=1.0, normalise=False)
    isoloss.C.copy_(torch.diag(torch.full((len(isoloss.C),), 1e8)))
    torch.testing.assert_close(isoloss.predictor_matrix(), isoloss.C / 100)


def test_eps_outside_the_power_is_added_to_the_root_and_floored() -> None:
    lam = torch.tensor([0.0, 0.04, 0.25, 1.0], dtype=torch.float64)
    c = with_eigenvalues(3.0 * lam)

    def gains(eps: float) -> Tensor:
        found: Tensor = torch.linalg.eigvalsh(spectral_predictor(c, 0.5, eps, eps_inside=False))
        return found

    torch.testing.assert_close(gains(0.1), lam.sqrt() + 0.1, atol=1e-7, rtol=0)
    torch.testing.assert_close(gains(0.0), lam.sqrt().clamp(min=1e-4), atol=1e-7, rtol=0)


def test_eps_inside_the_power_is_added_to_the_eigenvalue() -> None:
    lam = torch.tensor([0.0, 0.04, 0.25, 1.0], dtype=torch.float64)
    gains = torch.linalg.eigvalsh(spectral_predictor(with_eigenvalues(3.0 * lam), 0.5, 0.1))
    torch.testing.assert_close(gains, (lam + 0.1).sqrt())


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("eps", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_correlation_of_zeros_gives_a_multiple_of_the_identity(
    alpha: float, eps: float, dtype: torch.dtype
) -> None:
    zeros, eye = torch.zeros(5, 5, dtype=dtype), torch.eye(5, dtype=dtype)
    torch.testing.assert_close(spectral_predictor(zeros, alpha, eps), eps**alpha * eye)
    torch.testing.assert_close(copied_predictor(zeros, eps), eps * eye)


def test_a_tiny_negative_eigenvalue_gives_no_nan() -> None:
    c = with_eigenvalues(torch.tensor([-1e-9, 0.0, 0.5, 1.0]))
    assert spectral_predictor(c).isfinite().all()


@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-6, 1e-4, 1e-2, 0.5])
@pytest.mark.parametrize("d", [2, 16, 128])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_the_largest_eigenvalue_is_found_however_near_the_next_one_is(
    gap: float, d: int, dtype: torch.dtype, within: float
) -> None:
    values = torch.linspace(0.0, 0.9, d, dtype=torch.float64)
    values[-2], values[-1] = 1.0 - gap, 1.0
    c = with_eigenvalues(7.0 * values).to(dtype)
    wanted = torch.linalg.eigvalsh(c.double())[-1].item()
    assert largest_eigenvalue(c).item() == pytest.approx(wanted, rel=within)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_largest_eigenvalue_survives_any_scale(scale: float) -> None:
    c = scale * torch.diag(torch.tensor([1.0, 0.5, 0.25]))
    assert largest_eigenvalue(c).item() == pytest.approx(scale, rel=1e-5)


def test_the_largest_eigenvalue_of_zeros_is_zero() -> None:
    assert largest_eigenvalue(torch.zeros(4, 4)).item() == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_eigenvalue_of_fewer_rows_than_dimensions_is_found(seed: int) -> None:
    c = correlation(seed, n=5, d=40)
    torch.testing.assert_close(largest_eigenvalue(c), torch.linalg.eigvalsh(c)[-1], rtol=1e-6, atol=0)


def test_a_correlation_that_is_not_finite_says_that_training_diverged() -> None:
    with pytest.raises(FullrankError, match="training has diverged: lower --lr"):
        spectral_predictor(torch.full((4, 4), torch.nan))


# the correlation


def test_the_average_takes_in_the_second_moment_of_the_rows_uncentred() -> None:
    z, before = rows(0) + 3.0, correlation(1)
    torch.testing.assert_close(averaged_correlation(before, z, 0.9), 0.9 * before + 0.1 * z.T @ z / len(z))


def test_a_centred_average_takes_in_the_covariance() -> None:
    z, zero = rows(0) + 3.0, torch.zeros(6, 6, dtype=torch.float64)
    torch.testing.assert_close(averaged_correlation(zero, z, 0.0, centred=True), z.T.cov(correction=0))


def test_the_average_of_half_precision_rows_does_not_overflow() -> None:
    z = torch.full((64, 4), 300.0, dtype=torch.float16)  # whose squares are beyond 65504
    c = averaged_correlation(torch.zeros(4, 4), z, 0.0)
    torch.testing.assert_close(c, torch.full((4, 4), 9e4), rtol=1e-3, atol=0)


@every_method
@pytest.mark.parametrize(("update", "per_step"), [("view", 2), ("step", 1)])
@pytest.mark.parametrize("tau", [0.5, 0.998])
@pytest.mark.parametrize("k", [1, 3])
def test_after_k_constant_batches_the_correlation_is_short_of_theirs_by_tau_to_the_k(
    name: str, update: str, per_step: int, tau: float, k: int
) -> None:
    m = closed_form(name, update=update, correlation_momentum=tau)
    view = doubles()[0]
    for _ in range(k):
        z = m.loss([view, view]).taps["projector"]
    torch.testing.assert_close(m.C, (1 - tau ** (per_step * k)) * z.T @ z / len(z))


@every_method
def test_the_step_update_takes_in_the_rows_of_both_views_at_once(name: str) -> None:
    m, (a, b) = closed_form(name, update="step", correlation_momentum=0.5), doubles()
    with torch.no_grad():
        z = torch.cat([m.projector(m.backbone(view)) for view in (a, b)])
    m.loss([a, b])
    torch.testing.assert_close(m.C, 0.5 * z.T @ z / len(z))


@every_method
def test_the_correlation_stays_as_it_is_in_eval_mode(name: str) -> None:
    m = closed_form(name)
    m.loss(doubles())
    before = m.C.clone()
    m.eval().embed(doubles()[0])
    m.eval().loss(doubles())
    assert torch.equal(m.C, before)


@every_method
def test_the_correlation_is_part_of_the_state(name: str) -> None:
    m = closed_form(name)
    m.loss(doubles())
    assert torch.equal(m.state_dict()["C"], m.C)
    assert m.C.any()


@every_method
def test_the_correlation_holds_no_graph(name: str) -> None:
    m = closed_form(name)
    m.loss(doubles())
    assert not m.C.requires_grad


def test_with_the_view_update_the_first_view_is_predicted_before_the_second_is_taken_in() -> None:
    m = closed_form("directpred", correlation_momentum=0.5)
    taps = m.loss(doubles()).taps
    z = taps["projector"].detach()
    after_first = 0.5 * z.T @ z / len(z)
    torch.testing.assert_close(taps["predictor"], z @ spectral_predictor(after_first))


@pytest.mark.parametrize("name", ["directpred", "isoloss"])
def test_a_normalised_predictor_does_not_see_that_the_correlation_started_at_zero(name: str) -> None:
    wp = []
    for tau in (0.0, 0.998):
        m = closed_form(name, correlation_momentum=tau)
        m.loss([doubles()[0]] * 2)
        wp.append(m.predictor_matrix())
    torch.testing.assert_close(*wp, atol=1e-6, rtol=1e-6)
