"""What the figures of an audit show, as arrays: once for the page and for figures on paper."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import cumulative_curve
from fullrank.collapse.baselines import isotropic_singular_values
from fullrank.collapse.metrics.clusters import SKETCH

__all__ = ["Distances", "ceiling", "distances", "principal_map", "references", "relative", "share_curve"]

_MOST_ROWS = 1024  # whose distances are taken: their square


class Distances(NamedTuple):
    """Distances between rows over their mean, as shares of all pairs in bins of equal ratio.

    Attributes:
        edges: [b + 1], the bins.
        rows: [b], shares of the audited rows.
        gaussian: [b], of Gaussian rows with the same covariance.
    """

    edges: np.ndarray
    rows: np.ndarray
    gaussian: np.ndarray


def relative(singular_values: np.ndarray) -> np.ndarray | None:
    """A spectrum with squares that sum to 1, so that spectra of any scale compare; None where it is zero.

    Example:
        >>> relative(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    total = float(np.sqrt(np.square(singular_values).sum()))
    return singular_values / total if total > 0 else None


def references(n: int, d: int) -> dict[str, np.ndarray]:
    """Relative spectra of isotropic rows, as n of them show it, and of covariance eigenvalues 1/k.

    Example:
        >>> {name: len(values) for name, values in references(100, 64).items()}
        {'isotropic': 64, 'eigenvalues 1/k': 64}
    """
    power = np.arange(1, d + 1)[: max(min(n - 1, d), 1)] ** -0.5
    spectra = {"isotropic": relative(isotropic_singular_values(n, d)), "eigenvalues 1/k": relative(power)}
    return {name: values for name, values in spectra.items() if values is not None}


def ceiling(n: int, d: int) -> int | None:
    """The most directions that n centred rows can show, where that is less than d."""
    return n - 1 if n - 1 < d else None


def share_curve(singular_values: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Share of directions and the share of the spectrum that the largest of them hold, from (0, 0) to (1, 1).

    Its mean height is the AUC of Li, Efros and Pathak (2022).
    """
    curve = cumulative_curve(singular_values, d)
    if curve is None:
        return None
    return np.arange(d + 1) / d, np.concatenate([[0.0], curve[:d]])


@torch.no_grad()
def principal_map(rows: Tensor) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Rows [m, d] on two principal axes [m, 2], and the share of variance of each; None for a constant."""
    z = rows.double() - rows.double().mean(dim=0)
    total = float(z.square().sum())
    if not total > 0 or len(z) < 2:
        return None
    if z.shape[1] < 2:
        return torch.cat([z, torch.zeros_like(z)], dim=1).numpy(), (1.0, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, sigma, axes = torch.pca_lowrank(z, q=min(8, *z.shape), center=False, niter=4)
    first, second = (float(value) ** 2 / total for value in sigma[:2])
    return (z @ axes[:, :2]).numpy(), (first, second)


@torch.no_grad()
def distances(rows: Tensor, bins: int = 80) -> Distances | None:
    """How far rows are from each other, and Gaussian rows of the same covariance; None where all are one.

    Rows in tight clusters show a hump at small distances that a Gaussian cloud has not.
    """
    z = rows[:_MOST_ROWS].double()
    if len(z) < 8:
        return None
    z = z - z.mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    if z.shape[1] > SKETCH:
        z = z @ torch.randn(z.shape[1], SKETCH, generator=generator, dtype=z.dtype) / SKETCH**0.5
    gaussian = torch.randn(len(z), len(z), generator=generator, dtype=z.dtype) @ z / len(z) ** 0.5
    found = [torch.nn.functional.pdist(cloud).numpy() for cloud in (z, gaussian)]
    if not found[0].mean() > 0 or not found[1].mean() > 0:
        return None
    found = [values / values.mean() for values in found]
    lowest = min(max(float(np.quantile(values, 0.0005)), 1e-3) for values in found)
    edges = np.geomspace(0.9 * lowest, 1.05 * max(float(values.max()) for values in found), bins + 1)
    # what lies at zero, as repeated rows do, is counted in the first bin
    shares = [np.histogram(values.clip(edges[0]), edges)[0] / len(values) for values in found]
    return Distances(edges, *shares)
