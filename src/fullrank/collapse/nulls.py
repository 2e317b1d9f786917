"""Null values: what each metric reads for an isotropic Gaussian cloud of the same n and d, not simulated.

A rank measured on n rows is biased low, and no fixed threshold says by how much. Its null does: 256 rows of a
cloud with 512 equal directions have an effective rank of 236.
"""

from __future__ import annotations

import numpy as np

from fullrank.collapse.spectrum import auc, effective_rank

__all__ = [
    "null_alignment",
    "null_auc",
    "null_centred_share",
    "null_effective_rank",
    "null_level",
    "null_participation_ratio",
    "null_rankme",
    "null_singular_values",
    "null_uniformity",
]


def null_level(n: int, d: int) -> float:
    """1: the coordinates of a uniform unit vector have variance 1/d.

    Example:
        >>> null_level(1000, 512)
        1.0
    """
    return 1.0


def null_centred_share(n: int, d: int) -> float:
    """`1 - 1/n`: the mean of n rows keeps 1/n of their energy.

    Example:
        >>> null_centred_share(100, 512)
        0.99
    """
    return 1 - 1 / n


def null_alignment(n: int, d: int) -> float:
    """2: the squared distance of two unrelated unit vectors, `2 - 2 E cos`.

    Example:
        >>> null_alignment(100, 512)
        2.0
    """
    return 2.0


def null_uniformity(n: int, d: int, t: float = 2.0) -> float:
    """`log E exp(-t ||u - v||^2) = log 0F1(; d/2; t^2) - 2t` for independent uniform unit vectors.

    The hypergeometric function is its series `sum_k t^(2k) / ((d/2)_k k!)`, which 200 terms exhaust.

    Example:
        >>> round(null_uniformity(1000, 512), 3)
        -3.984
    """
    k = np.arange(200)
    return float(np.log(np.cumprod(np.r_[1.0, t * t / ((d / 2 + k) * (k + 1))]).sum()) - 2 * t)


def null_participation_ratio(n: int, d: int) -> float | None:
    """`(m d + 2) / (m + d + 1)` with m = n - 1: ratio of the Wishart moments `E tr(S)^2` and `E tr(S^2)`.

    About `n d / (n + d)`. None for a single row.

    Example:
        >>> round(null_participation_ratio(512, 512))
        256
    """
    m = n - 1
    return (m * d + 2) / (m + d + 1) if m > 0 else None


def null_singular_values(n: int, d: int, centred: bool = True) -> np.ndarray:
    """Typical singular values of isotropic rows [n, d], largest first: Marchenko-Pastur quantiles.

    The min(m, d) squared values, m = n - 1 degrees of freedom if centred, have the density
    `sqrt((b - x)(x - a)) / (2 pi g x)` on `[a, b] = (1 -+ sqrt(g))^2`, `g = min(m, d) / max(m, d)`
    (Marchenko and Pastur 1967). The k-th value is its quantile at `(k - 1/2) / min(m, d)`, times max(m, d).

    Returns:
        min(m, d) values for unit variance; none for a single centred row.

    Example:
        >>> null_singular_values(10_000, 3).round().tolist()
        [101.0, 100.0, 99.0]
    """
    m = n - 1 if centred else n
    few, many = min(m, d), max(m, d)
    if few == 0:
        return np.empty(0)
    g = few / many
    # With x = 1 + g - 2 sqrt(g) cos(angle) the square roots at both edges become a smooth sin^2.
    steps = 8192
    angle = (np.arange(steps) + 0.5) * np.pi / steps
    x = 1 + g - 2 * np.sqrt(g) * np.cos(angle)
    below = np.cumsum(np.sin(angle) ** 2 / x)
    quantiles = np.interp((np.arange(few)[::-1] + 0.5) / few, below / below[-1], x)
    values: np.ndarray = np.sqrt(many * quantiles)
    return values


def null_effective_rank(n: int, d: int) -> float | None:
    """Effective rank of the centred null spectrum. None for a single row.

    Example:
        >>> round(null_effective_rank(1024, 512))
        474
    """
    return effective_rank(null_singular_values(n, d))


def null_rankme(n: int, d: int) -> float | None:
    """Effective rank of the null spectrum that is not centred.

    Example:
        >>> round(null_rankme(256, 512))
        237
    """
    return effective_rank(null_singular_values(n, d, centred=False))


def null_auc(n: int, d: int) -> float | None:
    """AUC of the null spectrum, padded to d. None for a single row.

    Example:
        >>> round(null_auc(1024, 512), 2)
        0.61
    """
    return auc(null_singular_values(n, d), d)
