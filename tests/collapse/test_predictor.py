"""A predictor in the eigenvectors of its input, and the diagnostics that takes it in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.collapse.diagnostics import diagnose, predictor_spectrum
from fullrank.collapse.monitor import CollapseMonitor
from fullrank.errors import UsageError


def rows(n: int = 4000, d: int = 12, seed: int = 0) -> Tensor:
    """Rows whose correlation has distinct eigenvalues, in a turned basis."""
    generator = torch.Generator().manual_seed(seed)
    turned: Tensor = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    z = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.5, d)
    return z @ turned.mT


def test_a_linear_predictor_is_found_as_it_is() -> None:
    z, w = rows(), torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = predictor_spectrum(z, z @ w.T)
    assert found is not None
    values, vectors = torch.linalg.eigh(z.T @ z / len(z))
    u = vectors.flip(1)
    assert found.eigenvalues == pytest.approx(values.flip(0).numpy())
    assert found.gains == pytest.approx((w @ u).norm(dim=0).numpy())
    assert found.alignment == pytest.approx(((u * (w @ u)).sum(0) / (w @ u).norm(dim=0)).numpy())
    assert found.explained == pytest.approx(1.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_directpreds_predictor_shares_the_eigenvectors_and_passes_lambda_to_its_power(power: float) -> None:
    z = rows()
    values, u = torch.linalg.eigh(z.T @ z / len(z))
    found = predictor_spectrum(z, z @ (u @ torch.diag(values**power) @ u.T))
    assert found is not None
    assert found.alignment == pytest.approx(np.ones(12))
    assert found.gains == pytest.approx(found.eigenvalues**power)
    assert found.filter == pytest.approx(found.gains)


def test_the_eigenvectors_sign_and_order_do_not_matter_but_a_reflection_does() -> None:
    z = rows()
    found = predictor_spectrum(z, -z)
    assert found is not None
    assert found.alignment == pytest.approx(-np.ones(12))


def test_a_random_map_is_aligned_with_nothing() -> None:
    d = 64
    z = rows(20_000, d)
    w = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) / math.sqrt(d)
    found = predictor_spectrum(z, z @ w.T)
    assert found is not None
    assert abs(found.mean_alignment) < 3 / math.sqrt(d)


def test_what_is_not_linear_is_said_to_be_unexplained() -> None:
    z = torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = predictor_spectrum(z, z**2 - 1)
    assert found is not None
    assert found.explained < 0.01


def test_directions_without_variance_are_left_out() -> None:
    z = rows()
    z[:, :] = z @ torch.diag(torch.tensor([1.0] * 5 + [0.0] * 7, dtype=torch.float64))
    found = predictor_spectrum(z, z)
    assert found is not None
    assert len(found.eigenvalues) == 5
    assert np.isfinite(found.filter).all()


def test_a_constant_zero_has_no_spectrum() -> None:
    assert predictor_spectrum(torch.zeros(10, 3), torch.zeros(10, 3)) is None


def test_rows_of_other_images_are_refused() -> None:
    with pytest.raises(UsageError, match="same rows"):
        predictor_spectrum(torch.ones(4, 3), torch.ones(5, 3))


def test_every_value_of_a_closer_look_has_what_noise_would_read_beside_it() -> None:
    z = rows(500).float()
    found = diagnose({"projector": z}, {"projector": (z[:100], z[:100] + 0.1 * rows(100, seed=4).float())})
    measures = found.measures["projector"]
    assert set(measures) == {"local_dimension", "two_nn", "alpha_req", "lidar"}
    assert all(measure.null is not None and measure.n == 500 for measure in measures.values())


def test_the_monitor_takes_it_at_the_first_panel_and_then_now_and_then() -> None:
    monitor = CollapseMonitor(diagnostics_every=3)
    z = rows(200).float()
    taken = []
    for trained in (False, True, True, True, True):
        monitor.observe({"projector": z, "predictor": 0.5 * z})
        taken.append(monitor.close(trained).diagnostics is not None)
    assert taken == [False, True, False, False, True]


def test_the_monitors_predictor_is_that_of_rows_of_the_same_images_however_they_came() -> None:
    z = rows(3000).float()  # more than the monitor keeps
    monitor = CollapseMonitor(capacity=500)
    for chunk in z.split(700):
        monitor.observe({"projector": chunk, "predictor": 2 * chunk})
    found = monitor.close().diagnostics
    assert found is not None
    assert found.predictor is not None
    assert found.predictor.gains == pytest.approx(np.full(12, 2.0), rel=1e-5)
    assert found.predictor.explained == pytest.approx(1.0)
