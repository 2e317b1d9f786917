"""k-means on a bounded sample of rows, and how well its clusters can be told apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fullrank.collapse.moments import finite_rows, unit_rows
from fullrank.errors import UsageError

__all__ = ["cluster_learnability", "in_fixed_order", "kmeans", "squared_distances"]


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """[n, k], not below 0."""
    squares = rows.square().sum(1)[:, None] + centres.square().sum(1)
    return squares.addmm_(rows, centres.T, alpha=-2).clamp_min_(0)


def in_fixed_order(rows: Tensor) -> Tensor:
    """The rows sorted along a fixed direction, so that what a seed draws does not depend on their order.

    Example:
        >>> z = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> torch.equal(in_fixed_order(z), in_fixed_order(z.flip(0)))
        True
    """
    generator = torch.Generator().manual_seed(rows.shape[1])
    direction = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64).to(rows)
    # Summed row by row: a matrix product may round equal rows differently.
    return rows[(rows * direction).sum(1).argsort(stable=True)]


def kmeans(rows: Tensor, clusters: int, seed: int = 0, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii 2007).

    Args:
        rows: [n, d], finite floats.
        clusters: k; fewer centres come back where there are fewer different rows.
        seed: of the start.
        iterations: the most steps; it stops earlier where nothing changes.

    Returns:
        Centres [k, d] and the nearest one [n] of every row. A cluster that loses all rows keeps its centre.

    Raises:
        UsageError: no rows, or less than one cluster.

    Example:
        >>> rows = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> _, nearest = kmeans(rows, 2)
        >>> bool(nearest[0] == nearest[1] != nearest[2]) and bool(nearest[2] == nearest[3])
        True
    """
    if not len(rows) or clusters < 1:
        raise UsageError(f"k-means needs rows and at least one cluster, not {len(rows)} and {clusters}")
    shift = rows.mean(0)
    rows = rows - shift
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(rows), (), generator=generator))]
    closest = (rows - rows[chosen[0]]).square().sum(1)
    while len(chosen) < clusters and float(closest.sum()) > 0:
        steps = closest.cumsum(0)
        aim = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(steps[-1])
        place = int(torch.searchsorted(steps, aim, right=True).clamp_max(len(rows) - 1))
        chosen.append(place)
        closest = closest.minimum((rows - rows[place]).square().sum(1))
    centres = rows[chosen].clone()
    nearest = squared_distances(rows, centres).argmin(1)
    for _ in range(iterations):
        counts = torch.bincount(nearest, minlength=len(centres)).to(rows)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        before, nearest = nearest, squared_distances(rows, centres).argmin(1)
        if torch.equal(before, nearest):
            break
    return centres + shift, nearest


def cluster_learnability(z: Tensor, clusters: int | None = None, seeds: int = 5) -> float | None:
    """CL of CLID: how well the nearest neighbour in one half predicts the k-means cluster of the other half.

    Unit rows, cosine distance, halves and k-means drawn anew for every seed, and averaged. Its other part,
    ID, is `two_nn`; they combine only over a pool of models that both are standardised on. Paper: Lu et al.
    2023 (arXiv 2206.01251).

    Args:
        z: [n, d].
        clusters: k, round(sqrt(n)) by default.
        seeds: how many draws are averaged.

    Returns:
        In [0, 1]: near the largest cluster's share where clusters cannot be told apart, 1 where they can be;
        None with fewer than four rows.

    Sees clusters that cannot be learnt. Blind to complete and to cluster collapse, which it rewards: a
    constant reads 1. Costs O(s n^2 d / 4 + s n k d) for s seeds.

    Raises:
        UsageError: no cluster or no seed; not a matrix, or rows that are not finite.

    Example:
        >>> cluster_learnability(torch.eye(4).repeat(10, 1), clusters=4)
        1.0
    """
    if (clusters is not None and clusters < 1) or seeds < 1:
        raise UsageError("cluster learnability needs at least one cluster and one seed")
    unit = in_fixed_order(unit_rows(finite_rows(z)))
    n = len(unit)
    if n < 4:
        return None
    hits = 0.0
    for seed in range(seeds):
        _, label = kmeans(unit, clusters or round(math.sqrt(n)), seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(unit.device)
        known, asked = order[: n // 2], order[n // 2 :]
        for part in torch.split(asked, 1024):
            neighbour = known[(unit[part] @ unit[known].T).argmax(1)]
            hits += float((label[neighbour] == label[part]).sum())
    return hits / (seeds * (n - n // 2))
