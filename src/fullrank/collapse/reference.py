"""Reference clouds at a given n and d: what every metric reads for rows that have not collapsed.

Two of them: isotropic Gaussian rows, and Gaussian rows whose covariance has the eigenvalues 1/k, as healthy
encoders have. Their moments are drawn as such (a Wishart matrix), so that a million rows cost as much as a
thousand; what compares points gets points. Each is made once for an n and d, and kept.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fullrank.collapse.catalogue import CATALOGUE, Spectra
from fullrank.collapse.moments import Moments, unit_rows
from fullrank.collapse.neighbours import Neighbourhood

__all__ = ["REFERENCES", "reference_value"]

REFERENCES = ("isotropic", "power-law")
SEED = 20250101


def _eigenvalues(kind: str, d: int) -> Tensor:
    k = torch.arange(1, d + 1, dtype=torch.float64)
    return torch.ones_like(k) if kind == "isotropic" else 1.0 / k


def _points(kind: str, n: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * _eigenvalues(kind, d).sqrt()


def _wishart(freedom: int, d: int, generator: torch.Generator) -> Tensor:
    """The scatter of `freedom` standard Gaussian rows, by Bartlett's triangle where they outnumber d."""
    if freedom < d:
        rows = torch.randn(freedom, d, generator=generator, dtype=torch.float64)
        return rows.T @ rows
    lower = torch.randn(d, d, generator=generator, dtype=torch.float64).tril(-1)
    degrees = torch.arange(freedom, freedom - d, -1, dtype=torch.float64)
    # a chi-square of k degrees is a gamma of k / 2, twice
    half = torch._standard_gamma(degrees / 2, generator=generator)
    lower.diagonal().copy_((2.0 * half).sqrt())
    return lower @ lower.T


def _moments(kind: str, n: int, d: int) -> Moments:
    """Moments of n rows, raw ones exactly as drawn and unit ones from as many of them as are needed."""
    sample = _points(kind, min(n, 4 * d + 256), d)
    if len(sample) == n:
        return Moments.of(sample)
    generator = torch.Generator().manual_seed(SEED)
    scale = _eigenvalues(kind, d).sqrt()
    mean = torch.randn(d, generator=generator, dtype=torch.float64) * scale / n**0.5
    moments = Moments(d)
    moments.count = moments.unit.count = n
    moments.total = n * mean
    moments.outer = scale[:, None] * _wishart(n - 1, d, generator) * scale + n * torch.outer(mean, mean)
    # a row's length hardly varies, so unit rows scatter as raw ones do, scaled coordinate by coordinate
    ratio = unit_rows(sample).square().sum(0) / sample.square().sum(0)
    moments.unit.total = moments.total * ratio.sqrt()
    moments.unit.outer = moments.outer * torch.outer(ratio.sqrt(), ratio.sqrt())
    return moments


@lru_cache(maxsize=16)
def _spectra(kind: str, n: int, d: int) -> Spectra:
    return Spectra(_moments(kind, n, d))


@lru_cache(maxsize=4)
def _sample(kind: str, n: int, d: int) -> Tensor:
    return _points(kind, n, d).float()


@lru_cache(maxsize=4)
def _neighbourhood(kind: str, n: int, d: int) -> Neighbourhood:
    return Neighbourhood(_sample(kind, n, d))


@lru_cache(maxsize=512)
def reference_value(kind: str, metric: str, n: int, d: int, points: int) -> float | None:
    """What a metric reads for a reference cloud; None where it is not defined or needs more than rows.

    Args:
        kind: a key of `REFERENCES`.
        metric: a name of `CATALOGUE`.
        n: rows.
        d: their width.
        points: rows that a metric of points is given, at most n.

    Example:
        >>> round(reference_value("isotropic", "erank_centred", 4096, 64, 256))
        64
        >>> round(reference_value("power-law", "participation_ratio", 25600, 512, 256), 0)
        28.0
    """
    entry = CATALOGUE[metric]
    if entry.needs in ("spectrum", "unit spectrum", "moments"):
        return entry(_spectra(kind, n, d))
    if entry.needs == "neighbours":
        return entry(_neighbourhood(kind, min(points, n), d))
    return entry(_sample(kind, min(points, n), d)) if entry.needs == "points" else None
