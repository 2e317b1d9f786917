"""Metrics of a spectrum: the tables of the literature from their definitions, closed forms, identities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expect import known
from fullrank.collapse import Moments
from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.metrics.decay import (
    alpha_req,
    auc,
    auc_rescaled,
    condition_at,
    early_enrichment,
)
from fullrank.collapse.metrics.ranks import (
    effective_rank,
    isoscore,
    matrix_entropy,
    nesum,
    numerical_rank,
    participation_ratio,
    participation_ratio_corrected,
    stable_rank,
)
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]
TABLE = ("erank_centred", "erank_eigenvalues", "participation_ratio", "nesum", "auc", "alpha_req")
POWER_LAW = 1 / np.arange(1, 513)


def read(spectra: Spectra) -> dict[str, float | None]:
    return {name: METRICS[name](spectra) for name in TABLE}


@pytest.mark.parametrize(
    ("n", "rankme", "erank", "ratio", "nesum", "area", "alpha"),
    [
        (256, 236, 199, 170, 91, 0.807, 0.34),
        (512, 411, 309, 255, 131, 0.681, 0.25),
        (1024, 474, 399, 341, 174, 0.612, 0.19),
        pytest.param(5120, 505, 487, 465, 295, 0.547, 0.09, marks=pytest.mark.slow),
        pytest.param(25600, 511, 507, 502, 395, 0.521, 0.05, marks=pytest.mark.slow),
    ],
)
def test_the_table_of_isotropic_clouds(
    gaussian: Rows, n: int, rankme: float, erank: float, ratio: float, nesum: float, area: float, alpha: float
) -> None:
    seen = read(Spectra.of(gaussian(n, 512, seed=n)))
    for name, expected in zip(TABLE[:5], (rankme, erank, ratio, nesum, area), strict=True):
        # The largest eigenvalue of one draw scatters by 2 %, and NESum with it.
        assert seen[name] == pytest.approx(expected, rel=0.03 if name == "nesum" else 0.02), name
    assert seen["alpha_req"] == pytest.approx(alpha, abs=0.01)  # given to two digits


def test_the_exact_power_law() -> None:
    sigma = POWER_LAW**0.5
    assert effective_rank(sigma) == pytest.approx(409.6, abs=0.05)
    assert effective_rank(POWER_LAW) == pytest.approx(117.2, abs=0.05)
    assert participation_ratio(POWER_LAW) == pytest.approx(28.3, abs=0.05)
    assert nesum(POWER_LAW) == pytest.approx(6.82, abs=0.005)
    assert auc(sigma) == pytest.approx(0.657, abs=0.0005)
    fit = alpha_req(POWER_LAW)
    assert fit is not None
    assert fit == pytest.approx((1, 1, 10, 100), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "values"),
    [
        (512, (328, 94, 28.0, 7.2, 0.748, 0.94)),
        pytest.param(5120, (404, 114, 27.7, 6.7, 0.666, 0.99), marks=pytest.mark.slow),
    ],
)
def test_the_table_of_the_power_law(gaussian: Rows, n: int, values: tuple[float, ...]) -> None:
    # The leading eigenvalues of one draw scatter by sqrt(2 / n), so several draws are averaged.
    draws = [read(Spectra.of(gaussian(n, 512, seed=s) * torch.from_numpy(POWER_LAW**0.5))) for s in range(3)]
    for name, expected in zip(TABLE, values, strict=True):
        mean = np.mean([draw[name] for draw in draws])
        tolerance = 0.06 if name in ("participation_ratio", "nesum") else 0.02
        assert mean == pytest.approx(expected, rel=tolerance), name


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(("first", "last"), [(10, 100), (1, 5), (50, 400)])
def test_alpha_of_an_exact_power_law_is_exact_in_any_range(alpha: float, first: int, last: int) -> None:
    fit = alpha_req(7 * np.arange(1.0, 513) ** -alpha, first, last)
    assert fit == pytest.approx((alpha, 1, first, last))


def test_alpha_stops_where_the_spectrum_ends_and_needs_three_eigenvalues() -> None:
    spectrum = np.r_[np.arange(1.0, 31) ** -2, np.zeros(100)]
    fit = alpha_req(spectrum)
    assert fit is not None
    assert (fit.first, fit.last, round(fit.alpha, 9)) == (10, 30, 2)
    assert alpha_req(spectrum[:12]) is not None
    assert alpha_req(spectrum[:11]) is None
    with pytest.raises(UsageError, match="first < last"):
        alpha_req(spectrum, 5, 5)


def test_alpha_is_the_weighted_fit_of_numpy() -> None:
    spectrum = np.sort(np.random.default_rng(0).gamma(2, size=200))[::-1]
    j = np.arange(10, 101)
    slope, _ = np.polyfit(np.log(j), np.log(spectrum[9:100]), 1, w=j**-0.5)  # it squares its weights
    fit = alpha_req(spectrum)
    assert fit is not None
    assert fit.alpha == pytest.approx(-slope)
    assert 0 < fit.r2 < 1


SPECTRUM = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30).map(np.array)


@given(SPECTRUM)
@settings(max_examples=50, deadline=None)
def test_identities_between_the_metrics(eigenvalues: np.ndarray) -> None:
    d, sigma = len(eigenvalues), np.sqrt(eigenvalues)
    ratio, area = participation_ratio(eigenvalues), auc(sigma)
    assert ratio is not None and area is not None
    assert isoscore(eigenvalues, d) == pytest.approx((ratio - 1) / (d - 1), abs=1e-9)
    assert nesum(eigenvalues) == pytest.approx(stable_rank(sigma))
    assert METRICS["top_share"].function(eigenvalues) == pytest.approx(1 / (nesum(eigenvalues) or 0))
    squared_area = auc(eigenvalues)
    assert squared_area is not None
    assert early_enrichment(eigenvalues, d) == pytest.approx(2 * squared_area - (d + 1) / d, abs=1e-12)
    assert auc_rescaled(sigma, d) == pytest.approx((2 * area - 1 - 1 / d) / (1 - 1 / d), abs=1e-12)
    entropy = matrix_entropy(eigenvalues)
    assert entropy is not None
    assert d**entropy == pytest.approx(effective_rank(eigenvalues))
    order_two = matrix_entropy(eigenvalues, order=2)
    assert order_two is not None
    assert d**order_two == pytest.approx(ratio)
    assert condition_at(sigma, share=1.0) == pytest.approx(sigma.max() / sigma.min())
    assert condition_at(sigma, share=1.0) == pytest.approx(
        1 / METRICS["inverse_condition_number"].function(sigma)
    )


@given(SPECTRUM, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_a_spectrum_does_not_matter(values: np.ndarray, random: object) -> None:
    shuffled = np.random.default_rng(len(values)).permutation(values)
    for function in (auc, effective_rank, nesum, alpha_req, early_enrichment, condition_at):
        assert function(shuffled) == pytest.approx(function(values))


def test_renyi_entropies_fall_with_their_order_and_meet_at_one() -> None:
    entropies = [known(matrix_entropy(POWER_LAW, order)) for order in (0.5, 0.999, 1.0, 1.001, 2.0, 5.0)]
    assert sorted(entropies, reverse=True) == entropies
    assert entropies[1] == pytest.approx(entropies[2], abs=1e-3)
    with pytest.raises(UsageError, match="above 0"):
        matrix_entropy(POWER_LAW, 0)


def test_the_condition_at_a_share_survives_dead_units() -> None:
    sigma = np.r_[np.linspace(10, 1, 95), np.zeros(5)]
    assert condition_at(sigma, share=1.0) is None
    assert condition_at(sigma, 0.9) == pytest.approx(10 / sigma[89])
    assert condition_at(sigma, 0.99) is None
    assert condition_at(np.ones(3), 1.0, dim=4) is None
    with pytest.raises(UsageError, match="share"):
        condition_at(sigma, 0)


def test_the_numerical_rank_counts_what_is_above_its_tolerance() -> None:
    sigma = 10.0 ** -np.arange(8)
    assert [numerical_rank(sigma, tol) for tol in (0.5, 2e-3, 1e-3, 0)] == [1, 3, 3, 8]


@pytest.mark.parametrize("n", [64, 128, 512])
def test_the_corrected_participation_ratio_is_right_where_the_plug_in_is_not(gaussian: Rows, n: int) -> None:
    d, scale = 128, torch.arange(1, 129) ** -0.25
    exact = participation_ratio(scale.double().numpy() ** 2)
    assert exact is not None
    sigmas = [Moments.of(gaussian(n, d, seed=s) * scale).singular_values() for s in range(20)]
    corrected = [known(participation_ratio_corrected(sigma**2, n, d)) for sigma in sigmas]
    assert np.mean(corrected) == pytest.approx(exact, rel=0.03)
    plug_in = float(np.mean([known(participation_ratio(sigma**2)) for sigma in sigmas]))
    assert 1 / plug_in == pytest.approx(1 / n + 1 / exact, rel=0.03)  # the bias that the literature states


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [1.0, -1.0], [float("inf")], [[1.0]]])
def test_what_is_no_spectrum_is_refused_in_one_line(bad: list[float]) -> None:
    spectral = {entry.function: entry for entry in METRICS.values() if entry.spectrum}
    for function, entry in spectral.items():
        sizes = {name: 4 for name in ("n", "dim") if name in function.__code__.co_varnames}
        with pytest.raises(UsageError) as caught:
            function(np.array(bad), **sizes)
        assert "\n" not in str(caught.value), entry.name


def test_the_three_numbers_called_rankme_are_three_entries(gaussian: Rows) -> None:
    # Features with a power-law covariance, d = 512: the field's values were 413 and 112.
    spectra = Spectra.of(gaussian(4096, 512) * torch.from_numpy(POWER_LAW**0.5))
    assert METRICS["rankme_spt"](spectra) == pytest.approx(413, rel=0.02)
    assert METRICS["rankme_reptrix"](spectra) == pytest.approx(112, rel=0.02)
    assert METRICS["rankme_uncentred"](spectra) == pytest.approx(403, rel=0.02)
