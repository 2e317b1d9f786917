"""The two analyses of CPLearn as published, padding and all, to compare with its figures.

Both scale the whole matrix by its smallest and largest number and pad it with zero columns to a common width,
so embeddings narrower than that show a lower entropy and a spectrum that breaks off, whatever they hold. For
judging an embedding use `mixture_entropy` and the spectra of `Moments`. Paper: Sansone et al. 2025 (arXiv
2410.04959); its main script for collapses.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.collapse.kmeans import in_fixed_order
from fullrank.collapse.mixture import VARIANCE_FLOOR, MixtureEntropy, entropy_by_sampling, fit_mixture
from fullrank.collapse.moments import finite_rows
from fullrank.errors import UsageError

__all__ = ["legacy_log_spectrum", "legacy_mixture_entropy", "scale_and_pad"]

WIDTH = 2048
"""The common width of the published figures."""


def scale_and_pad(z: Tensor, width: int = WIDTH) -> Tensor | None:
    """`(z - min z) / (max z - min z)` over the whole matrix, then zero columns up to `width`.

    Args:
        z: [n, d].
        width: at least d.

    Returns:
        [n, width] in [0, 1]; None without rows and where all numbers are the same.

    Raises:
        UsageError: d above `width`; not a matrix, or rows that are not finite.

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
    """Log singular values of the uncentred second moment of `scale_and_pad`: the published spectrum figure.

    Args:
        z: [n, d].
        width: at least d.

    Returns:
        [min(n, d)], largest first: the values that mean something, without those of the padding; None where
        `scale_and_pad` is.

    Raises:
        UsageError: d above `width`; not a matrix, or rows that are not finite.

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


def legacy_mixture_entropy(
    z: Tensor,
    components: int = 10,
    samples: int = 10_000,
    repeats: int = 10,
    seed: int = 0,
    width: int = WIDTH,
) -> MixtureEntropy | None:
    """Entropy of a diagonal Gaussian mixture of `scale_and_pad`, by sampling, in nats: the published figure.

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

    Sees intra-cluster collapse among embeddings of one width. Blind to it between widths, which drive it,
    as does one outlying number. Costs O(n K d per step + samples K d).

    Raises:
        UsageError: no component or no sample, d above `width`; not a matrix, or rows that are not finite.

    Example:
        >>> z = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
        >>> narrow, wide = (legacy_mixture_entropy(z, 2, width=w).mean for w in (2, 12))
        >>> round(wide - narrow, 3)
        -54.888
    """
    if min(components, samples, repeats) < 1:
        raise UsageError("a mixture entropy needs at least one component, one sample and one repeat")
    scaled = scale_and_pad(z, width)
    if scaled is None or len(scaled) < components:
        return None
    mixture = fit_mixture(in_fixed_order(scaled[:, : z.shape[1]]), components, seed)
    mean, std = entropy_by_sampling(mixture, samples, repeats, seed)
    padding = (width - z.shape[1]) * 0.5 * math.log(2 * math.pi * math.e * VARIANCE_FLOOR)
    return MixtureEntropy(mean + padding, std, width, len(mixture.weights))
