"""Metrics of rows and tokens: tables of the literature, closed forms, known traps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from expect import known
from fullrank.collapse import Moments, level, uniformity
from fullrank.collapse.kmeans import sample_kmeans
from fullrank.collapse.metrics.classes import within_share
from fullrank.collapse.metrics.clusters import cluster_learnability
from fullrank.collapse.metrics.gaussian import (
    SIGREG_NULL,
    sigreg,
    sigreg_ratio,
    visreg_centre,
    visreg_scale,
    visreg_shape,
)
from fullrank.collapse.metrics.level import (
    hinge_std,
    mean_cosine,
    mean_cosine_centred,
    norm_variation,
    sparsity,
)
from fullrank.collapse.metrics.mixture import fit_mixture, legacy_mixture_entropy, mixture_entropy
from fullrank.collapse.metrics.neighbours import (
    Neighbourhood,
    distinct_rows,
    local_dimension,
    two_nn,
    two_nn_fit,
)
from fullrank.collapse.metrics.sphere import (
    coherence,
    self_cluster,
    self_cluster_centred,
    wasserstein_uniformity,
)
from fullrank.collapse.metrics.tokens import dense_score
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]


@pytest.mark.parametrize(
    ("rank", "spread", "uniform", "distance", "cluster"),
    [
        (512, 1.000, -3.985, 0.18, 0.0),
        (64, 0.997, -3.877, 1.14, 0.014),
        (8, 0.972, -3.086, 1.32, 0.123),
        (2, 0.874, -1.576, 1.37, 0.499),
        (1, 0.792, -0.693, 1.38, 1.0),
    ],
)
def test_the_tables_of_low_ranks(
    gaussian: Rows, low_rank: Rows, rank: int, spread: float, uniform: float, distance: float, cluster: float
) -> None:
    z = gaussian(4096, 512, seed=3) if rank == 512 else low_rank(4096, 512, rank, seed=3)
    moments = Moments.of(z)
    # Averaged over the coordinates of one or two random directions, hence the 3 % there.
    assert level(moments) == pytest.approx(spread, rel=0.03 if rank < 3 else 0.02)
    assert uniformity(z[:1500]) == pytest.approx(uniform, rel=0.02)
    assert wasserstein_uniformity(moments) == pytest.approx(distance, rel=0.02)
    assert self_cluster(moments) == pytest.approx(cluster, rel=0.02, abs=0.001)
    expected = (1 / rank - 1 / 512) / (1 - 1 / 512)
    assert self_cluster_centred(z) == pytest.approx(expected, rel=0.03, abs=0.001)


def test_the_distance_to_the_uniform_sphere_is_that_of_its_definition(gaussian: Rows) -> None:
    u = F.normalize(gaussian(300, 12) + 0.4, dim=1).numpy()
    mean, covariance = u.mean(0), np.cov(u.T, bias=True)
    root = np.sqrt(np.linalg.eigvalsh(covariance)).sum()
    squared = mean @ mean + 1 + np.trace(covariance) - 2 / math.sqrt(12) * root
    assert wasserstein_uniformity(torch.from_numpy(3 * u)) == pytest.approx(math.sqrt(squared))


def test_the_self_cluster_is_that_of_all_pairs(gaussian: Rows) -> None:
    z = gaussian(50, 6) + 0.5
    u = F.normalize(z, dim=1)
    expected = 50 + 50 * 49 / 6
    score = ((u @ u.T).square().sum() - expected) / (50**2 - expected)
    assert self_cluster(z) == pytest.approx(score.item())
    assert self_cluster(torch.cat([z, torch.zeros(7, 6)])) == pytest.approx(score.item())


def test_a_large_mean_is_told_from_a_collapse_by_centring(gaussian: Rows) -> None:
    z = gaussian(2000, 32)
    assert (mean_cosine(z + 10) or 0) > 0.98
    assert mean_cosine_centred(z + 10) == pytest.approx(0, abs=2e-3)
    assert (self_cluster(z + 10) or 0) > 0.95
    assert self_cluster_centred(z + 10) == pytest.approx(0, abs=2e-3)


def test_the_hinge_is_that_of_vicreg(gaussian: Rows) -> None:
    z = gaussian(100, 8) * torch.linspace(0.1, 3, 8)
    expected = F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
    assert hinge_std(z) == hinge_std(Moments.of(z)) == pytest.approx(expected.item())


def test_norms_and_sparsity_of_a_gaussian_are_known(gaussian: Rows) -> None:
    z = gaussian(4000, 256)
    assert norm_variation(z) == pytest.approx(1 / math.sqrt(2 * 256), rel=0.05)
    assert sparsity(z) == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)
    assert sparsity(torch.zeros(3, 2)) is norm_variation(torch.zeros(3, 2)) is None


def test_coherence_ignores_the_directions_that_are_lost(gaussian: Rows, low_rank: Rows) -> None:
    z = low_rank(200, 32, 4)
    leverage = torch.linalg.qr(z[:, :4]).Q.square().sum(1).max().item()
    assert coherence(z) == pytest.approx(200 / 4 * leverage)
    outlier = torch.cat([gaussian(199, 4) * torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.eye(4)[3:]])
    assert coherence(outlier) == pytest.approx(200 / 4, rel=0.05)


# Intrinsic dimension.


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimensions_of_a_curved_cloud_are_those_of_its_parameters(dimension: int) -> None:
    generator = torch.Generator().manual_seed(dimension)
    t = torch.rand(1500, dimension, dtype=torch.float64, generator=generator)
    embed = torch.randn(3 * dimension, 20, dtype=torch.float64, generator=generator)
    z = torch.cat([t, t**2, torch.sin(2 * t)], dim=1) @ embed
    assert two_nn(z) == pytest.approx(dimension, rel=0.1)
    assert two_nn_fit(z) == pytest.approx(dimension, rel=0.1)
    for estimator in ("mle", "moments"):
        local = local_dimension(z, 20, estimator)
        assert local is not None
        assert local.mean == pytest.approx(dimension, rel=0.15)
        assert (local.points, local.k) == (1500, 20)


def test_local_collapse_shows_below_a_full_global_rank(gaussian: Rows) -> None:
    # A curve that winds through every direction: the spectrum is full, the neighbourhood is a line.
    t = torch.linspace(0, 1, 3000, dtype=torch.float64)[:, None]
    curve = torch.sin(2 * math.pi * t * torch.arange(1, 17) + 7 * gaussian(1, 16))
    assert torch.linalg.matrix_rank(curve) == 16
    local = local_dimension(curve)
    assert local is not None
    assert local.mean < 2


def test_duplicates_change_no_intrinsic_dimension(gaussian: Rows) -> None:
    z = gaussian(300, 4)
    repeated = torch.cat([z, z[:40], -0.0 * z[:1], 0.0 * z[:1]])
    whole = torch.cat([z, 0.0 * z[:1]])
    assert len(distinct_rows(repeated)) == 301
    assert two_nn(repeated) == pytest.approx(two_nn(whole), rel=1e-12)  # sums in another order
    found, expected = local_dimension(repeated), local_dimension(whole)
    assert found is not None
    assert expected is not None
    assert tuple(found) == pytest.approx(tuple(expected), rel=1e-12)


def test_measures_that_share_a_neighbourhood_read_what_each_reads_alone() -> None:
    z = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 9)
    near = Neighbourhood(z)
    assert two_nn(near) == pytest.approx(two_nn(z), rel=1e-12)
    assert two_nn_fit(near) == pytest.approx(two_nn_fit(z), rel=1e-12)
    assert local_dimension(near, 30) == pytest.approx(local_dimension(z, 30), rel=1e-12)


def test_a_lattice_has_no_dimension_by_ratios() -> None:
    # In one-hot rows every two distances agree, up to rounding.
    assert two_nn(torch.eye(50)) is two_nn_fit(torch.eye(50)) is None
    assert local_dimension(torch.eye(50), estimator="mle") is None
    assert local_dimension(torch.eye(50), estimator="moments") is None
    with pytest.raises(UsageError, match="estimator"):
        local_dimension(torch.eye(50), estimator="mle2")  # type: ignore[arg-type]


# Clusters.


def clusters(gaussian: Rows, count: int, spread: float, n: int = 600, d: int = 8) -> torch.Tensor:
    return 3 * gaussian(count, d, seed=5)[torch.arange(n) % count] + spread * gaussian(n, d)


def test_kmeans_finds_separated_clusters_and_keeps_to_the_rows_there_are(gaussian: Rows) -> None:
    centres, nearest = sample_kmeans(clusters(gaussian, 6, 0.01), 6)
    assert centres.shape == (6, 8)
    assert torch.equal(nearest[:6].sort().values, torch.arange(6))
    assert torch.equal(nearest, nearest[:6].repeat(100))
    few = sample_kmeans(torch.tensor([[1.0], [1.0], [2.0]]), 3)[0]
    assert sorted(few.flatten().tolist()) == [1.0, 2.0]


def test_learnability_is_high_for_clusters_and_at_chance_for_noise(gaussian: Rows) -> None:
    assert cluster_learnability(clusters(gaussian, 6, 0.01), clusters=6) == 1.0
    noise = cluster_learnability(gaussian(1000, 64))
    assert noise is not None
    assert noise < 0.35


def test_the_share_within_clusters_is_a_ratio_of_scatters(gaussian: Rows) -> None:
    z, labels = clusters(gaussian, 4, 0.5), torch.arange(600) % 4
    within = sum(z[labels == c].sub(z[labels == c].mean(0)).square().sum() for c in range(4))
    assert within_share(z, labels) == pytest.approx(float(within / z.sub(z.mean(0)).square().sum()))
    assert within_share(z, torch.zeros(600, dtype=torch.long)) == 1.0
    assert within_share(clusters(gaussian, 4, 0.0), labels) == pytest.approx(0, abs=1e-20)
    assert within_share(gaussian(600, 8), labels) == pytest.approx(1, abs=0.02)


def test_the_mixture_entropy_of_a_gaussian_is_in_closed_form(gaussian: Rows) -> None:
    z = gaussian(20_000, 3) * torch.tensor([3.0, 2.0, 0.5]) + 5
    share = torch.tensor([9.0, 4.0, 0.25]) * 3 / 13.25
    entropy = mixture_entropy(z, components=1)
    assert entropy is not None
    expected = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * share.log().mean().item()
    assert entropy.mean == pytest.approx(expected, abs=0.01)
    assert (entropy.dims, entropy.components) == (3, 1)
    assert 0 < entropy.std < 0.02


def test_the_mixture_entropy_falls_with_intra_cluster_collapse_and_not_with_width(gaussian: Rows) -> None:
    def of(z: torch.Tensor) -> float:
        entropy = mixture_entropy(z, samples=2000, repeats=2)
        assert entropy is not None
        return entropy.mean

    loose, tight = clusters(gaussian, 10, 1.0), clusters(gaussian, 10, 0.01)
    assert of(tight) < of(loose) - 2
    assert of(F.pad(tight, (0, 100))) == pytest.approx(of(tight), abs=1e-6)
    assert of(gaussian(600, 8)) == pytest.approx(1.42, abs=0.1)


def test_the_published_mixture_entropy_falls_with_padding_alone(gaussian: Rows) -> None:
    z = clusters(gaussian, 10, 1.0)
    entropies = [legacy_mixture_entropy(z, samples=1000, repeats=2, width=width) for width in (8, 108)]
    assert entropies[0] is not None and entropies[1] is not None
    assert entropies[1].mean - entropies[0].mean == pytest.approx(100 * -5.4888, abs=0.01)
    with pytest.raises(UsageError, match="cannot be padded"):
        legacy_mixture_entropy(z, width=4)


def test_a_mixture_is_fitted_as_scikit_learn_fits_it(gaussian: Rows) -> None:
    mixture_of = pytest.importorskip("sklearn.mixture").GaussianMixture
    z = clusters(gaussian, 4, 0.3)
    ours, theirs = fit_mixture(z, 4), mixture_of(4, covariance_type="diag", random_state=0).fit(z.numpy())
    order, expected = ours.means[:, 0].argsort(), np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(ours.weights[order], theirs.weights_[expected], rtol=1e-4)
    np.testing.assert_allclose(ours.means[order], theirs.means_[expected], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.variances[order], theirs.covariances_[expected], rtol=1e-3)


# Gaussian shape.


@pytest.mark.parametrize("n", [128, 2048])
def test_the_null_of_sigreg_is_one_whatever_n(gaussian: Rows, n: int) -> None:
    assert pytest.approx(1.0594, abs=1e-4) == SIGREG_NULL
    ratios = [
        sigreg_ratio(gaussian(n, 64, seed=seed), directions=128) for seed in range(32 if n < 999 else 3)
    ]
    assert np.mean([known(ratio) for ratio in ratios]) == pytest.approx(1, rel=0.05)


def test_the_analytic_values_of_sigreg(gaussian: Rows, low_rank: Rows) -> None:
    # In each direction of a constant at 0 the integral is sqrt(2 pi) (1 - sqrt 2 + 1 / sqrt 3).
    exact = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    zeros = torch.zeros(100, 8)
    assert sigreg(zeros, limit=8, knots=100) == pytest.approx(100 * exact, rel=1e-6)
    assert sigreg(zeros) == pytest.approx(40.2, rel=0.01)
    assert sigreg(3 * gaussian(2048, 128)) == pytest.approx(0.52 * 2048, rel=0.1)
    assert sigreg(math.sqrt(128) * low_rank(2048, 128, 1)) == pytest.approx(0.17 * 2048, rel=0.15)


def test_sigreg_hardly_sees_half_the_rank_on_few_rows(gaussian: Rows) -> None:
    half = math.sqrt(2) * (torch.arange(128) < 64)
    few = [sigreg(gaussian(128, 128, seed=s) * half) for s in range(4)]
    assert np.mean([known(value) for value in few]) == pytest.approx(1.3, rel=0.1)
    assert sigreg(gaussian(2048, 128) * half) > 3 * SIGREG_NULL  # type: ignore[operator]


def test_the_directions_of_sigreg_are_always_the_same(gaussian: Rows) -> None:
    z = gaussian(64, 8)
    torch.manual_seed(1)
    first = sigreg(z)
    torch.manual_seed(2)
    assert sigreg(z) == first != sigreg(z, seed=1)


def test_visreg_tells_the_level_from_the_shape(gaussian: Rows, low_rank: Rows) -> None:
    z = gaussian(2000, 32)
    assert visreg_centre(z + 3) == pytest.approx(9, rel=0.05)
    assert visreg_scale(0.1 * z) == pytest.approx(0.81, rel=0.02)
    assert visreg_scale(z) == pytest.approx(0, abs=1e-3)
    whole, thin = visreg_shape(0.1 * z + 3), visreg_shape(low_rank(2000, 32, 1))
    assert whole is not None and thin is not None
    assert whole < 0.01
    assert thin > 20 * whole
    assert (sigreg_ratio(0.1 * z + 3, standardise=True) or 9) < 1.1


# Dense tokens.


def test_dense_tokens_with_parts_score_above_tokens_without(gaussian: Rows) -> None:
    parts = 3 * gaussian(8, 16, seed=2)[torch.arange(36) % 8]
    structured = parts + 0.1 * gaussian(10 * 36, 16).reshape(10, 36, 16)
    # The same parts where all tokens of an image say the same: nothing is kept apart within it.
    flat = 3 * gaussian(1, 16, seed=2) * gaussian(10 * 36, 1).reshape(10, 36, 1)
    high, low = dense_score(structured, clusters=8), dense_score(flat, clusters=8)
    assert high is not None and low is not None
    assert high.score > low.score + 0.5
    assert high.between > low.between
    assert low.dimensions == pytest.approx(1 / 16)
    again = dense_score(1e3 * structured + 5, clusters=8)
    assert again is not None
    assert again.score == pytest.approx(high.score)
    with pytest.raises(UsageError, match="tokens are a tensor"):
        dense_score(gaussian(4, 4))


def test_the_dense_score_is_what_is_apart_less_the_mean_radius(gaussian: Rows) -> None:
    found = dense_score(gaussian(60, 8).reshape(5, 12, 8), clusters=4, clusters_per_image=3)
    assert found is not None and found.within_image > 0 and found.within > 0
    radius = (found.within + found.within_image) / 2
    assert found.score == pytest.approx(found.between + found.dimensions - radius)


def test_the_radius_of_a_part_is_the_nuclear_norm_of_its_tokens(gaussian: Rows) -> None:
    for shape in ((30, 6), (6, 30)):
        tokens = gaussian(*shape)
        score = dense_score(tokens[None], clusters=1, clusters_per_image=1)
        assert score is not None
        centred = tokens - tokens.mean(0)
        radius = torch.linalg.svdvals(centred / centred.norm(dim=1).mean()).sum() / (len(tokens) - 1)
        assert score.within == pytest.approx(radius.item())
        assert score.between == 0.0
        assert score.within_image == pytest.approx(score.within)
