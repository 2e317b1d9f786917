"""Unit rows on the sphere, and how evenly rows share in their span."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import ALL_CHANGES, ROW_CHANGES, metric
from fullrank.collapse.moments import Moments, centred_rows, finite_rows, moments_of, unit_rows
from fullrank.collapse.products import eigenvalues, gram

_WELL_POSED = 1e-8  # least over largest eigenvalue, from which a Gram matrix keeps 7 digits of a leverage

_of_cosines = partial(
    metric,
    low="-1 / (n - 1)",
    high="1",
    better="low",
    cost="n d^2",
    reference="Tsitsulin et al. 2023, arXiv 2305.16562",
    invariances=ALL_CHANGES - {"replication"},
)


def _uniformity_of_noise(n: int, d: int, t: float = 2.0) -> float:
    """`log 0F1(; d/2; t^2) - 2t`, for independent uniform unit vectors.

    The hypergeometric function is its series `sum_k t^(2k) / ((d/2)_k k!)`, which 200 terms exhaust.
    """
    k = np.arange(200)
    return float(np.log(np.cumprod(np.r_[1.0, t * t / ((d / 2 + k) * (k + 1))]).sum()) - 2 * t)


@metric(
    "uniformity",
    low="-8",
    high="0",
    better="low",
    sees="CU",
    blind="D: rank 64 of 512 reads -3.88 instead of -3.99; repeated rows raise it",
    cost="n^2 d",
    reference="Wang and Isola 2020, arXiv 2005.10242",
    invariances=ROW_CHANGES - {"replication"},
    baseline=_uniformity_of_noise,
    panel=9,
)
def uniformity(z: Tensor, t: float = 2.0) -> float | None:
    """Uniformity on the sphere: `log mean_{i<j} exp(-t ||u_i - u_j||^2)`.

    Paper: Wang and Isola 2020 (arXiv 2005.10242), section 4.1. Costs O(n^2 d): a few thousand
    rows suffice.

    Args:
        z: [n, d].
        t: inverse temperature, above 0.

    Returns:
        In [-4t, 0]: 0 for a constant, near -2t for an isotropic cloud in many dimensions; None for one row.

    Example:
        >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 6)
        -8.0
    """
    unit = unit_rows(finite_rows(z))
    n = len(unit)
    if n < 2:
        return None
    squares, kernel = unit.square().sum(1), 0.0
    for i in range(0, n, 256):  # a block of rows and all later ones, so that no [n, n] matrix is made
        own = slice(i, i + 256)
        apart = torch.addmm(squares[i:], unit[own], unit[i:].T, alpha=-2).add_(squares[own, None])
        kernel += float(apart.clamp_min_(0).mul_(-t).exp_().triu_(1).sum())
    return min(0.0, math.log(kernel / (n * (n - 1) / 2)))


@metric(
    "wasserstein_uniformity",
    needs="moments",
    high="sqrt(2)",
    better="low",
    sees="CDU",
    blind="degrees of D: ranks 8 and 1 of 512 read 1.32 and 1.38",
    reference="Fang et al. 2024, arXiv 2403.00642",
    invariances=ROW_CHANGES,
)
def wasserstein_uniformity(z: Tensor | Moments) -> float:
    """Wasserstein distance of unit rows from a uniform cloud, by moments.

    Formula: the 2-Wasserstein distance from N(mu, S), the moments of the unit rows (S with 1/n), to
    N(0, I/d): `sqrt(||mu||^2 + 1 + tr S - (2 / sqrt d) tr S^(1/2))`. Paper: Fang et al. 2024 (arXiv
    2403.00642).

    Returns:
        In [0, sqrt 2]: 0 for a uniform cloud of many rows, sqrt 2 for a constant. At n = 8 d an isotropic
        cloud reads 0.18.

    Example:
        >>> round(wasserstein_uniformity(torch.ones(10, 4)) ** 2, 12)
        2.0
    """
    unit = moments_of(z).unit
    n, d = unit.count, unit.dim
    mean = float(unit.mean.square().sum())
    spread = float(unit.scatters.sum()) / n
    root_trace = float(unit.singular_values().sum()) / math.sqrt(n)
    return math.sqrt(max(0.0, mean + 1 + spread - 2 / math.sqrt(d) * root_trace))


@_of_cosines(
    "self_cluster",
    needs="moments",
    sees="CDK",
    blind="D above rank 64; a common mean reads as a cluster",
    invariances=ROW_CHANGES - {"replication"},
)
def self_cluster(z: Tensor | Moments) -> float | None:
    """SelfCluster: how much closer two rows lie on a line than on a uniform sphere.

    Formula: `(Q - E) / (n^2 - E)`, `Q = ||U^T U||_F^2` the sum of all squared cosines, of which
    `E = n + n (n - 1) / d` is expected. Paper: Tsitsulin et al. 2023 (arXiv 2305.16562), definition 3.5.

    Args:
        z: [n, d], or their moments; zero rows have no direction and are not counted.

    Returns:
        In [-1 / (n - 1), 1]: 1 for one point or line, about 0 on a uniform sphere, about
        `(1/r - 1/d) / (1 - 1/d)` for rank r; None with fewer than two rows that are not zero, and for d = 1.

    Example:
        >>> self_cluster(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])), self_cluster(torch.eye(2))
        (1.0, -1.0)
    """
    unit = moments_of(z).unit
    return _self_cluster(float(unit.squares.sum()), unit.dim, unit.outer_norm_squared)


def _self_cluster(rows: float, d: int, found: float) -> float | None:
    """`self_cluster` of rows in all, from the sum of their squared cosines."""
    n = round(rows)
    if n < 2 or d < 2:
        return None
    expected = n + n * (n - 1) / d
    return min(1.0, (found - expected) / (n * n - expected))


@_of_cosines("self_cluster_centred", sees="DK", blind="C: noise around a constant reads 0; D above rank 64")
def self_cluster_centred(z: Tensor) -> float | None:
    """`self_cluster` of the rows less their mean.

    Paper: Tsitsulin et al. 2023 (arXiv 2305.16562), definition 3.5, after centring.

    Returns:
        In [-1 / (n - 1), 1]; None for a constant, for fewer than two rows off the mean and for d = 1.

    Example:
        >>> round(self_cluster_centred(9 + torch.tensor([[1.0, 0.0], [-2.0, 0.0], [3.0, 0.0]])), 12)
        1.0
    """
    rows = finite_rows(z)
    if not len(rows):
        return None
    unit = unit_rows(centred_rows(rows))
    cosines = gram(unit if len(unit) > unit.shape[1] else unit.T)
    return _self_cluster(float(unit.square().sum()), unit.shape[1], float(cosines.square().sum()))


@metric(
    "coherence",
    low="1",
    high="n",
    better="low",
    blind="every collapse: it sees outliers, and one of them decides",
    cost="n d^2",
    reference="Candes and Recht 2009, arXiv 0805.4471; arXiv 2305.16562",
    invariances=ROW_CHANGES,
)
def coherence(z: Tensor) -> float | None:
    """Coherence: how much of its span the most exposed row has to itself.

    Formula: `mu0 = (n / r) max_i ||U_i||^2` with the left singular vectors U [n, r] of the raw rows, r their
    numerical rank. Papers: Candes and Recht 2009 (arXiv 0805.4471), definition 1.2; Tsitsulin et al. 2023
    (arXiv 2305.16562).

    Returns:
        In [1, n / r]: 1 where all rows share alike, n / r where a direction belongs to a single row; None if
        all rows are zero.

    Example:
        >>> round(coherence(torch.eye(4)), 6), round(coherence(torch.eye(4).repeat(3, 1)[:9]), 6)
        (1.0, 1.125)
    """
    rows = finite_rows(z)
    if not bool(rows.any()):
        return None
    # Scaled first: squares of very small or large rows would leave the range of floats.
    rows = rows / rows.abs().max()
    n, d = rows.shape
    products = gram(rows if n > d else rows.T)
    spectrum = eigenvalues(products)
    if spectrum[0] > _WELL_POSED * spectrum[-1]:  # then a third of the time is enough
        if n <= d:
            return 1.0  # n independent rows have a direction each
        factor = torch.linalg.cholesky(products)
        basis = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        return float(basis.square().sum(0).max()) * n / d
    basis, triangle = torch.linalg.qr(rows)
    sigma = torch.linalg.svdvals(triangle)  # those of the rows
    kept = sigma > sigma[0] * max(rows.shape) * torch.finfo(torch.float64).eps
    if not bool(kept.all()):
        basis = basis @ torch.linalg.svd(triangle, full_matrices=False)[0][:, kept]
    return float(basis.square().sum(1).max()) * len(rows) / int(kept.sum())
