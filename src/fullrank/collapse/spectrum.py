"""Collapse metrics as pure functions of a spectrum, as `Moments` gives it: how many directions are in use.

All are free of scale, and so, on a centred spectrum, blind to complete collapse: noise around a constant has
full rank. A metric of a spectrum that is zero is None: nothing varies, so nothing can be said of its
directions. How a spectrum falls off from direction to direction is in `decay`.
"""

from __future__ import annotations

import math

import numpy as np

from fullrank.errors import UsageError

__all__ = [
    "auc",
    "auc_rescaled",
    "checked_spectrum",
    "cumulative_curve",
    "effective_rank",
    "isoscore",
    "matrix_entropy",
    "nesum",
    "numerical_rank",
    "participation_ratio",
    "participation_ratio_corrected",
    "relative_spectrum",
    "stable_rank",
]


def checked_spectrum(values: np.ndarray) -> np.ndarray:
    """The spectrum in float64, largest first.

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> checked_spectrum(np.array([1, 3])).tolist()
        [3.0, 1.0]
    """
    spectrum = np.asarray(values, dtype=np.float64)
    if spectrum.ndim != 1:
        raise UsageError(f"a spectrum is a vector of values; this one has the shape {list(spectrum.shape)}")
    bad = int((~(np.isfinite(spectrum) & (spectrum >= 0))).sum())
    if bad:
        raise UsageError(f"{bad} of {len(spectrum)} spectrum values are negative or not finite")
    ordered: np.ndarray = np.sort(spectrum)[::-1]
    return ordered


def relative_spectrum(values: np.ndarray, dim: int | None = None) -> np.ndarray | None:
    """The spectrum over its largest value, largest first, padded with zeros to `dim`; None if it is zero.

    Raises:
        UsageError: see `checked_spectrum`.

    Example:
        >>> relative_spectrum(np.array([1.0, 4.0]), dim=3).tolist()
        [1.0, 0.25, 0.0]
    """
    spectrum = checked_spectrum(values)
    if not len(spectrum) or spectrum[0] == 0:
        return None
    return np.pad(spectrum / spectrum[0], (0, max(0, (dim or 0) - len(spectrum))))


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
    a constant has full rank. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> effective_rank(np.array([2.0, 2.0, 0.0]))
        2.0
    """
    relative = relative_spectrum(singular_values)
    if relative is None:
        return None
    p = relative / relative.sum() + eps
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def stable_rank(singular_values: np.ndarray) -> float | None:
    """`||X||_F^2 / sigma_1^2`: how many directions as strong as the first would hold all the energy.

    Paper: Rudelson and Vershynin 2007 (arXiv math/0503442). Some libraries call it the numerical
    rank, which here is `numerical_rank`.

    Args:
        singular_values: [k], of the raw rows; of the centred rows it is `nesum`.

    Returns:
        In [1, k]; None if the spectrum is zero.

    Sees dimensional collapse, and complete collapse on raw rows. One strong direction, or a large common
    mean, is enough to lower it: blind to everything but the first direction. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> stable_rank(np.array([2.0, 1.0, 1.0]))
        1.5
    """
    relative = relative_spectrum(singular_values)
    return None if relative is None else float((relative**2).sum())


def nesum(eigenvalues: np.ndarray) -> float | None:
    """Normalised eigenvalue sum: `sum_i lambda_i / lambda_1` of the covariance.

    Paper: He and Ozay 2022 (ICML), definition 4.1. It is the stable rank of the centred rows.

    Args:
        eigenvalues: [k], of the covariance: squared singular values of the centred rows.

    Returns:
        In [1, k]; None if the spectrum is zero.

    Sees dimensional collapse and anisotropy. One outlying direction rules it; scale-free, so blind to
    complete collapse. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> nesum(np.array([4.0, 1.0, 1.0]))
        1.5
    """
    relative = relative_spectrum(eigenvalues)
    return None if relative is None else float(relative.sum())


def numerical_rank(singular_values: np.ndarray, tol: float = 1e-3) -> int:
    """How many singular values count: `#{i: sigma_i > tol sigma_1}`. To be reported with its `tol`.

    Paper: Golub and Van Loan 2013 (Matrix Computations).

    Args:
        singular_values: [k], of the raw or of the centred rows.
        tol: 1e-3 for what matters; `max(n, d) * 2.2e-16` for what is not rounding noise. `Moments` already
            reads noise as 0.

    Returns:
        In [0, k]; 0 if the spectrum is zero.

    Sees dimensional collapse that is all but exact. Blind to any decay above the tolerance, and to complete
    collapse on a centred spectrum. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> numerical_rank(np.array([1.0, 0.1, 1e-4])), numerical_rank(np.zeros(3))
        (2, 0)
    """
    relative = relative_spectrum(singular_values)
    return 0 if relative is None else int((relative > tol).sum())


def participation_ratio(eigenvalues: np.ndarray) -> float | None:
    """The number of directions that share the variance: `(sum lambda)^2 / sum lambda^2`.

    Paper: Gao et al. 2017 (bioRxiv 214262), equation 6.

    Args:
        eigenvalues: [k], of the covariance: squared singular values.

    Returns:
        In [1, k]; None if the spectrum is zero.

    Sees dimensional collapse of the leading directions. Blind to the tail: eigenvalues 1/k over 512
    dimensions read 28. Biased low on few rows: `1/PR_n` is about `1/n + 1/PR`. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> participation_ratio(np.array([3.0, 3.0, 0.0]))
        2.0
    """
    relative = relative_spectrum(eigenvalues)
    return None if relative is None else float(relative.sum() ** 2 / (relative * relative).sum())


def participation_ratio_corrected(eigenvalues: np.ndarray, n: int, dim: int) -> float | None:
    """The participation ratio without its bias from n rows.

    Formula: `a / b` with unbiased estimates of `a = (tr Sigma)^2` and `b = tr Sigma^2` for Gaussian rows,

        b = m^2 / ((m - 1)(m + 2)) (tr S^2 - (tr S)^2 / m),    a = (tr S)^2 - 2 b / m,    m = n - 1.

    Paper: the moments of Wishart matrices; arXiv 2509.26560 treats the bias and rows that are not Gaussian.

    Args:
        eigenvalues: [k], of the covariance S with n - 1 in the denominator, or any multiple of it.
        n: the number of rows they come from.
        dim: d.

    Returns:
        In [1, d], cut to it where the estimate scatters beyond; None if the spectrum is zero or n < 3.

    Sees what `participation_ratio` sees, at once at n < d. Heavy tails bias it; blind to
    the tail of the spectrum. Costs O(k).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> round(participation_ratio_corrected(np.array([3.0, 3.0, 3.0, 0.0]), n=10, dim=8), 2)
        4.67
    """
    relative, m = relative_spectrum(eigenvalues), n - 1
    if relative is None or m < 2:
        return None
    squared_trace = relative.sum() ** 2
    b = m * m / ((m - 1) * (m + 2)) * ((relative * relative).sum() - squared_trace / m)
    a = squared_trace - 2 * b / m
    return float(min(max(a / b, 1.0), dim)) if b > 0 else float(dim)


def isoscore(eigenvalues: np.ndarray, dim: int) -> float | None:
    """IsoScore: how evenly all d directions are used.

    Formula: `v = sqrt(d) lambda / ||lambda||_2`, the defect `delta = ||v - 1|| / sqrt(2 (d - sqrt d))`, used
    dimensions `m = d - delta^2 (d - sqrt d)`, score `(m^2 - d) / (d^2 - d)`; that is `(PR - 1) / (d - 1)`.
    Paper: Rudman et al. 2022 (arXiv 2108.07344).

    Args:
        eigenvalues: [k], of the covariance.
        dim: d; a shorter spectrum is padded with zeros to it.

    Returns:
        In [0, 1]: 0 for rank one, 1 for equal eigenvalues; None if the spectrum is zero or d is 1.

    Sees, and is blind to, what the participation ratio is: it is a function of it. Costs O(d).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> round(isoscore(np.array([1.0, 1.0, 0.0]), dim=3), 12)
        0.5
    """
    relative = relative_spectrum(eigenvalues, dim)
    if relative is None or dim < 2:
        return None
    v = math.sqrt(dim) * relative / np.linalg.norm(relative)
    defect = np.linalg.norm(v - 1) / math.sqrt(2 * (dim - math.sqrt(dim)))
    used = dim - defect**2 * (dim - math.sqrt(dim))
    return max(0.0, float((used**2 - dim) / (dim**2 - dim)))


def matrix_entropy(eigenvalues: np.ndarray, order: float = 1.0, size: int | None = None) -> float | None:
    """Matrix-based Renyi entropy: `S_a = log(sum q^a) / (1 - a) / log size`, `q = lambda / sum lambda`.

    For a = 1 its limit, the Shannon entropy of q. Paper: Giraldo et al. 2015 (arXiv 1211.2459);
    normalised as in arXiv 2502.02013.

    Args:
        eigenvalues: [k], of the Gram matrix, or of the second moment, which has the same: squared singular
            values, of unit rows that are not centred in the definition.
        order: a, above 0.
        size: what the largest value is the logarithm of, k by default; min(n, d) for an embedding.

    Returns:
        In [0, 1]; None if the spectrum is zero or the size is 1.

    Sees dimensional and, without centring, complete collapse; order 2 the leading directions only.
    Blind to the difference between a common mean and a lost direction. Costs O(k).

    Raises:
        UsageError: not a vector, values that are negative or not finite, or an order of 0 or less.

    Example:
        >>> matrix_entropy(np.array([1.0, 1.0, 0.0, 0.0])), matrix_entropy(np.ones(4), order=2)
        (0.5, 1.0)
    """
    if not order > 0:
        raise UsageError(f"the order of a Renyi entropy is above 0, not {order}")
    relative = relative_spectrum(eigenvalues)
    size = len(np.asarray(eigenvalues)) if size is None else size
    if relative is None or size < 2:
        return None
    q = relative[relative > 0] / relative.sum()
    entropy = float(-(q * np.log(q)).sum() if order == 1 else np.log((q**order).sum()) / (1 - order))
    return max(0.0, entropy) / math.log(size)


def cumulative_curve(singular_values: np.ndarray, dim: int | None = None) -> np.ndarray | None:
    """`C_k = (sigma_1 + ... + sigma_k) / (sigma_1 + ... + sigma_d)` over k.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), equation 2: singular values, not their squares.

    Args:
        singular_values: [k], of the centred rows.
        dim: d; a shorter spectrum (n < d) is padded with zeros to it.

    Returns:
        [d or k], rising to 1; None if the spectrum is zero.

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> cumulative_curve(np.array([3.0, 1.0]), dim=3).tolist()
        [0.75, 1.0, 1.0]
    """
    relative = relative_spectrum(singular_values, dim)
    if relative is None:
        return None
    curve: np.ndarray = np.cumsum(relative) / relative.sum()
    return curve


def auc(singular_values: np.ndarray, dim: int | None = None) -> float | None:
    """Area under the cumulative curve of singular values: `(1/d) sum_k C_k`. Higher is more collapsed.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), section 3.

    Args:
        singular_values: [k], of the centred rows.
        dim: d; a shorter spectrum is padded with zeros to it.

    Returns:
        In [(d + 1) / 2d, 1]: about 0.5 for a flat spectrum, 1 for rank one; None if the spectrum is zero.

    Sees dimensional collapse, dead units too. Scale-free, so blind to complete collapse. Costs O(d).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> auc(np.ones(4))
        0.625
    """
    curve = cumulative_curve(singular_values, dim)
    return None if curve is None else float(curve.mean())


def auc_rescaled(singular_values: np.ndarray, dim: int) -> float | None:
    """`auc` on a scale that does not depend on the width: `(2 AUC - 1 - 1/d) / (1 - 1/d)`.

    Paper: the measure of Li, Efros and Pathak 2022 (arXiv 2209.15007); the scale is ours.

    Args:
        singular_values: [k], of the centred rows.
        dim: d; a shorter spectrum is padded with zeros to it.

    Returns:
        In [0, 1]: 0 for a flat spectrum, 1 for rank one; None if the spectrum is zero or d is 1.

    Sees and is blind to what `auc` is. Costs O(d).

    Raises:
        UsageError: not a vector, or values that are negative or not finite.

    Example:
        >>> auc_rescaled(np.ones(4), dim=4), auc_rescaled(np.array([1.0]), dim=4)
        (0.0, 1.0)
    """
    area = auc(singular_values, dim)
    return None if area is None or dim < 2 else max(0.0, (2 * area - 1 - 1 / dim) / (1 - 1 / dim))
