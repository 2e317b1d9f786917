"""How unit rows lie on the sphere, and how evenly rows share in their span."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fullrank.collapse.metrics import centred_rows, moments_of
from fullrank.collapse.moments import Moments, finite_rows

__all__ = ["coherence", "self_cluster", "self_cluster_centred", "wasserstein_uniformity"]


def wasserstein_uniformity(z: Tensor | Moments) -> float:
    """Distance of unit rows, by their moments, from a cloud that is uniform on the sphere.

    Formula: the 2-Wasserstein distance from N(mu, S), the moments of the unit rows (S with 1/n), to
    N(0, I/d): `sqrt(||mu||^2 + 1 + tr S - (2 / sqrt d) tr S^(1/2))`. Paper: Fang et al. 2024 (arXiv
    2403.00642).

    Args:
        z: [n, d], or their moments.

    Returns:
        In [0, sqrt 2]: 0 for a uniform cloud of many rows, sqrt 2 for a constant. At n = 8 d an isotropic
        cloud reads 0.18.

    Sees complete and dimensional collapse. Blind to degrees of low rank: ranks 8 and 1 of 512 read
    1.32 and 1.38. Costs
    O(n d^2 + d^3).

    Raises:
        UsageError: not a matrix, no rows, or rows that are not finite.

    Example:
        >>> round(wasserstein_uniformity(torch.ones(10, 4)) ** 2, 12)
        2.0
    """
    unit = moments_of(z).unit
    n, d = unit.count, unit.dim
    mean = float(unit.mean.square().sum())
    spread = float(unit.second_moment.trace()) - mean
    root_trace = float(unit.singular_values().sum()) / math.sqrt(n)
    return math.sqrt(max(0.0, mean + 1 + spread - 2 / math.sqrt(d) * root_trace))


def self_cluster(z: Tensor | Moments) -> float | None:
    """SelfCluster: how much closer two rows lie on a line than on a uniform sphere.

    Formula: `(Q - E) / (n^2 - E)`, `Q = ||U^T U||_F^2` the sum of all squared cosines, of which
    `E = n + n (n - 1) / d` is expected. Paper: Tsitsulin et al. 2023 (arXiv 2305.16562), definition 3.5.

    Args:
        z: [n, d], or their moments; zero rows have no direction and are not counted.

    Returns:
        In [-1 / (n - 1), 1]: 1 for one point or line, about 0 on a uniform sphere, about
        `(1/r - 1/d) / (1 - 1/d)` for rank r; None with fewer than two rows that are not zero, and for d = 1.

    Sees complete collapse, low ranks, few clusters. Nearly blind to the difference between high
    ranks: 64 of 512 reads 0.014. Costs O(n d^2).

    Raises:
        UsageError: not a matrix, no rows, or rows that are not finite.

    Example:
        >>> self_cluster(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])), self_cluster(torch.eye(2))
        (1.0, -1.0)
    """
    unit = moments_of(z).unit
    n, d = round(float(unit.outer.trace())), unit.dim
    if n < 2 or d < 2:
        return None
    expected = n + n * (n - 1) / d
    return min(1.0, (float(unit.outer.square().sum()) - expected) / (n * n - expected))


def self_cluster_centred(z: Tensor) -> float | None:
    """`self_cluster` of the rows less their mean, so that a common mean does not read as one cluster.

    Paper: Tsitsulin et al. 2023 (arXiv 2305.16562), definition 3.5, after centring.

    Args:
        z: [n, d].

    Returns:
        In [-1 / (n - 1), 1]; None for a constant, for fewer than two rows off the mean and for d = 1.

    Sees low ranks and clusters beside a large mean. Blind to complete collapse: noise around a constant reads
    0. Costs O(n d^2).

    Raises:
        UsageError: not a matrix, no rows, or rows that are not finite.

    Example:
        >>> round(self_cluster_centred(9 + torch.tensor([[1.0, 0.0], [-2.0, 0.0], [3.0, 0.0]])), 12)
        1.0
    """
    rows = finite_rows(z)
    return self_cluster(centred_rows(rows)) if len(rows) else None


def coherence(z: Tensor) -> float | None:
    """Coherence: how much of its span the most exposed row has to itself.

    Formula: `mu0 = (n / r) max_i ||U_i||^2` with the left singular vectors U [n, r] of the raw rows, r their
    numerical rank. Papers: Candes and Recht 2009 (arXiv 0805.4471), definition 1.2; Tsitsulin et al. 2023
    (arXiv 2305.16562).

    Args:
        z: [n, d].

    Returns:
        In [1, n / r]: 1 where all rows share alike, n / r where a direction belongs to a single row; None if
        all rows are zero.

    Sees outliers. Blind to every collapse: a constant reads 1. A maximum, so one row decides, and another
    sample of rows another. Costs O(n d^2).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> round(coherence(torch.eye(4)), 6), round(coherence(torch.eye(4).repeat(3, 1)[:9]), 6)
        (1.0, 1.125)
    """
    rows = finite_rows(z)
    if not bool(rows.any()):
        return None
    # Scaled first: squares of very small or large rows would leave the range of floats.
    basis, triangle = torch.linalg.qr(rows / rows.abs().max())
    sigma = torch.linalg.svdvals(triangle)  # those of the rows
    kept = sigma > sigma[0] * max(rows.shape) * torch.finfo(torch.float64).eps
    if not bool(kept.all()):
        basis = basis @ torch.linalg.svd(triangle, full_matrices=False)[0][:, kept]
    return float(basis.square().sum(1).max()) * len(rows) / int(kept.sum())
