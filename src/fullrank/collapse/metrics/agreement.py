"""Agreement of two views of the same images: what is found and kept together.

An encoder that serves finds another view of an image among those of other images, and names the same
neighbours for both. The loss rewards views that agree, which a collapsed encoder does best; here each image
is held against the others, and a collapse reads as chance.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import ALL_CHANGES, metric
from fullrank.collapse.moments import finite_rows, unit_rows
from fullrank.errors import UsageError

POOL = 200
"""Images among which a view is to be found again: more of them make the measure surer, not smaller."""

NEIGHBOUR_SHARE = 0.05
"""Share of the images that count as neighbours."""

_pairs = partial(
    metric,
    needs="pairs",
    high="1",
    blind="dimensions beyond those that tell the images apart",
    cost="n^2 d",
    invariances=ALL_CHANGES - {"replication"},
)


@_pairs(
    "view_share",
    label="share of the variance between views",
    better="low",
    sees="",
    blind="every collapse: a constant has none",
    cost="n d",
    reference="`tr S_w / (tr S_w + tr S_b)` of LiDAR's scatters, arXiv 2312.04000",
    invariances=ALL_CHANGES,
    baseline=lambda n, d: 2 / 3 if n > 1 else None,
    panel=13,
)
def view_share(za: Tensor, zb: Tensor) -> float | None:
    """Share of the variance that differs between two views of one image.

    Formula: `tr S_w / (tr S_w + tr S_b)`, S_w the unbiased scatter of the views around their image's mean,
    S_b that of the means.

    Args:
        za: [n, d], first views.
        zb: [n, d], second views of the same images, row by row.

    Returns:
        In [0, 1]: 0 where views of an image agree, 2/3 where they have nothing in common; None where all rows
        agree.

    Example:
        >>> view_share(torch.eye(3), torch.eye(3)), view_share(torch.eye(2), torch.eye(2).flip(0))
        (0.0, 1.0)
    """
    a, b = _centred(za, zb)
    within, between = (a - b).square().sum() / 2, ((a + b) / 2).square().sum()
    return float(within / (within + between)) if _varies(za, zb) else None


@_pairs(
    "view_retrieval",
    label="views found again",
    sees="CK",
    reference="instance retrieval, as Wu et al. 2018, arXiv 1805.01978, train for",
    baseline=lambda n, d: 1 / min(n, POOL) if n > 1 else None,
    panel=14,
)
def view_retrieval(za: Tensor, zb: Tensor) -> float | None:
    """Share of views whose nearest row among the other views is of the same image.

    By cosine similarity of centred rows, both ways. More than 200 images are not harder: the share is its
    mean over all choices of 200 of them. Equal rows come in an order of chance.

    Args:
        za: [n, d], first views.
        zb: [n, d], second views of the same images, row by row.

    Returns:
        In [0, 1]: 1 / min(n, 200) by chance; None where all rows agree.

    Example:
        >>> view_retrieval(torch.eye(4), torch.eye(4)), view_retrieval(torch.eye(4), torch.eye(4).roll(1, 0))
        (1.0, 0.0)
    """
    a, b = (unit_rows(z) for z in _centred(za, zb))
    if not _varies(za, zb):
        return None
    similar, first = a @ b.T, _chance_of_being_first(len(a))
    return float((_retrieved(similar, first) + _retrieved(similar.T, first)) / 2)


@_pairs(
    "neighbour_coherence",
    label="neighbours kept across views",
    low="-n",
    sees="C",
    reference="neighbourhood overlap above chance, as mutual k-NN of arXiv 2405.07987 across views",
    baseline=lambda n, d: 0.0 if n > 2 else None,
    panel=15,
)
def neighbour_coherence(za: Tensor, zb: Tensor) -> float | None:
    """Share of an image's neighbours that two of its views share, above chance.

    A twentieth of the images are neighbours, by cosine similarity of centred rows among the same view of all.
    Formula: `(s - c) / (1 - c)`, s the share in common and `c = k / (n - 1)` that of chance.

    Args:
        za: [n, d], first views.
        zb: [n, d], second views of the same images, row by row.

    Returns:
        1 where all neighbours are kept, 0 where as many as at random; None where all rows agree, and with
        fewer than three images.

    Example:
        >>> z = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> neighbour_coherence(z, z), neighbour_coherence(z, z.flip(0)) < 0.1
        (1.0, True)
    """
    a, b = (unit_rows(z) for z in _centred(za, zb))
    n = len(a)
    if n < 3 or not _varies(za, zb):
        return None
    k = neighbours_taken(n)
    chance = k / (n - 1)
    kept = float((nearest_units(a, k) & nearest_units(b, k)).sum()) / (n * k)
    return (kept - chance) / (1 - chance)


def _centred(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor]:
    """Both views in double precision, less their common mean."""
    if za.shape != zb.shape:
        raise UsageError(f"two views have one shape; these have {list(za.shape)} and {list(zb.shape)}")
    a, b = finite_rows(za).double(), finite_rows(zb).double()
    if not len(a):
        return a, b
    first = a[:1]  # less a row before the mean is taken, so that a large common offset costs no digits
    mean = (torch.cat([a, b]) - first).mean(0)
    return a - first - mean, b - first - mean


def _varies(za: Tensor, zb: Tensor) -> bool:
    """Whether there are rows that differ."""
    return len(za) > 1 and not (bool((za == za[:1]).all()) and bool((zb == za[:1]).all()))


def neighbours_taken(n: int) -> int:
    """How many of n images count as neighbours of one."""
    return max(1, round(NEIGHBOUR_SHARE * n))


def nearest_units(units: Tensor, k: int) -> Tensor:
    """Which rows [n, n] are among the k nearest others of each row of unit length."""
    similar = (units @ units.T).fill_diagonal_(-torch.inf)
    near = torch.zeros(similar.shape, dtype=torch.bool, device=similar.device)
    return near.scatter_(1, similar.topk(k).indices, True)


@lru_cache(maxsize=8)
def _chance_of_being_first(n: int) -> Tensor:
    """Cumulative chance [n + 1] that none of r closer images is in a random pool."""
    pool = min(POOL, n)
    log = torch.lgamma(torch.arange(1, n + 2, dtype=torch.float64))  # log k! for k = 0..n
    r = torch.arange(n - pool + 1)
    chance = torch.zeros(n, dtype=torch.float64)
    chance[: len(r)] = (log[n - 1 - r] - log[n - pool - r] - log[n - 1] + log[n - pool]).exp()
    return torch.cat([torch.zeros(1, dtype=torch.float64), chance.cumsum(0)])


def _retrieved(similar: Tensor, first: Tensor) -> Tensor:
    """Share of rows whose own column is largest in a pool; ties by chance."""
    own, first = similar.diagonal()[:, None], first.to(similar.device)
    larger, equal = (similar > own).sum(1), (similar == own).sum(1)
    share = (first[larger + equal] - first[larger]) / equal
    return torch.tensor(math.fsum(share.tolist()) / len(share))
