"""Decay of a spectrum: slopes, shares and condition numbers.

All are free of scale, take a vector of singular values or of eigenvalues of the covariance, and are None
where it is zero. `dim` is d, to which a shorter spectrum (n < d) is padded with zeros.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from fullrank.collapse.metrics._definition import SCALE_FREE, metric
from fullrank.collapse.metrics._spectrum import checked_spectrum, relative_spectrum
from fullrank.errors import UsageError

_TSITSULIN = "Tsitsulin et al. 2023, arXiv 2305.16562"
_UNDEFINED = "D: undefined as soon as a direction is lost"

_slope = partial(
    metric, needs="spectrum", spectrum="centred", high="1", better="low", sees="D", blind=SCALE_FREE
)
_condition = partial(_slope, low="1", high="inf", sees="DU", reference=f"after {_TSITSULIN}")


def cumulative_curve(singular_values: np.ndarray, dim: int | None = None) -> np.ndarray | None:
    """`C_k = (sigma_1 + ... + sigma_k) / (sigma_1 + ... + sigma_d)` over k.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), equation 2: singular values, not their squares.

    Returns:
        [d or k], rising to 1; None if the spectrum is zero.

    Example:
        >>> cumulative_curve(np.array([3.0, 1.0]), dim=3).tolist()
        [0.75, 1.0, 1.0]
    """
    relative = relative_spectrum(singular_values, dim)
    if relative is None:
        return None
    curve: np.ndarray = np.cumsum(relative) / relative.sum()
    return curve


@_slope(
    "auc",
    label="AUC of the spectrum",
    low="(d + 1) / (2 * d)",
    reference="Li, Efros and Pathak 2022, arXiv 2209.15007",
    baseline="spectrum",
    panel=8,
)
def auc(singular_values: np.ndarray, dim: int | None = None) -> float | None:
    """Area under the cumulative curve of singular values, `(1/d) sum_k C_k`.

    Higher is more collapsed.

    Paper: Li, Efros and Pathak 2022 (arXiv 2209.15007), section 3.

    Returns:
        In [(d + 1) / 2d, 1]: about 0.5 for a flat spectrum, 1 for rank one; None if the spectrum is zero.

    Example:
        >>> auc(np.ones(4))
        0.625
    """
    curve = cumulative_curve(singular_values, dim)
    return None if curve is None else float(curve.mean())


@_slope("auc_rescaled", label="rescaled AUC of the spectrum", reference="`auc` between flat and rank one")
def auc_rescaled(singular_values: np.ndarray, dim: int) -> float | None:
    """`auc` free of the width: `(2 AUC - 1 - 1/d) / (1 - 1/d)`.

    Paper: the measure of Li, Efros and Pathak 2022 (arXiv 2209.15007); the scale is ours.

    Returns:
        In [0, 1]: 0 for a flat spectrum, 1 for rank one; None if the spectrum is zero or d is 1.

    Example:
        >>> auc_rescaled(np.ones(4), dim=4), auc_rescaled(np.array([1.0]), dim=4)
        (0.0, 1.0)
    """
    area = auc(singular_values, dim)
    return None if area is None or dim < 2 else max(0.0, (2 * area - 1 - 1 / dim) / (1 - 1 / dim))


@_slope(
    "early_enrichment",
    power=2,
    high="1 - 1 / d",
    blind=f"the tail; {SCALE_FREE}",
    reference="NerVE, arXiv 2603.06922",
)
def early_enrichment(eigenvalues: np.ndarray, dim: int | None = None) -> float | None:
    """Eigenvalue early enrichment: `(2/d) sum_k (S_k - k/d)`.

    S_k is the share of the variance in the first k directions.

    The sibling of `auc` on squared singular values: `2 AUC(lambda) - (d + 1) / d`. Paper: NerVE (arXiv
    2603.06922).

    Returns:
        In [0, 1 - 1/d]: 0 for a flat spectrum, 1 - 1/d for rank one; None if the spectrum is zero.

    Example:
        >>> early_enrichment(np.ones(4)), early_enrichment(np.array([1.0]), dim=4)
        (0.0, 0.75)
    """
    area = auc(eigenvalues, dim)
    d = max(dim or 0, len(np.asarray(eigenvalues)))
    return None if area is None else max(0.0, 2 * area - (d + 1) / d)


class AlphaReQ(NamedTuple):
    """The fitted decay of a spectrum.

    Attributes:
        alpha: the exponent of `lambda_j ~ j^-alpha`.
        r2: weighted share of the variance of log lambda that the line explains, in [0, 1].
        first: first index of the fit, from 1.
        last: last index of the fit, itself included; less than asked for where eigenvalues are zero.
    """

    alpha: float
    r2: float
    first: int
    last: int


@_slope(
    "alpha_req",
    label="alpha-ReQ",
    power=2,
    part="alpha",
    high="inf",
    better="near 1",
    sees="DU",
    blind=f"both ends of the spectrum, and the range of the fit changes it; {SCALE_FREE}",
    reference="Agrawal et al. 2022, NeurIPS",
    diagnostics=True,
)
def alpha_req(eigenvalues: np.ndarray, first: int = 10, last: int = 100) -> AlphaReQ | None:
    """alpha-ReQ: the exponent of a power law through the eigenvalues.

    Formula: `log lambda_j = -alpha log j + b` by least squares over j = first..last with weights 1/j. Papers:
    Agrawal et al. 2022 (NeurIPS); the weights are those of Stringer et al. 2019 (Nature 571).

    Args:
        eigenvalues: [k], of the covariance: squared singular values of the centred rows.
        first: first index of the fit, from 1.
        last: last index of the fit.

    Returns:
        alpha near 1 where embeddings were found to serve best, above it the tail is lost, near 0 it is white
        or noise. None with fewer than three eigenvalues above zero in the range.

    Example:
        >>> fit = alpha_req(np.arange(1, 65) ** -1.5)
        >>> round(fit.alpha, 6), round(fit.r2, 6), fit.first, fit.last
        (1.5, 1.0, 10, 64)
    """
    if not 1 <= first < last:
        raise UsageError(f"a fit needs indices 1 <= first < last, not {first} to {last}")
    spectrum = checked_spectrum(eigenvalues)
    last = min(last, int((spectrum > 0).sum()))
    if last - first < 2:
        return None
    j = np.arange(first, last + 1)
    x, y, w = np.log(j), np.log(spectrum[first - 1 : last]), 1 / j
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    slope = (w * x * y).sum() / (w * x * x).sum()
    spread = (w * y * y).sum()
    unexplained = (w * (y - slope * x) ** 2).sum()
    r2 = 1.0 if spread == 0 else max(0.0, 1 - unexplained / spread)
    return AlphaReQ(float(-slope), float(r2), first, last)


@_slope(
    "top_share",
    label="share of the first direction",
    power=2,
    low="1 / min(n, d)",
    sees="DU",
    blind=f"all but the first direction; {SCALE_FREE}",
    reference="`lambda_1 / sum lambda`",
)
def top_share(eigenvalues: np.ndarray) -> float | None:
    """Spectral anisotropy: share of the first direction, `lambda_1 / sum lambda`.

    Returns:
        In [1/k, 1]: 1/k for a flat spectrum, 1 for rank one; None if the spectrum is zero.

    Example:
        >>> top_share(np.array([2.0, 1.0, 1.0]))
        0.5
    """
    relative = relative_spectrum(eigenvalues)
    return None if relative is None else float(1 / relative.sum())


@_slope(
    "inverse_condition_number",
    better="high",
    sees="DU",
    blind="how much is lost: one dead unit reads 0",
    reference=_TSITSULIN,
)
def inverse_condition_number(singular_values: np.ndarray, dim: int | None = None) -> float | None:
    """`sigma_d / sigma_1`: the other convention under the same name in the literature.

    Paper: Tsitsulin et al. 2023 (arXiv 2305.16562), "pseudo-condition number".

    Returns:
        In [0, 1]: 1 for a flat spectrum, 0 where a direction is lost; None if the spectrum is zero.

    Example:
        >>> inverse_condition_number(np.array([4.0, 2.0])), inverse_condition_number(np.array([4.0]), dim=2)
        (0.5, 0.0)
    """
    relative = relative_spectrum(singular_values, dim)
    return None if relative is None else float(relative[-1])


@_condition("condition_number", options={"share": 1.0}, sees="U", blind=_UNDEFINED, reference=_TSITSULIN)
@_condition("condition_90", options={"share": 0.9}, blind=f"the last tenth of the spectrum; {SCALE_FREE}")
@_condition(
    "condition_99", options={"share": 0.99}, blind=f"the last hundredth of the spectrum; {SCALE_FREE}"
)
def condition_at(singular_values: np.ndarray, share: float = 0.9, dim: int | None = None) -> float | None:
    """Condition number despite dead units: `sigma_1 / sigma_q`, q = ceil(share d).

    Paper: the measure of Tsitsulin et al. 2023 (arXiv 2305.16562), taken before the end of the spectrum.

    Args:
        singular_values: [k], of the raw or of the centred rows.
        share: in (0, 1]; 1 is the condition number `sigma_1 / sigma_d`.
        dim: d; a shorter spectrum is padded with zeros to it.

    Returns:
        At least 1; None where it would be infinite: more than 1 - share of the directions are lost.

    Raises:
        UsageError: a share outside (0, 1].

    Example:
        >>> condition_at(np.array([4.0, 2.0, 1.0, 0.0]), share=0.75)
        4.0
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of the directions lies in (0, 1], not {share}")
    relative = relative_spectrum(singular_values, dim)
    if relative is None:
        return None
    value = relative[max(1, math.ceil(share * len(relative) - 1e-9)) - 1]
    return float(1 / value) if value > 1 / np.finfo(np.float64).max else None
