"""Numbers of directions in use, from a spectrum as `Moments` gives it.

All are free of scale, and so, on a centred spectrum, blind to complete collapse: noise around a constant has
full rank. They take a vector of singular values or of eigenvalues, of the covariance where rows are centred,
and lie between 1 and its length; None if it is zero, for nothing varies. `dim` is d, to which a shorter
spectrum is padded with zeros.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from torch import Tensor

from fullrank.collapse.metrics._definition import ALL_CHANGES, LARGE_MEAN, ROW_CHANGES, SCALE_FREE, metric
from fullrank.collapse.metrics._spectrum import relative_spectrum
from fullrank.collapse.moments import Moments
from fullrank.errors import UsageError

_ROY = "Roy and Vetterli 2007, EUSIPCO"
_RANKME = "RankMe, arXiv 2210.02885"
_RUDELSON = "Rudelson and Vershynin 2007, arXiv math/0503442"
_GOLUB = "Golub and Van Loan 2013"
_GIRALDO = "Giraldo et al. 2015, arXiv 1211.2459"
_ONCE = ALL_CHANGES - {"replication"}

_share = partial(metric, needs="spectrum", spectrum="centred", high="1", sees="D", blind=SCALE_FREE)
_rank = partial(_share, unit="directions", low="1", high="min(n, d)")
_raw = partial(_rank, spectrum="uncentred", sees="CD", blind=LARGE_MEAN, invariances=ROW_CHANGES)
_published = partial(_raw, low="0.9999", invariances=ROW_CHANGES - {"replication"})
_unit = partial(_raw, needs="unit spectrum", spectrum="unit")
_entropy = partial(_unit, unit="", power=2, low="0", high="1", invariances=ROW_CHANGES - {"replication"})


@_rank(
    "erank_centred",
    label="centred effective rank",
    reference=_ROY,
    baseline="spectrum",
    panel=3,
)
@_rank("erank_eigenvalues", power=2, reference=f"{_ROY}, on eigenvalues")
@_raw(
    "rankme_uncentred",
    label="uncentred RankMe",
    reference=f"{_RANKME}, with eps 0",
    baseline="spectrum",
    panel=4,
)
@_published("rankme_published", options={"eps": 1e-7}, high="min(n, d) * exp(1.7e-6 * d)", reference=_RANKME)
@_published(
    "rankme_spt",
    options={"eps": 1e-5},
    high="min(n, d) * exp(1.2e-4 * d)",
    blind=f"{LARGE_MEAN}; rank one at d = 2048 reads 1.27",
    reference="RankMe as in stable-pretraining",
)
@_rank(
    "rankme_reptrix",
    power=2,
    options={"eps": 1e-7},
    low="0.9999",
    high="min(n, d) * exp(1.7e-6 * d)",
    blind=f"{SCALE_FREE}; much smaller than any other RankMe",
    reference="RankMe as in reptrix",
    invariances=_ONCE,
)
@_unit(
    "rankme_unit",
    label="RankMe of unit rows",
    reference=f"{_RANKME}, of unit rows, with eps 0",
    baseline="spectrum",
    panel=5,
)
def effective_rank(singular_values: np.ndarray, eps: float = 0.0) -> float | None:
    """Effective rank: `exp(-sum p log p)`, `p = sigma / sum sigma + eps`.

    Paper: Roy and Vetterli 2007 (EUSIPCO), definition 1. On singular values; on eigenvalues it is another,
    much smaller number.

    Args:
        singular_values: [k], not negative, of the centred or of the raw rows.
        eps: see `rankme`.

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


def rankme(z: Tensor, eps: float = 0.0) -> float | None:
    """RankMe: the effective rank of the embedding matrix as it is, not centred.

    Formula: `exp(-sum_k p_k log p_k)`, `p_k = sigma_k / ||sigma||_1 + eps`. Paper: Garrido et al. 2023 (arXiv
    2210.02885), equations 1 and 2. `eps` is part of the published form; 1e-5 gives the numbers of
    stable-pretraining. It inflates small ranks (rank one at d = 2048 reads 1.27), hence 0 here.

    Args:
        z: [n, d].
        eps: added to every p_k, which are not normalised again.

    Returns:
        In [1, min(n, d)] for eps 0; None if all rows are zero.

    Example:
        >>> import torch
        >>> rankme(torch.ones(10, 4))
        1.0
    """
    return effective_rank(Moments.of(z).singular_values(centred=False), eps)


@_raw("stable_rank", blind=f"all but the first direction; {LARGE_MEAN}", reference=_RUDELSON)
def stable_rank(singular_values: np.ndarray) -> float | None:
    """Stable rank: `||X||_F^2 / sigma_1^2`.

    Paper: Rudelson and Vershynin 2007 (arXiv math/0503442). Some libraries call it the numerical
    rank, which here is `numerical_rank`.

    Example:
        >>> stable_rank(np.array([2.0, 1.0, 1.0]))
        1.5
    """
    relative = relative_spectrum(singular_values)
    return None if relative is None else float((relative**2).sum())


@_rank(
    "nesum",
    label="normalised eigenvalue sum (NESum)",
    power=2,
    sees="DU",
    blind=f"all but the first direction; {SCALE_FREE}",
    reference="He and Ozay 2022, ICML",
)
def nesum(eigenvalues: np.ndarray) -> float | None:
    """Normalised eigenvalue sum: `sum_i lambda_i / lambda_1` of the covariance.

    Paper: He and Ozay 2022 (ICML), definition 4.1. It is the stable rank of the centred rows.

    Example:
        >>> nesum(np.array([4.0, 1.0, 1.0]))
        1.5
    """
    relative = relative_spectrum(eigenvalues)
    return None if relative is None else float(relative.sum())


@_rank(
    "numerical_rank",
    low="0",
    blind=f"any decay above its tolerance, 1e-3 of the largest singular value; {SCALE_FREE}",
    reference=_GOLUB,
    baseline=lambda n, d: float(min(n - 1, d)),
    panel=7,
)
def numerical_rank(singular_values: np.ndarray, tol: float = 1e-3) -> int:
    """Numerical rank: `#{i: sigma_i > tol sigma_1}`, to be reported with `tol`.

    Args:
        singular_values: [k], of the raw or of the centred rows.
        tol: 1e-3 for what matters; `max(n, d) * 2.2e-16` for what is not rounding noise. `Moments` already
            reads noise as 0.

    Returns:
        In [0, k]; 0 if the spectrum is zero.

    Example:
        >>> numerical_rank(np.array([1.0, 0.1, 1e-4])), numerical_rank(np.zeros(3))
        (2, 0)
    """
    relative = relative_spectrum(singular_values)
    return 0 if relative is None else int((relative > tol).sum())


def _participation_of_noise(n: int, d: int) -> float | None:
    """`(m d + 2) / (m + d + 1)`, m = n - 1, by Wishart moments."""
    m = n - 1
    return (m * d + 2) / (m + d + 1) if m > 0 else None


@_rank(
    "participation_ratio",
    power=2,
    blind=f"the tail; biased low by n rows; {SCALE_FREE}",
    reference="Gao et al. 2017, bioRxiv 214262",
    baseline=_participation_of_noise,
    panel=6,
)
def participation_ratio(eigenvalues: np.ndarray) -> float | None:
    """Participation ratio: `(sum lambda)^2 / sum lambda^2`.

    Paper: Gao et al. 2017 (bioRxiv 214262), equation 6.

    Example:
        >>> participation_ratio(np.array([3.0, 3.0, 0.0]))
        2.0
    """
    relative = relative_spectrum(eigenvalues)
    return None if relative is None else float(relative.sum() ** 2 / (relative * relative).sum())


@_rank(
    "participation_ratio_corrected",
    power=2,
    high="d",
    blind=f"the tail; rows that are not Gaussian bias it; {SCALE_FREE}",
    reference="Wishart moments; arXiv 2509.26560",
    invariances=_ONCE,
)
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


@_share(
    "isoscore",
    label="IsoScore",
    power=2,
    sees="DU",
    blind="what the participation ratio is blind to: it is a function of it",
    reference="IsoScore, arXiv 2108.07344",
)
def isoscore(eigenvalues: np.ndarray, dim: int) -> float | None:
    """IsoScore: how evenly all d directions are used.

    Formula: `v = sqrt(d) lambda / ||lambda||_2`, the defect `delta = ||v - 1|| / sqrt(2 (d - sqrt d))`, used
    dimensions `m = d - delta^2 (d - sqrt d)`, score `(m^2 - d) / (d^2 - d)`; that is `(PR - 1) / (d - 1)`.
    Paper: Rudman et al. 2022 (arXiv 2108.07344).

    Returns:
        In [0, 1]: 0 for rank one, 1 for equal eigenvalues; None if the spectrum is zero or d is 1.

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


@_entropy("matrix_entropy", reference=f"{_GIRALDO}; arXiv 2502.02013")
@_entropy(
    "matrix_entropy_order2", options={"order": 2.0}, blind=f"the tail; {LARGE_MEAN}", reference=_GIRALDO
)
def matrix_entropy(eigenvalues: np.ndarray, order: float = 1.0, size: int | None = None) -> float | None:
    """Matrix-based Renyi entropy: `log(sum q^a) / (1 - a) / log size`.

    The eigenvalues lambda give `q = lambda / sum lambda`.

    For a = 1 its limit, the Shannon entropy of q. Paper: Giraldo et al. 2015 (arXiv 1211.2459);
    normalised as in arXiv 2502.02013.

    Args:
        eigenvalues: [k], of the Gram matrix, or of the second moment, which has the same: squared singular
            values, of unit rows that are not centred in the definition.
        order: a, above 0.
        size: what the largest value is the logarithm of, k by default; min(n, d) for an embedding.

    Returns:
        In [0, 1]; None if the spectrum is zero or the size is 1.

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
