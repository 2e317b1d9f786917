"""Distance of rows from a standard Gaussian, along fixed random directions."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import ROW_CHANGES, metric
from fullrank.collapse.moments import Moments, centred_rows, finite_rows, moments_of
from fullrank.collapse.products import ascending
from fullrank.errors import UsageError

_AT_ONCE = 1 << 15  # projections at a time, while they are in a core's cache
_LEJEPA = "LeJEPA, arXiv 2511.08544"
_STANDARDISED = frozenset({"scale", "translation", "permutation"})

_sigreg = partial(
    metric,
    high="10 * n",
    better="low",
    sees="DKU",
    cost="n M (d + T) for M directions and T knots",
    invariances=_STANDARDISED,
)
_visreg = partial(metric, better="low", cost="n d", reference="VISReg, arXiv 2606.02572")

SIGREG_NULL = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
"""The mean of the Epps-Pulley statistic of N(0, 1) rows, 1.059, whatever their number."""


def _projections(rows: Tensor, directions: int, seed: int) -> Tensor:
    """[n, directions], along directions uniform on the sphere."""
    if directions < 1:
        raise UsageError(f"a projection needs at least one direction, not {directions}")
    return rows @ _directions(rows.shape[1], directions, seed).to(rows)


@lru_cache(maxsize=2)
def _directions(d: int, directions: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(d, directions, generator=generator, dtype=torch.float64)
    unit: Tensor = a / a.norm(dim=0)
    return unit


def standardised_rows(z: Tensor) -> Tensor | None:
    """Coordinates at mean 0 and variance 1; None where nothing varies."""
    rows = finite_rows(z)
    if not len(rows):
        return None
    rows = centred_rows(rows)
    std = rows.std(0, correction=0)
    return rows / torch.where(std > 0, std, 1.0) if bool(std.any()) else None


def sigreg(
    z: Tensor, directions: int = 256, knots: int = 17, limit: float = 3.0, seed: int = 0
) -> float | None:
    """SIGReg: the Epps-Pulley statistic against N(0, 1), averaged over directions.

    Formula: `T = n int |phi(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt`, phi the empirical characteristic function of
    a projection; the trapezoid rule on [0, limit], doubled. Paper: Balestriero and LeCun 2025 (LeJEPA, arXiv
    2511.08544).

    Args:
        z: [n, d]; its mean and scale matter, for the target is N(0, I).
        directions: how many random unit directions.
        knots: points of the trapezoid rule.
        limit: its upper end.
        seed: of the directions, fixed so that values compare.

    Returns:
        At least 0: about 1.059 for Gaussian rows whatever their number, 0.40 n for zeros; None without rows.

    Example:
        >>> round(sigreg(torch.zeros(100, 8)) / 100, 2)
        0.4
    """
    rows = finite_rows(z)
    if not len(rows):
        return None
    x = _projections(rows, directions, seed).T.contiguous()
    t = torch.linspace(0, limit, knots, dtype=torch.float64)
    target = (-t * t / 2).exp()
    gaps = torch.zeros(knots, dtype=torch.float64)
    for part in torch.split(x, max(1, _AT_ONCE // len(rows))):
        real, imaginary = (found.cpu() for found in _characteristic(part, limit / max(knots - 1, 1), knots))
        gaps += ((real - target[:, None]).square() + imaginary.square()).sum(1)
    return 2 * len(rows) * float(torch.trapezoid(gaps / directions * target, t))


def _characteristic(x: Tensor, step: float, knots: int) -> tuple[Tensor, Tensor]:
    """Mean cosines and sines [knots, m] of `k step x` for x [m, n], k = 0, 1, ...

    By `cos((k + 1) a) = 2 cos a cos(k a) - cos((k - 1) a)` and the same of sines, a tenth of the time.
    """
    angle = step * x
    twice = 2 * angle.cos()
    before = torch.stack([twice / 2, -angle.sin()])  # at -1
    found = torch.stack([torch.ones_like(x), torch.zeros_like(x)])
    means = []
    for _ in range(knots):
        means.append(found.mean(2))
        before, found = found, torch.mul(twice, found).sub_(before)
    real, imaginary = torch.stack(means, 1)
    return real, imaginary


@_sigreg(
    "sigreg_ratio",
    label="SIGReg over its value for noise",
    options={"standardise": False},
    better="near 1",
    sees="CDKU",
    blind="moderate D on few rows; depends on mean and scale",
    reference=_LEJEPA,
    invariances=frozenset({"permutation"}),
)
@_sigreg(
    "sigreg_ratio_standardised",
    label="SIGReg of standardised coordinates",
    options={"standardise": True},
    blind="C; moderate D on few rows",
    reference=f"{_LEJEPA}, on standardised coordinates",
)
def sigreg_ratio(z: Tensor, directions: int = 256, seed: int = 0, standardise: bool = False) -> float | None:
    """`sigreg` over its mean for Gaussian rows, `T / 1.059`. To be reported with n.

    Args:
        z: [n, d], as it is.
        directions: how many random unit directions.
        seed: of the directions.
        standardise: coordinates at mean 0 and variance 1: the shape alone, for rows of any scale.

    Returns:
        At least 0: about 1 for N(0, I) rows, 0.38 n for zeros; None without rows. Standardised, below 1 for
        Gaussian rows, whose mean and scale are fitted; None for a constant.

    Example:
        >>> z = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
        >>> round(sigreg_ratio(z)), sigreg_ratio(5 + 9 * z, standardise=True) < 1.1
        (1, True)
    """
    rows = standardised_rows(z) if standardise else z
    value = None if rows is None else sigreg(rows, directions, seed=seed)
    return None if value is None else value / SIGREG_NULL


@_visreg(
    "visreg_centre",
    label="VISReg, centre",
    needs="moments",
    sees="U",
    blind="every collapse around a zero mean; depends on scale",
    invariances=ROW_CHANGES - {"scale"},
)
def visreg_centre(z: Tensor | Moments) -> float:
    """VISReg, centre: `mean_j mu_j^2`.

    Returns:
        At least 0: 0 for a zero mean.

    Example:
        >>> visreg_centre(2 * torch.ones(10, 4))
        4.0
    """
    return float(moments_of(z).mean.square().mean())


@_visreg(
    "visreg_scale",
    label="VISReg, scale",
    needs="moments",
    sees="C",
    blind="D across coordinates; depends on scale",
    invariances=frozenset({"translation", "permutation"}),
)
def visreg_scale(z: Tensor | Moments) -> float | None:
    """VISReg, scale: `mean_j (1 - std_j)^2`, unbiased std.

    Returns:
        At least 0: 0 where every coordinate has std 1, 1 for a constant; None for a single row.

    Example:
        >>> visreg_scale(torch.ones(10, 4))
        1.0
    """
    moments = moments_of(z)
    return float((1 - moments.variances.sqrt()).square().mean()) if moments.count > 1 else None


@_visreg(
    "visreg_shape",
    label="VISReg, shape",
    sees="DKU",
    blind="C, which `visreg_scale` sees",
    cost="n M (d + log n) for M directions",
    invariances=_STANDARDISED,
)
def visreg_shape(z: Tensor, directions: int = 256, seed: int = 0) -> float | None:
    """VISReg, shape: 1-D Wasserstein distance of projections to the normal.

    Formula: rows standardised by coordinate, projected on random unit directions, sorted; mean of
    `(x_(i) - q(i / (n + 1)))^2` over rows and directions. Paper: VISReg (arXiv 2606.02572).

    Args:
        z: [n, d].
        directions: how many.
        seed: of the directions.

    Returns:
        At least 0: about 0 for Gaussian rows; None for a constant.

    Example:
        >>> z = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
        >>> visreg_shape(z) < 0.01 < visreg_shape(z[:, :1].expand(-1, 64))
        True
    """
    rows = standardised_rows(z)
    if rows is None:
        return None
    n = len(rows)
    x = ascending(_projections(rows, directions, seed).T.contiguous())
    levels = torch.arange(1, n + 1, dtype=torch.float64, device=x.device) / (n + 1)
    return float((x - torch.special.ndtri(levels)).square().mean())
