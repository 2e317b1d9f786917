"""Level of the rows: whether they vary at all, and their mean and lengths."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import ALL_CHANGES, LARGE_MEAN, ROW_CHANGES, metric
from fullrank.collapse.moments import Moments, centred_rows, finite_rows, moments_of, unit_rows

_ETHAYARAJH = "Ethayarajh 2019, arXiv 1909.00512"
_TIMKEY = "Timkey and van Schijndel 2021, arXiv 2109.04404"
_ROGUE = "D around a zero mean; a few rogue dimensions drive it"
_ONCE = ALL_CHANGES - {"replication"}
_TURNED = ROW_CHANGES - {"replication"}

_moment = partial(metric, needs="moments", high="1", sees="C", cost="n d")
_cosine = partial(metric, low="-1 / (n - 1)", high="1", better="low", cost="n d", invariances=_ONCE)


@_moment(
    "level",
    label="normalized std (level)",
    high="sqrt(n / (n - 1))",
    blind=f"D: eight directions of 512 read 0.97; {LARGE_MEAN}",
    reference="Chen and He 2021, arXiv 2011.10566",
    invariances=frozenset({"scale", "permutation"}),
    baseline=lambda n, d: 1.0,  # coordinates of a uniform unit vector have variance 1/d
    panel=1,
    threshold="level",
)
def level(z: Tensor | Moments) -> float | None:
    """Normalized std (level): `sqrt(d) * mean_j std_i(u_ij)`, `u = z / ||z||`.

    Paper: Chen and He 2021 (arXiv 2011.10566), section 4.1 and figure 2, here times sqrt(d).

    Returns:
        In [0, 1] (up to 1 / n): 0 for a constant, 1 for an isotropic cloud; None for a single row.

    Example:
        >>> level(torch.ones(10, 4))
        0.0
    """
    if isinstance(z, Moments):
        return float(z.unit.variances.sqrt().mean()) * math.sqrt(z.dim) if z.count > 1 else None
    rows = finite_rows(z)
    return float(level_of_rows(rows)) if len(rows) > 1 else None


def level_of_rows(rows: Tensor) -> Tensor:
    """`level` of two or more rows as a tensor on their device, unchecked."""
    unit = unit_rows(rows)
    # The first row is subtracted so that identical rows give exactly 0, whatever the rounding of a mean.
    return (unit - unit[:1]).std(0).mean() * math.sqrt(rows.shape[1])


@_moment(
    "centred_share",
    blind="D",
    reference="`tr(Cov) / E||z||^2`",
    invariances=ROW_CHANGES,
    baseline=lambda n, d: 1 - 1 / n,  # the mean of n rows keeps 1/n of their energy
    panel=2,
    threshold="centred_share",
)
def centred_share(z: Tensor | Moments) -> float | None:
    """Share of the energy that varies: `1 - ||E z||^2 / E||z||^2`.

    A level check beside the rank metrics, which centring would otherwise leave with noise (spec 4.22).

    Returns:
        In [0, 1]: 0 for a constant, 1 for zero mean; None for a single row.

    Example:
        >>> centred_share(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        0.5
    """
    moments = moments_of(z)
    return moments.centred_share if moments.count > 1 else None


@_moment(
    "hinge_std",
    high="0.99",
    better="low",
    blind="D across coordinates; depends on scale",
    reference="VICReg, arXiv 2105.04906",
    invariances=frozenset({"translation", "permutation"}),
)
def hinge_std(z: Tensor | Moments, target: float = 1.0) -> float | None:
    """Variance term of VICReg: `mean_j max(0, target - sqrt(var_j + 1e-4))`.

    Args:
        z: [n, d], or their moments.
        target: the std that every coordinate should have.

    Returns:
        In [0, target]: 0 where every coordinate varies enough, target - 0.01 for a constant; None for a
        single row.

    Example:
        >>> hinge_std(torch.ones(10, 4)), hinge_std(2 * torch.eye(2))
        (0.99, 0.0)
    """
    moments = moments_of(z)
    if moments.count < 2:
        return None
    return float((target - (moments.variances + 1e-4).sqrt()).clamp_min(0).mean())


@_cosine("mean_cosine", needs="moments", sees="CU", blind=_ROGUE, reference=_ETHAYARAJH, invariances=_TURNED)
def mean_cosine(z: Tensor | Moments) -> float | None:
    """Mean cosine of two different rows: `(||sum u||^2 - sum ||u||^2) / (n (n - 1))`.

    Paper: Ethayarajh 2019 (arXiv 1909.00512), section 3.2, as anisotropy.

    Returns:
        In [-1 / (n - 1), 1]: 1 for a constant, 0 for an isotropic cloud; None for a single row.

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


@_cosine("mean_cosine_centred", sees="U", blind="every collapse around a mean", reference=_TIMKEY)
def mean_cosine_centred(z: Tensor) -> float | None:
    """`mean_cosine` of the rows less their mean.

    Returns:
        In [-1 / (n - 1), 1], about 0 for most embeddings, above it for a cloud with outliers in one
        direction; None for a single row and for a constant.

    Example:
        >>> round(mean_cosine_centred(5 + torch.eye(3)), 12)
        -0.5
    """
    rows = finite_rows(z)
    if len(rows) < 2:
        return None
    centred = centred_rows(rows)
    return mean_cosine(centred) if bool(centred.any()) else None


@metric(
    "norm_variation",
    high="sqrt(n - 1)",
    better="none",
    blind="every collapse of directions; a companion of `level`",
    cost="n d",
    reference="Draganov et al. 2025, arXiv 2502.09252",
    invariances=ROW_CHANGES,
)
def norm_variation(z: Tensor) -> float | None:
    """Coefficient of variation of the row norms, biased std.

    Formula: `std_i ||z_i|| / mean_i ||z_i||`.

    Paper: Draganov et al. 2025 (arXiv 2502.09252), on the role of embedding norms.

    Returns:
        In [0, sqrt(n - 1)]: 0 where all rows are equally long; None without rows and for all-zero rows.

    Example:
        >>> norm_variation(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        0.5
    """
    norms = torch.linalg.vector_norm(finite_rows(z), dim=1)
    if not bool(norms.any()):
        return None
    # Less the first norm, so that equal ones give exactly 0.
    return float((norms - norms[0]).std(correction=0) / norms.mean())


@metric(
    "sparsity",
    low="1 / sqrt(d)",
    high="1",
    better="none",
    blind="every collapse; a companion of `level`",
    cost="n d",
    reference="arXiv 2602.01456",
    invariances=frozenset({"scale", "permutation", "replication"}),
)
def sparsity(z: Tensor) -> float | None:
    """Spread of a row over coordinates: `mean_i ||z_i||_1 / (sqrt(d) ||z_i||_2)`.

    Reference: the l1/l2 companion of arXiv 2602.01456; Hurley and Rickard 2009 compare such measures.

    Args:
        z: [n, d]; zero rows are passed over.

    Returns:
        In [1 / sqrt(d), 1]: the lower end for one coordinate a row, 1 for equal sizes, sqrt(2 / pi) = 0.80
        for Gaussian rows; None where all rows are zero.

    Example:
        >>> sparsity(torch.eye(4)), sparsity(torch.ones(2, 4))
        (0.5, 1.0)
    """
    unit = unit_rows(finite_rows(z))
    share = unit.abs().sum(1)[unit.any(1)]
    return float(share.mean() / math.sqrt(unit.shape[1])) if len(share) else None
