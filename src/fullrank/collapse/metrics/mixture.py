"""Entropy of a Gaussian mixture fitted to rows.

CPLearn (Sansone et al. 2025, arXiv 2410.04959) plots it against the number of components. Its computation
scales the whole matrix by its smallest and largest number and pads it with zero columns to a common width,
so narrower embeddings show a lower entropy, and a spectrum that breaks off, whatever they hold. The `legacy`
functions do that, to compare with its figures. `mixture_entropy` centres rows, rotates them to their
principal axes, scales them as one, and is per dimension.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.collapse.kmeans import in_fixed_order, sample_kmeans
from fullrank.collapse.metrics._definition import ALL_CHANGES, metric
from fullrank.collapse.moments import centred_rows, finite_rows
from fullrank.errors import UsageError

VARIANCE_FLOOR = 1e-6
"""Added to every fitted variance."""

WIDTH = 2048
"""The common width of the published figures."""

_LOG_2PI = math.log(2 * math.pi)

_mixture = partial(metric, unit="nats", part="mean", slow=True)


class Mixture(NamedTuple):
    """A mixture of K Gaussians with diagonal covariances.

    Attributes:
        weights: [K], summing to 1.
        means: [K, d].
        variances: [K, d].
    """

    weights: Tensor
    means: Tensor
    variances: Tensor


class MixtureEntropy(NamedTuple):
    """An entropy by sampling.

    Attributes:
        mean: nats (per dimension where so said), the mean over draws.
        std: the standard deviation over draws, 0 for a single one.
        dims: the number of dimensions it was computed in.
        components: the components that were fitted.
    """

    mean: float
    std: float
    dims: int
    components: int


def _log_joint(points: Tensor, mixture: Mixture) -> Tensor:
    """[n, K], log of weight times density."""
    precision = mixture.variances.reciprocal()
    squares = points.square() @ precision.T - 2 * points @ (mixture.means * precision).T
    squares = squares + (mixture.means.square() * precision).sum(1)
    constant = points.shape[1] * _LOG_2PI + mixture.variances.log().sum(1)
    return mixture.weights.log() - 0.5 * (squares + constant)


def log_density(points: Tensor, mixture: Mixture) -> Tensor:
    """Log density [n] of the mixture at points [n, d].

    Example:
        >>> one = Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2))
        >>> round(float(log_density(torch.zeros(1, 2), one)), 4)
        -1.8379
    """
    return torch.logsumexp(_log_joint(points, mixture), dim=1)


def component_entropies(variances: Tensor, dim: int | None = None) -> Tensor:
    """Entropy of each component, `d/2 log(2 pi e) + 1/2 sum_j log v_j`, in nats.

    Args:
        variances: [K, d].
        dim: another d for the constant: the published figures take the width before padding there.

    Returns:
        [K].

    Example:
        >>> component_entropies(torch.ones(2, 1)).mul(1e4).round().tolist()
        [14189.0, 14189.0]
    """
    d = variances.shape[1] if dim is None else dim
    return 0.5 * d * (_LOG_2PI + 1) + 0.5 * variances.log().sum(1)


def fit_mixture(
    rows: Tensor,
    components: int,
    seed: int = 0,
    iterations: int = 100,
    tol: float = 1e-3,
    floor: float = VARIANCE_FLOOR,
) -> Mixture:
    """Expectation maximisation for a diagonal mixture, from k-means.

    Args:
        rows: [n, d], finite floats, n at least the number of components.
        components: K; fewer come back where there are fewer different rows.
        seed: of the k-means start.
        iterations: the most steps.
        tol: it stops where the mean log density gains less.
        floor: added to every variance.

    Raises:
        UsageError: less than one component, or more than rows.

    Example:
        >>> rows = torch.tensor([[0.0], [0.2], [8.0], [8.2]]).double()
        >>> mixture = fit_mixture(rows, 2)
        >>> mixture.means.flatten().sort().values.round(decimals=3).tolist(), mixture.weights.tolist()
        ([0.1, 8.1], [0.5, 0.5])
    """
    if not 1 <= components <= len(rows):
        raise UsageError(f"a mixture needs 1 to {len(rows)} components for as many rows, not {components}")
    centres, nearest = sample_kmeans(rows, components, seed)
    share = F.one_hot(nearest, len(centres)).to(rows)
    squares, before = rows.square(), -math.inf
    for step in range(iterations + 1):
        mass = share.sum(0) + 10 * torch.finfo(rows.dtype).eps
        means = share.T @ rows / mass[:, None]
        variances = (share.T @ squares / mass[:, None] - means.square()).clamp_min(0) + floor
        mixture = Mixture(mass / mass.sum(), means, variances)
        joint = _log_joint(rows, mixture)
        density = torch.logsumexp(joint, dim=1, keepdim=True)
        now = float(density.mean())
        if step == iterations or abs(now - before) < tol:
            break
        share, before = (joint - density).exp(), now
    return mixture


def entropy_by_sampling(mixture: Mixture, samples: int, repeats: int, seed: int) -> tuple[float, float]:
    """Entropy of a mixture in nats: mean and std over repeated samples."""
    generator = torch.Generator().manual_seed(seed)
    d, device = mixture.means.shape[1], mixture.means.device
    values = []
    for _ in range(repeats):
        which = torch.multinomial(mixture.weights.cpu(), samples, replacement=True, generator=generator)
        noise = torch.randn(samples, d, generator=generator, dtype=mixture.means.dtype).to(device)
        which = which.to(device)
        points = mixture.means[which] + noise * mixture.variances[which].sqrt()
        values.append(-float(log_density(points, mixture).mean()))
    entropies = torch.tensor(values, dtype=torch.float64)
    return float(entropies.mean()), float(entropies.std(correction=0))


def principal_scores(z: Tensor) -> Tensor | None:
    """Rows [n, r] on the axes that carry variance, at a mean variance of 1.

    Signs and order are fixed by the scores themselves, so neither rotations, scales nor shifts of the rows
    nor their order changes them, but for rounding. None where nothing varies.
    """
    rows = finite_rows(z)
    if not len(rows):
        return None
    rows = centred_rows(rows)
    largest = rows.abs().max()
    if not float(largest) > 0:
        return None
    left, sigma, _ = torch.linalg.svd(rows / largest, full_matrices=False)
    kept = sigma > sigma[0] * max(rows.shape) * torch.finfo(torch.float64).eps
    scores = left[:, kept] * sigma[kept]
    scores = scores * torch.where((scores**3).sum(0) < 0, -1.0, 1.0)
    return in_fixed_order(scores / scores.square().mean().sqrt())


@_mixture(
    "mixture_entropy",
    low="-5.5",
    high="1.5",
    sees="IU",
    blind="C, and axes that are lost",
    cost="n d^2 + (n i + s) K d for i steps and s samples",
    reference="CPLearn, arXiv 2410.04959, without its padding",
    invariances=ALL_CHANGES - {"replication"},
)
def mixture_entropy(
    z: Tensor, components: int = 10, samples: int = 10_000, repeats: int = 10, seed: int = 0
) -> MixtureEntropy | None:
    """Entropy per dimension of a Gaussian mixture on the principal axes.

    Formula: `-E log p / r` in nats, rows centred, on the r axes that carry variance, mean variance 1; draws
    of the mixture. Paper: Sansone et al. 2025 (CPLearn, arXiv 2410.04959), without its padding.

    Args:
        z: [n, d].
        components: K.
        samples: draws of one estimate.
        repeats: estimates, for the standard deviation.
        seed: of the start and of the draws.

    Returns:
        Mean in [-5.49, 1.42]: 1.42 = log(2 pi e) / 2 for an isotropic cloud, the lower end for clusters that
        are points (the variance floor). None for a constant and with fewer rows than components.

    Raises:
        UsageError: no component or no sample.

    Example:
        >>> z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(mixture_entropy(z, components=1).mean, 1)
        1.4
    """
    scores = principal_scores(z)
    found = _fitted_entropy(scores, components, samples, repeats, seed)
    return found and found._replace(mean=found.mean / found.dims, std=found.std / found.dims)


def _fitted_entropy(
    rows: Tensor | None, components: int, samples: int, repeats: int, seed: int
) -> MixtureEntropy | None:
    """Entropy of a mixture fitted to rows; None with fewer rows than components."""
    if min(components, samples, repeats) < 1:
        raise UsageError("a mixture entropy needs at least one component, one sample and one repeat")
    if rows is None or len(rows) < components:
        return None
    mixture = fit_mixture(rows, components, seed)
    mean, std = entropy_by_sampling(mixture, samples, repeats, seed)
    return MixtureEntropy(mean, std, rows.shape[1], len(mixture.weights))


def scale_and_pad(z: Tensor, width: int = WIDTH) -> Tensor | None:
    """`(z - min z) / (max z - min z)`, then zero columns up to `width`.

    Args:
        z: [n, d].
        width: at least d.

    Returns:
        [n, width] in [0, 1]; None without rows and where all numbers are the same.

    Raises:
        UsageError: d above `width`.

    Example:
        >>> scale_and_pad(torch.tensor([[1.0, 3.0]]), width=3).tolist()
        [[0.0, 1.0, 0.0]]
    """
    rows = finite_rows(z)
    if rows.shape[1] > width:
        raise UsageError(f"an embedding of width {rows.shape[1]} cannot be padded to {width}")
    if not len(rows) or rows.min() == rows.max():
        return None
    return F.pad((rows - rows.min()) / (rows.max() - rows.min()), (0, width - rows.shape[1]))


def legacy_log_spectrum(z: Tensor, width: int = WIDTH) -> np.ndarray | None:
    """Published spectrum figure: log singular values of `scale_and_pad`.

    Args, None and errors as there.

    Returns:
        [min(n, d)], largest first: the values that mean something, without those of the padding.

    Example:
        >>> legacy_log_spectrum(torch.tensor([[1.0, 3.0], [1.0, 3.0]]), width=3).round(6)[0].item()
        0.0
    """
    scaled = scale_and_pad(z, width)
    if scaled is None:
        return None
    sigma = torch.linalg.svdvals(scaled[:, : z.shape[1]]).cpu().numpy()
    with np.errstate(divide="ignore"):  # an exact zero is -inf, as in the figure
        values: np.ndarray = 2 * np.log(sigma) - math.log(len(scaled))
    return values


@_mixture(
    "legacy_mixture_entropy",
    low="-inf",
    high="1.5 * d",
    sees="I",
    blind="the width drives it, and one outlying number",
    cost="(n i + s) K d for i steps and s samples",
    reference="CPLearn, arXiv 2410.04959, as published",
    invariances=frozenset({"scale", "permutation"}),
)
def legacy_mixture_entropy(
    z: Tensor,
    components: int = 10,
    samples: int = 10_000,
    repeats: int = 10,
    seed: int = 0,
    width: int = WIDTH,
) -> MixtureEntropy | None:
    """Published mixture entropy: of `scale_and_pad`, by sampling, in nats.

    A padded column has the variance floor in every component and so adds `log(2 pi e 1e-6) / 2 = -5.4888`
    nats, which are added here in closed form. The published fit is not seeded.

    Args:
        z: [n, d].
        components: K, in the figure 10 to 200.
        samples: draws of one estimate.
        repeats: estimates, for the standard deviation.
        seed: of the start and of the draws.
        width: at least d.

    Returns:
        Nats for all `width` columns together; None where all numbers are the same and with fewer rows than
        components.

    Raises:
        UsageError: no component or no sample, d above `width`.

    Example:
        >>> z = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
        >>> narrow, wide = (legacy_mixture_entropy(z, 2, width=w).mean for w in (2, 12))
        >>> round(wide - narrow, 3)
        -54.888
    """
    scaled = scale_and_pad(z, width)
    rows = None if scaled is None else in_fixed_order(scaled[:, : z.shape[1]])
    found = _fitted_entropy(rows, components, samples, repeats, seed)
    padding = (width - z.shape[1]) * 0.5 * math.log(2 * math.pi * math.e * VARIANCE_FLOOR)
    return found and found._replace(mean=found.mean + padding, dims=width)
