"""Baselines: values of each metric for rows that have not collapsed.

A rank measured on n rows is biased low, and no fixed threshold says by how much. Its baseline does: 256 rows
of a cloud with 512 equal directions have an effective rank of 236. Every panel, audit, page and comparison
asks `baseline`, so a metric has one: a closed form where its definition has one, else the value of a
reference cloud. The moments of a cloud are drawn as such (a Wishart matrix), so that a million rows cost as
much as a thousand; what compares points gets points. Each cloud is made once for an n and d, and kept.

Beside isotropic rows there are Gaussian rows with covariance eigenvalues 1/k, as healthy encoders have them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.metrics._spectrum import isotropic_singular_values
from fullrank.collapse.metrics.neighbours import Neighbourhood
from fullrank.collapse.moments import Moments, unit_rows
from fullrank.collapse.products import gram

SEED = 20250101
COMPARED = ("points", "neighbours")  # inputs of metrics that compare rows with each other
TABLE, TABLED_POINTS = Path(__file__).with_name("baselines.json"), 2048


def _eigenvalues(kind: str, d: int) -> Tensor:
    k = torch.arange(1, d + 1, dtype=torch.float64)
    return torch.ones_like(k) if kind == "isotropic" else 1.0 / k


@lru_cache(maxsize=1)
def _standard(n: int, d: int) -> Tensor:
    """Standard Gaussian rows [n, d], the same for every kind of cloud."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def _points(kind: str, n: int, d: int) -> Tensor:
    return _standard(n, d) * _eigenvalues(kind, d).sqrt()


@lru_cache(maxsize=1)
def _wishart(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Scaled mean and scatter of n Gaussian rows, by Bartlett's triangle."""
    generator, freedom = torch.Generator().manual_seed(SEED), n - 1
    mean = torch.randn(d, generator=generator, dtype=torch.float64)
    if freedom < d:
        return mean, gram(torch.randn(freedom, d, generator=generator, dtype=torch.float64))
    lower = torch.randn(d, d, generator=generator, dtype=torch.float64).tril(-1)
    degrees = torch.arange(freedom, freedom - d, -1, dtype=torch.float64)
    # a chi-square of k degrees is a gamma of k / 2, twice
    half = torch._standard_gamma(degrees / 2, generator=generator)
    lower.diagonal().copy_((2.0 * half).sqrt())
    return mean, gram(lower.T)


@lru_cache(maxsize=16)
def _spectra(kind: str, n: int, d: int) -> Spectra:
    """Spectra of n rows, the unit ones from as many as are needed."""
    sample = _points(kind, min(n, 4 * d + 256), d)
    if len(sample) == n:
        return Spectra.of(sample)
    scale = _eigenvalues(kind, d).sqrt()
    mean, scatter = _wishart(n, d)
    mean, scatter = mean * scale / n**0.5, scale[:, None] * scatter * scale
    moments = Moments(d)
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


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def tabled(name: str, points: int, d: int, kind: str) -> float | None:
    """Look up a baseline in the packaged table; None where it is not there.

    The table holds what `compared` gives for 2,048 rows of usual widths, as `docs/make_baselines.py` writes
    it, for these clouds take longer than most audits.

    Example:
        >>> round(tabled("two_nn", 2048, 768, "isotropic")), tabled("two_nn", 2000, 768, "isotropic")
        (151, None)
    """
    return _table().get(kind, {}).get(name, {}).get(str(d)) if points == TABLED_POINTS else None


def compared(name: str, points: int, d: int, kind: str) -> float | None:
    """Value of a metric of points or neighbours for a cloud that is made for it."""
    metric = METRICS[name]
    given = _neighbourhood if metric.needs == "neighbours" else _sample
    return metric(given(kind, points, d))


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
    if metric.needs == "views" and views:
        return metric(torch.randn(n, views, d, generator=torch.Generator().manual_seed(0)))
    if metric.needs not in COMPARED:
        return None
    known = tabled(name, points, d, kind)
    return compared(name, points, d, kind) if known is None else known
