"""Collapse metrics as pure functions of embedding rows [n, d]; those of a spectrum are in `spectrum`.

None of them sees every collapse, which is why they are read as a panel. A value that a metric does not define
(a rank of a zero spectrum, a spread of one row) is None; no finite input gives NaN. Where the moments of the
rows are enough, they are taken in place of the rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fullrank.collapse.moments import Moments, finite_rows, unit_rows
from fullrank.collapse.spectrum import effective_rank
from fullrank.errors import UsageError

__all__ = [
    "alignment",
    "centred_rows",
    "centred_share",
    "hinge_std",
    "level",
    "mean_cosine",
    "mean_cosine_centred",
    "moments_of",
    "norm_variation",
    "rankme",
    "sparsity",
    "uniformity",
]


def moments_of(z: Tensor | Moments) -> Moments:
    """Moments as they are, or those of rows [n, d]; raises UsageError where there are no rows."""
    moments = z if isinstance(z, Moments) else Moments.of(z)
    _ = moments.mean  # says that no rows were seen
    return moments


def centred_rows(rows: Tensor) -> Tensor:
    """The rows less their mean; identical rows give exactly 0, whatever the rounding of a mean."""
    shifted = rows - rows[:1]
    return shifted - shifted.mean(0)


def level(z: Tensor | Moments) -> float | None:
    """How much unit-length rows vary: `r = sqrt(d) * mean_j std_i(u_ij)`, `u = z / ||z||`, unbiased std.

    Paper: Chen and He 2021 (arXiv 2011.10566), section 4.1 and figure 2, here times sqrt(d).

    Args:
        z: [n, d], or their moments.

    Returns:
        In [0, 1] (up to 1 / n): 0 for a constant, 1 for an isotropic cloud; None for a single row.

    Sees complete collapse. Blind to dimensional collapse: eight directions of 512 read 0.97. A large common
    mean lowers it although no direction is lost. Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> level(torch.ones(10, 4))
        0.0
    """
    if isinstance(z, Moments):
        return float(z.unit.variances.sqrt().mean()) * math.sqrt(z.dim) if z.count > 1 else None
    rows = finite_rows(z)
    return float(level_of_rows(rows)) if len(rows) > 1 else None


def level_of_rows(rows: Tensor) -> Tensor:
    """`level` of two or more rows as a scalar tensor on their device: no check, no synchronisation."""
    unit = unit_rows(rows)
    # The first row is subtracted so that identical rows give exactly 0, whatever the rounding of a mean.
    return (unit - unit[:1]).std(0).mean() * math.sqrt(rows.shape[1])


def centred_share(z: Tensor | Moments) -> float | None:
    """The share of the energy that varies: `tr(Cov) / E||z||^2 = 1 - ||E z||^2 / E||z||^2`.

    A level check beside the rank metrics, which centring would otherwise leave with noise (spec 4.22).

    Args:
        z: [n, d], or their moments.

    Returns:
        In [0, 1]: 0 for a constant, 1 for zero mean; None for a single row.

    Sees complete collapse, also where the norms differ. Blind to dimensional collapse. Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> centred_share(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        0.5
    """
    moments = moments_of(z)
    return moments.centred_share if moments.count > 1 else None


def hinge_std(z: Tensor | Moments, target: float = 1.0) -> float | None:
    """The variance term of VICReg: `mean_j max(0, target - sqrt(var_j + 1e-4))`, rows as they are.

    Paper: Bardes et al. 2022 (arXiv 2105.04906).

    Args:
        z: [n, d], or their moments.
        target: the std that every coordinate should have.

    Returns:
        In [0, target]: 0 where every coordinate varies enough, target - 0.01 for a constant; None for a
        single row.

    Sees complete collapse and dead units. Blind to dimensional collapse across coordinates; depends on scale.
    Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> hinge_std(torch.ones(10, 4)), hinge_std(2 * torch.eye(2))
        (0.99, 0.0)
    """
    moments = moments_of(z)
    if moments.count < 2:
        return None
    return float((target - (moments.variances + 1e-4).sqrt()).clamp_min(0).mean())


def mean_cosine(z: Tensor | Moments) -> float | None:
    """Mean cosine of two different rows: `(||sum u||^2 - sum ||u||^2) / (n (n - 1))`.

    Paper: Ethayarajh 2019 (arXiv 1909.00512), section 3.2, as anisotropy.

    Args:
        z: [n, d], or their moments.

    Returns:
        In [-1 / (n - 1), 1]: 1 for a constant, 0 for an isotropic cloud; None for a single row.

    Sees complete collapse. Blind to dimensional collapse around a zero mean; a few rogue dimensions drive it.
    Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> mean_cosine(torch.eye(3))
        0.0
    """
    if isinstance(z, Moments):
        n, total, energy = z.count, z.unit.total, z.unit.squares.sum()
    else:
        unit = unit_rows(finite_rows(z))
        n, total, energy = len(unit), unit.sum(0), unit.square().sum()
    return float((total.square().sum() - energy) / (n * (n - 1))) if n > 1 else None


def mean_cosine_centred(z: Tensor) -> float | None:
    """`mean_cosine` of the rows less their mean: anisotropy that no common mean explains.

    Paper: Timkey and van Schijndel 2021 (arXiv 2109.04404).

    Args:
        z: [n, d].

    Returns:
        In [-1 / (n - 1), 1], about 0 for most embeddings, above it for a cloud with outliers in one
        direction; None for a single row and for a constant.

    Sees skewed clouds. Blind to every collapse around a mean. Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> round(mean_cosine_centred(5 + torch.eye(3)), 12)
        -0.5
    """
    rows = finite_rows(z)
    if len(rows) < 2:
        return None
    centred = centred_rows(rows)
    return mean_cosine(centred) if bool(centred.any()) else None


def norm_variation(z: Tensor) -> float | None:
    """Coefficient of variation of the row norms: `std_i ||z_i|| / mean_i ||z_i||`, biased std.

    Paper: Draganov et al. 2025 (arXiv 2502.09252), on the role of embedding norms.

    Args:
        z: [n, d].

    Returns:
        In [0, sqrt(n - 1)]: 0 where all rows are equally long; None without rows and for all-zero rows.

    Sees what unit rows hide: norms that carry the information. Blind to every collapse of directions; a
    constant reads 0. Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> norm_variation(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        0.5
    """
    norms = torch.linalg.vector_norm(finite_rows(z), dim=1)
    if not bool(norms.any()):
        return None
    # Less the first norm, so that equal ones give exactly 0.
    return float((norms - norms[0]).std(correction=0) / norms.mean())


def sparsity(z: Tensor) -> float | None:
    """How spread out a row is over its coordinates: `mean_i ||z_i||_1 / (sqrt(d) ||z_i||_2)`.

    Reference: the l1/l2 companion of arXiv 2602.01456; Hurley and Rickard 2009 compare such measures.

    Args:
        z: [n, d]; zero rows are passed over.

    Returns:
        In [1 / sqrt(d), 1]: the lower end for one coordinate a row, 1 for equal sizes, sqrt(2 / pi) = 0.80
        for Gaussian rows; None where all rows are zero.

    Sees codes that are one-hot. Blind to collapse: a constant reads what its one row reads. Costs O(n d).

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> sparsity(torch.eye(4)), sparsity(torch.ones(2, 4))
        (0.5, 1.0)
    """
    unit = unit_rows(finite_rows(z))
    share = unit.abs().sum(1)[unit.any(1)]
    return float(share.mean() / math.sqrt(unit.shape[1])) if len(share) else None


def alignment(za: Tensor, zb: Tensor) -> float | None:
    """Mean squared distance of the unit-length embeddings of two views: `mean ||u_a - u_b||^2`.

    Paper: Wang and Isola 2020 (arXiv 2005.10242), section 4.1, with alpha = 2.

    Args:
        za: [n, d], first views.
        zb: [n, d], second views of the same images, row by row.

    Returns:
        In [0, 4]: 0 for views that agree, 2 for unrelated ones; None without rows.

    Sees what the objective sees. Blind to every collapse: a constant is perfectly aligned. Costs O(n d).

    Raises:
        UsageError: not matrices of one shape, or rows that are not finite.

    Example:
        >>> alignment(torch.eye(3), torch.eye(3).roll(1, 0))
        2.0
    """
    if za.shape != zb.shape:
        raise UsageError(f"two views have one shape; these have {list(za.shape)} and {list(zb.shape)}")
    ua, ub = unit_rows(finite_rows(za)), unit_rows(finite_rows(zb))
    return float((ua - ub).square().sum(1).mean()) if len(ua) else None


def uniformity(z: Tensor, t: float = 2.0) -> float | None:
    """How evenly unit-length rows fill the sphere: `log mean_{i<j} exp(-t ||u_i - u_j||^2)`.

    Paper: Wang and Isola 2020 (arXiv 2005.10242), section 4.1. Costs O(n^2 d): a few thousand
    rows suffice.

    Args:
        z: [n, d].
        t: inverse temperature, above 0.

    Returns:
        In [-4t, 0]: 0 for a constant, near -2t for an isotropic cloud in many dimensions; None for one row.

    Sees complete collapse, partly clusters. Nearly blind to dimensional collapse: 64 directions of 512 read
    -3.88 instead of -3.99. Repeated rows raise it.

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 6)
        -8.0
    """
    unit = unit_rows(finite_rows(z))
    n = len(unit)
    if n < 2:
        return None
    # A block of rows against itself and all later ones, so that no [n, n] matrix is made.
    blocks = (torch.cdist(unit[i : i + 256], unit[i:]) for i in range(0, n, 256))
    kernel = torch.stack([block.square_().mul_(-t).exp_().triu_(1).sum() for block in blocks]).sum()
    return min(0.0, math.log(float(kernel) / (n * (n - 1) / 2)))


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

    Sees dimensional and complete collapse. A large common mean lowers it although no direction is lost.

    Raises:
        UsageError: not a matrix, or rows that are not finite.

    Example:
        >>> rankme(torch.ones(10, 4))
        1.0
    """
    return effective_rank(Moments.of(z).singular_values(centred=False), eps)
