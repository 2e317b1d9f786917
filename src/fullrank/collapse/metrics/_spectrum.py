"""Spectra: checks of singular values or eigenvalues, and isotropic ones."""

from __future__ import annotations

import numpy as np

from fullrank.errors import UsageError


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
    """`checked_spectrum` over its largest value, padded to `dim`; None for zeros.

    Example:
        >>> relative_spectrum(np.array([1.0, 4.0]), dim=3).tolist()
        [1.0, 0.25, 0.0]
    """
    spectrum = checked_spectrum(values)
    if not len(spectrum) or spectrum[0] == 0:
        return None
    relative: np.ndarray = spectrum / spectrum[0]
    lacking = (dim or 0) - len(spectrum)
    return np.pad(relative, (0, lacking)) if lacking > 0 else relative


def isotropic_singular_values(n: int, d: int, centred: bool = True) -> np.ndarray:
    """Marchenko-Pastur quantiles: singular values of isotropic rows [n, d].

    The min(m, d) squared values, m = n - 1 degrees of freedom if centred, have the density
    `sqrt((b - x)(x - a)) / (2 pi g x)` on `[a, b] = (1 -+ sqrt(g))^2`, `g = min(m, d) / max(m, d)`
    (Marchenko and Pastur 1967). The k-th value is its quantile at `(k - 1/2) / min(m, d)`, times max(m, d).

    Returns:
        min(m, d) values for unit variance; none for a single centred row.

    Example:
        >>> isotropic_singular_values(10_000, 3).round().tolist()
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
