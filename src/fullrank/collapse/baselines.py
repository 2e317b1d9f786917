"""Baselines: values of each metric for rows that have not collapsed.

A rank measured on n rows is biased low, and no fixed threshold says by how much. Its baseline does: 256 rows
of a cloud with 512 equal directions have an effective rank of 236. Every panel, audit, page and comparison
asks `baseline`, so a metric has one: a closed form where its definition has one, else the value of a
reference cloud. The moments of a cloud are drawn as such (a Wishart matrix), so that a million rows cost as
much as a thousand; what compares points gets points. Each cloud is made once for an n and d, and kept.

Beside isotropic rows there are Gaussian rows with covariance eigenvalues 1/k, as healthy encoders have them.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.metrics._spectrum import isotropic_singular_values
from fullrank.collapse.metrics.neighbours import Neighbourhood
from fullrank.collapse.moments import Moments, unit_rows

SEED = 20250101


def _eigenvalues(kind: str, d: int) -> Tensor:
    k = torch.arange(1, d + 1, dtype=torch.float64)
    return torch.ones_like(k) if kind == "isotropic" else 1.0 / k


def _points(kind: str, n: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * _eigenvalues(kind, d).sqrt()


def _wishart(freedom: int, d: int, generator: torch.Generator) -> Tensor:
    """Scatter of `freedom` standard Gaussian rows, by Bartlett's triangle."""
    if freedom < d:
        rows = torch.randn(freedom, d, generator=generator, dtype=torch.float64)
        return rows.T @ rows
    lower = torch.randn(d, d, generator=generator, dtype=torch.float64).tril(-1)
    degrees = torch.arange(freedom, freedom - d, -1, dtype=torch.float64)
    # a chi-square of k degrees is a gamma of k / 2, twice
    half = torch._standard_gamma(degrees / 2, generator=generator)
    lower.diagonal().copy_((2.0 * half).sqrt())
    return lower @ lower.T


@lru_cache(maxsize=16)
def _spectra(kind: str, n: int, d: int) -> Spectra:
    """Spectra of n rows, the unit ones from as many as are needed."""
    sample = _points(kind, min(n, 4 * d + 256), d)
    if len(sample) == n:
        return Spectra.of(sample)
    generator = torch.Generator().manual_seed(SEED)
    scale = _eigenvalues(kind, d).sqrt()
    mean = torch.randn(d, generator=generator, dtype=torch.float64) * scale / n**0.5
    moments = Moments(d)
    scatter = scale[:, None] * _wishart(n - 1, d, generator) * scale
    moments.replace(n, torch.zeros_like(mean), n * mean, scatter)
    # a row's length hardly varies, so unit rows scatter as raw ones do, scaled coordinate by coordinate
    ratio = (unit_rows(sample).square().sum(0) / sample.square().sum(0)).sqrt()
    moments.unit.replace(n, torch.zeros_like(mean), n * mean * ratio, scatter * torch.outer(ratio, ratio))
    return Spectra(moments)


@lru_cache(maxsize=4)
def _sample(kind: str, n: int, d: int) -> Tensor:
    return _points(kind, n, d).float()


@lru_cache(maxsize=4)
def _neighbourhood(kind: str, n: int, d: int) -> Neighbourhood:
    return Neighbourhood(_sample(kind, n, d))


@lru_cache(maxsize=512)
def baseline(
    name: str, n: int, d: int, points: int | None = None, views: int = 0, kind: str = "isotropic"
) -> float | None:
    """Value of a metric for rows without structure; None where there is none.

    Args:
        name: a key of `METRICS`.
        n: rows, or pairs of views.
        d: their width.
        points: rows that a metric of points is given, at most n; None is n.
        views: of an image, for metrics of several: views that have nothing in common.
        kind: "isotropic" or "power-law"; the closed forms are of isotropic rows.

    Example:
        >>> baseline("level", 1000, 512), baseline("participation_ratio", 512, 512)
        (1.0, 255.501953125)
        >>> round(baseline("erank_centred", 1024, 512)), round(baseline("rankme_unit", 256, 512))
        (474, 237)
        >>> round(baseline("participation_ratio", 25600, 512, kind="power-law"))
        28
    """
    metric, points = METRICS[name], min(n if points is None else points, n)
    if kind == "isotropic" and callable(metric.baseline):
        return metric.baseline(n, d)
    if kind == "isotropic" and metric.baseline == "spectrum":
        centred = metric.spectrum == "centred"
        return metric.value_of(metric.of_spectrum(isotropic_singular_values(n, d, centred), n, d))
    if metric.needs in OF_MOMENTS:
        return metric(_spectra(kind, n, d))
    if metric.needs == "neighbours":
        return metric(_neighbourhood(kind, points, d))
    if metric.needs == "views" and views:
        return metric(torch.randn(n, views, d, generator=torch.Generator().manual_seed(0)))
    return metric(_sample(kind, points, d)) if metric.needs == "points" else None
