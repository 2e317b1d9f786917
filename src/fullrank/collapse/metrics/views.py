"""Metrics of several views of the same images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.collapse.metrics._definition import ALL_CHANGES, ROW_CHANGES, metric
from fullrank.collapse.metrics.ranks import effective_rank, matrix_entropy
from fullrank.collapse.moments import finite_rows, unit_rows
from fullrank.collapse.row_sums import RowSums
from fullrank.errors import UsageError


@metric(
    "alignment",
    needs="pairs",
    high="4",
    better="low",
    blind="every collapse: a constant is perfectly aligned",
    cost="n d",
    reference="Wang and Isola 2020, arXiv 2005.10242",
    invariances=ROW_CHANGES,
    baseline=lambda n, d: 2.0,  # 2 - 2 E cos of unrelated unit vectors
    panel=12,
)
def alignment(za: Tensor, zb: Tensor) -> float | None:
    """Alignment of two views: `mean ||u_a - u_b||^2` of unit rows.

    Paper: Wang and Isola 2020 (arXiv 2005.10242), section 4.1, with alpha = 2.

    Args:
        za: [n, d], first views.
        zb: [n, d], second views of the same images, row by row.

    Returns:
        In [0, 4]: 0 for views that agree, 2 for unrelated ones; None without rows.

    Example:
        >>> alignment(torch.eye(3), torch.eye(3).roll(1, 0))
        2.0
    """
    if za.shape != zb.shape:
        raise UsageError(f"two views have one shape; these have {list(za.shape)} and {list(zb.shape)}")
    ua, ub = unit_rows(finite_rows(za)), unit_rows(finite_rows(zb))
    return float((ua - ub).square().sum(1).mean()) if len(ua) else None


class ViewSums:
    """Sums over images from which LiDAR follows; those of chunks and processes add up.

    Args:
        dim: d.
        device: where the sums live.

    Attributes:
        means: `RowSums` of the mean view of every image.
        within: [d, d], the sum over images of the scatter of their views, over q - 1.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.means = RowSums(dim, device)
        self.within = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, views: Tensor) -> ViewSums:
        """The sums of one tensor [n, q, d]."""
        _check_views(views)
        sums = cls(views.shape[2], "cpu" if views.device.type == "mps" else views.device)
        sums.update(views)
        return sums

    @torch.no_grad()
    def update(self, views: Tensor) -> None:
        """Add views [n, q, d] of n images, q of each.

        Raises:
            UsageError: fewer than two views an image, another width, or numbers that are not finite.
        """
        _check_views(views, self.means.dim)
        rows = finite_rows(views.flatten(0, 1)).to(self.within.device).reshape(views.shape)
        # Less the first view, so that views that are all the same have exactly no spread.
        offsets = rows - rows[:, :1]
        shift = offsets.mean(1, keepdim=True)
        spread = (offsets - shift).flatten(0, 1)
        self.means.add((rows[:, :1] + shift)[:, 0])
        self.within.addmm_(spread.T, spread, alpha=1 / (views.shape[1] - 1))


@metric(
    "lidar",
    label="LiDAR",
    needs="views",
    low="1",
    high="min(n - 1, d)",
    sees="D",
    blind="C: undefined there; directions without signal keep 1/q",
    cost="n q d^2 + d^3",
    reference="LiDAR, arXiv 2312.04000, delta relative to tr(S_w) / d",
    invariances=ALL_CHANGES - {"replication"},
    diagnostics=True,
)
def lidar(
    views: Tensor | ViewSums, delta: float = 1e-4, eps: float = 0.0, relative: bool = True
) -> float | None:
    """LiDAR: effective rank of what tells images apart, relative to views.

    Formula: `exp(-sum p log p)`, `p = (lambda + eps) / sum (lambda + eps)`, lambda the eigenvalues of
    `S_w^(-1/2) S_b S_w^(-1/2)`; `S_b = cov_i(mu_i)` of the n image means, `S_w = mean_i cov_v(z_iv) + delta s
    I`, both unbiased, with `s = tr(S_w) / d`, so that the unit of the rows does not matter. Paper: Thilak et
    al. 2023 (arXiv 2312.04000).

    Args:
        views: [n, q, d], q >= 2 views of each of n images with the augmentations of training, one image a
            row: `torch.stack([z1, z2], dim=1)`, not consecutive rows of a batch of first and then second
            views. Or their sums.
        delta: regularises S_w.
        eps: added to the eigenvalues; 1e-8 in common code.
        relative: whether delta is in units of tr(S_w) / d; otherwise s is 1, as published.

    Returns:
        In [1, min(d, n - 1)]; None with fewer than two images and where all image means agree (complete
        collapse). Directions without signal keep eigenvalues of about 1/q.

    Raises:
        UsageError: not [n, q, d] with q >= 2, or numbers that are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> image = torch.randn(200, 1, 4, generator=generator)
        >>> views = image + 0.1 * torch.randn(200, 2, 4, generator=generator)
        >>> round(lidar(views)), round(lidar(views * torch.tensor([1.0, 1.0, 0.0, 0.0])))
        (4, 2)
    """
    ratios = lidar_eigenvalues(views, delta, relative)
    return None if ratios is None else effective_rank(ratios + eps)


def lidar_eigenvalues(
    views: Tensor | ViewSums, delta: float = 1e-4, relative: bool = True
) -> np.ndarray | None:
    """Eigenvalues of `S_w^(-1/2) S_b S_w^(-1/2)`, [d], largest first.

    Args, None and errors as there.

    Example:
        >>> views = torch.eye(3)[:, None].repeat(1, 2, 1)
        >>> lidar_eigenvalues(views).round(6).tolist()
        [0.5, 0.5, 0.0]
    """
    width = views.means.dim if isinstance(views, ViewSums) else views.shape[-1]
    sums = views if isinstance(views, ViewSums) else ViewSums.of(_in_their_span(views))
    n, d = sums.means.count, sums.means.dim
    if n < 2:
        return None
    between = sums.means.covariance
    noise = max(n, d) * torch.finfo(torch.float64).eps
    if not float(between.trace()) > 0:
        return None
    within = sums.within / n
    spread = float(within.trace()) / width
    # Views that all agree have no unit but that of S_b itself: any multiple of I gives the same.
    ridge = (delta * spread if relative else delta) if spread > 0 else 1.0
    values, axes = torch.linalg.eigh(within)
    values = values.clamp_min(0) + ridge
    whiten = axes / values.clamp_min(values.max() * noise).sqrt()
    ratios = torch.linalg.eigvalsh(whiten.T @ between @ whiten).flip(0)
    ratios = torch.where(ratios > noise * ratios[0], ratios, 0.0)
    result: np.ndarray = nn.functional.pad(ratios, (0, width - d)).cpu().numpy()
    return result


def _in_their_span(views: Tensor) -> Tensor:
    """Fewer vectors than dimensions in coordinates of their span."""
    vectors, d = math.prod(views.shape[:-1]), views.shape[-1]
    if views.ndim != 3 or not 0 < vectors < d or not views.is_floating_point() or not views.isfinite().all():
        return views
    exact = views.detach().double()
    exact = exact - exact[:1, :1]  # a common mean is no direction of theirs
    axes, _ = torch.linalg.qr(exact.flatten(0, 1).T)
    first = exact[:, :1]
    # views that agree still agree to the last bit
    projected: Tensor = first @ axes + (exact - first) @ axes
    return projected


@metric(
    "dime",
    label="DiME",
    unit="nats",
    needs="pairs",
    low="-log(n)",
    high="log(n)",
    sees="C",
    blind="D short of rank one, and clusters that both views keep; few rows saturate it",
    cost="n^2 d + p n^3 for p pairings",
    reference="DiME, arXiv 2301.08164, with a linear kernel of unit rows",
    invariances=frozenset({"rotation", "scale"}),
)
def dime(za: Tensor, zb: Tensor, order: float = 1.0, pairings: int = 4, seed: int = 0) -> float | None:
    """DiME: rise of the joint entropy of two views that are paired at random.

    Formula: `S(K_a o P K_b P^T) - S(K_a o K_b)` in nats, averaged over random permutations P; K the Gram
    matrices of unit rows, o their Hadamard product over n, S the matrix-based Renyi entropy. Paper: Skean et
    al. 2023 (arXiv 2301.08164); a linear kernel on the sphere here.

    Args:
        za: [n, d], first views.
        zb: [n, e], second views of the same images, row by row.
        order: of the Renyi entropy; 1 is its Shannon limit.
        pairings: how many permutations are averaged.
        seed: of the permutations.

    Returns:
        In [-log n, log n]: 0 for views that share nothing and for a constant, larger the more they share;
        None with fewer than two rows.

    Raises:
        UsageError: not two matrices of as many rows, no pairing, or rows that are not finite.

    Example:
        >>> z = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
        >>> dime(z, z) > 0.2 > dime(z, z.roll(1, 0)), round(dime(z * 0 + 1, z * 0 + 1), 9)
        (True, 0.0)
    """
    ua, ub = unit_rows(finite_rows(za)), unit_rows(finite_rows(zb))
    if len(ua) != len(ub):
        raise UsageError(f"two views have as many rows; these have {len(ua)} and {len(ub)}")
    if pairings < 1:
        raise UsageError(f"DiME needs at least one pairing, not {pairings}")
    n = len(ua)
    if n < 2:
        return None
    gram_a, gram_b = ua @ ua.T, ub @ ub.T
    paired = _entropy(gram_a * gram_b, order)
    generator = torch.Generator().manual_seed(seed)
    others = []
    for _ in range(pairings):
        p = torch.randperm(n, generator=generator).to(ua.device)
        others.append(_entropy(gram_a * gram_b[p][:, p], order))
    if paired is None or None in others:
        return None
    return sum(value for value in others if value is not None) / pairings - paired


def _check_views(views: Tensor, dim: int | None = None) -> None:
    right = f"[images, 2 or more views of one image, {'d' if dim is None else dim}]"
    if not isinstance(views, Tensor):
        raise UsageError(f"views are a tensor {right}, not a {type(views).__name__}")
    if views.ndim != 3 or views.shape[1] < 2 or (dim is not None and views.shape[2] != dim):
        raise UsageError(f"views are a tensor {right}, not {list(views.shape)}")


def _entropy(gram: Tensor, order: float) -> float | None:
    """Entropy of a positive semi-definite matrix at trace 1, in nats."""
    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0).cpu().numpy()
    share = matrix_entropy(eigenvalues, order)
    return None if share is None else share * math.log(len(gram))
