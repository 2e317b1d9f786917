"""Collapse metrics as pure functions of a spectrum, as `Moments` gives it. All are free of scale.

A metric of a spectrum that is zero is None: nothing varies, so nothing can be said of its directions.
"""

from __future__ import annotations

import numpy as np

__all__ = ["auc", "cumulative_curve", "effective_rank", "participation_ratio"]


def effective_rank(singular_values: np.ndarray, eps: float = 0.0) -> float | None:
    """The number of directions in use: `exp(-sum p log p)`, `p = sigma / sum sigma + eps`.

    Paper: Roy and Vetterli 2007 (EUSIPCO), definition 1. On singular values; on eigenvalues it is another,
    much smaller number.

    Args:
        singular_values: [k], not negative, of the centred or of the raw rows.
        eps: see `rankme`.

    Returns:
        In [1, k] for eps 0; None if the spectrum is zero.

    Sees dimensional collapse. Scale-free, so of a centred spectrum blind to complete collapse: noise around
    a constant has full rank.

    Example:
        >>> effective_rank(np.array([2.0, 2.0, 0.0]))
        2.0
    """
    total = singular_values.sum()
    if not total > 0:
        return None
    p = singular_values / total + eps
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def participation_ratio(eigenvalues: np.ndarray) -> float | None:
    """The number of directions that share the variance: `(sum lambda)^2 / sum lambda^2`.

    Paper: Gao et al. 2017 (bioRxiv 214262), equation 6.

    Args:
        eigenvalues: [k], of the covariance: squared singular values.

    Returns:
        In [1, k]; None if the spectrum is zero.

    Sees dimensional collapse of the leading directions. Blind to the tail: eigenvalues 1/k over 512
    dimensions read 28.

    Example:
        >>> participation_ratio(np.array([3.0, 3.0, 0.0]))
        2.0
    """
    total = eigenvalues.sum()
    if not total > 0:
        return None
    p = eigenvalues / total
    return float(1 / (p * p).sum())


def cumulative_curve(singular_values: np.ndarray, dim: int | None = None) -> np.ndarray | None:
    """`C_k = (sigma_1 + ... + sigma_k) / (sigma_1 + ... + sigma_d)` over k.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), equation 2: singular values, not their squares.

    Args:
        singular_values: [k], largest first, of the centred rows.
        dim: d; a shorter spectrum (n < d) is padded with zeros to it.

    Returns:
        [d or k], rising to 1; None if the spectrum is zero.

    Example:
        >>> cumulative_curve(np.array([3.0, 1.0]), dim=3).tolist()
        [0.75, 1.0, 1.0]
    """
    if dim is not None:
        singular_values = np.pad(singular_values, (0, max(0, dim - len(singular_values))))
    total = singular_values.sum()
    if not total > 0:
        return None
    curve: np.ndarray = np.cumsum(singular_values) / total
    return curve


def auc(singular_values: np.ndarray, dim: int | None = None) -> float | None:
    """Area under the cumulative curve of singular values: `(1/d) sum_k C_k`. Higher is more collapsed.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), section 3.

    Args:
        singular_values: [k], largest first, of the centred rows.
        dim: d; a shorter spectrum is padded with zeros to it.

    Returns:
        In [(d + 1) / 2d, 1]: about 0.5 for a flat spectrum, 1 for rank one; None if the spectrum is zero.

    Sees dimensional collapse, dead units too. Scale-free, so blind to complete collapse.

    Example:
        >>> auc(np.ones(4))
        0.625
    """
    curve = cumulative_curve(singular_values, dim)
    return None if curve is None else float(curve.mean())
