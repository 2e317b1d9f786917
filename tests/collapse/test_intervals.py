"""Intervals hold the values of other rows from the same source, also where n is near d."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.collapse.intervals import LEAST_ROWS, half_widths, interval
from fullrank.collapse.leave_one_out import leave_one_out, roots_below
from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.moments import Moments, unit_rows

RANKS = ("erank_centred", "rankme_uncentred", "rankme_unit", "participation_ratio", "stable_rank")
OF_ROWS = [metric for metric in METRICS.values() if metric.needs in OF_MOMENTS]
D = 32
K = torch.arange(1, D + 1)

SOURCES: dict[str, Callable[[Tensor], Tensor]] = {
    "isotropic": lambda z: z,
    "1/k": lambda z: z * K**-0.5,
    "1/k^2": lambda z: z / K,
    "rank 4 and noise": lambda z: z * torch.where(K <= 4, 1.0, 0.05),
    "unit rows": lambda z: unit_rows(z * K**-0.5),
    "far from 0": lambda z: z * K**-0.5 + 3.0,
}


def rows_of(source: str, n: int, seed: int) -> Tensor:
    return SOURCES[source](torch.randn(n, D, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("n", [32, 48, 128])
@pytest.mark.parametrize("source", SOURCES)
def test_intervals_of_ranks_hold_the_values_of_other_rows(source: str, n: int) -> None:
    draws = [rows_of(source, n, seed) for seed in range(60)]
    held: dict[str, list[float]] = {name: [] for name in RANKS}
    moments = [Moments.of(z) for z in draws]
    values = {name: np.array([METRICS[name](each) for each in moments]) for name in RANKS}
    for k in range(15):
        halves = half_widths([METRICS[name] for name in RANKS], moments[k], draws[k])
        for name in RANKS:
            low, high = interval(METRICS[name], values[name][k], halves[name], n, D)
            others = np.delete(values[name], k)
            held[name].append(float(np.mean((low <= others) & (others <= high))))
    for name in RANKS:
        assert np.mean(held[name]) >= 0.85, name


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e5])
@pytest.mark.parametrize(("n", "d"), [(60, 90), (64, 64), (90, 50), (300, 20)])
def test_moments_without_a_row_are_those_of_the_others(n: int, d: int, offset: float) -> None:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(n)).double() + offset
    left = leave_one_out(Moments.of(z), z[:3])
    for k, found in enumerate(left):
        alone = Moments.of(torch.cat([z[:k], z[k + 1 :]]))
        assert found.count == alone.count
        for one, other in ((found, alone), (found.unit, alone.unit)):
            torch.testing.assert_close(one.mean, other.mean, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(one.scatters, other.scatters, rtol=1e-6, atol=1e-15)
            torch.testing.assert_close(one.scatter, other.scatter, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("n", [24, 32, 33, 48, 200])
def test_metrics_scatter_over_rows_left_out_as_if_each_were_computed_anew(source: str, n: int) -> None:
    z = rows_of(source, n, 7)
    several = min(n, 40)
    anew = [Spectra(Moments.of(torch.cat([z[:k], z[k + 1 :]]))) for k in range(several)]
    left = [Spectra(each) for each in leave_one_out(Moments.of(z), z[:several])]
    for metric in OF_ROWS:
        expected, found = [metric(each) for each in anew], [metric(each) for each in left]
        if None not in expected:
            last = metric.name.startswith(("condition", "inverse"))  # of the last directions alone
            scatter = float(np.std(np.array(expected, dtype=float)))
            off = abs(float(np.std(np.array(found, dtype=float))) - scatter)
            assert off <= (0.3 if last else 0.1) * scatter + 1e-12, metric.name


def test_roots_lie_between_the_eigenvalues_and_add_up_to_the_trace() -> None:
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)).double()
    values, vectors = torch.linalg.eigh(x.T @ x)
    values, shares = values.flip(0), (x @ vectors.flip(1)).square()
    roots = roots_below(values, shares)
    below = torch.cat([values[1:], torch.zeros(1)])
    assert bool(((roots <= values) & (roots >= below - 1e-12)).all())
    torch.testing.assert_close(roots.sum(1), values.sum() - shares.sum(1), rtol=1e-3, atol=0.0)


def test_what_no_row_changes_has_no_interval() -> None:
    z = rows_of("isotropic", 200, 0)
    assert "numerical_rank" not in half_widths(OF_ROWS, Moments.of(z), z)


def test_few_rows_have_no_intervals() -> None:
    z = rows_of("isotropic", LEAST_ROWS - 1, 0)
    assert half_widths(OF_ROWS, Moments.of(z), z) == {}


@pytest.mark.parametrize(("n", "d"), [(40, 60), (200, 20)])
def test_the_values_do_not_depend_on_whether_intervals_were_made_before(n: int, d: int) -> None:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(1)) + 0.5
    moments = Moments.of(z)
    half_widths(OF_ROWS, moments, z)
    for metric in OF_ROWS:
        expected, found = metric(Moments.of(z)), metric(moments)
        assert found == (expected if expected is None else pytest.approx(expected, rel=1e-9)), metric.name


def test_rows_added_after_intervals_count() -> None:
    z = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    moments = Moments.of(z[:100])
    half_widths(OF_ROWS, moments, z[:64])
    moments.update(z[100:])
    rank = METRICS["erank_centred"]
    assert rank(moments) == pytest.approx(rank(Moments.of(z)), rel=1e-9)
