"""Clusters among the rows: tight ones, and how learnable they are.

Nearest neighbours are linked; where rows lie in tight clusters the links join each cluster and no two of
them, and hardly any variance is left within what is joined. A Gaussian cloud of the same covariance, linked
in the same way, says what would be left anyway: it breaks into pieces only where it has few dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fullrank.collapse.kmeans import in_fixed_order, sample_kmeans
from fullrank.collapse.metrics._definition import ALL_CHANGES, metric
from fullrank.collapse.moments import finite_rows, unit_rows
from fullrank.errors import UsageError

REACH = 3.0  # links are up to this many times the median distance to the nearest neighbour
LEAST_COVERED = 0.97  # pieces of Gaussian rows in one or two dimensions cover 79 to 95 %
LEAST_ROWS = 6  # on average, in a cluster
SKETCH = 256  # wider rows are projected to this many random directions, which keep distances to some percent

_linked_metric = partial(
    metric,
    needs="clusters",
    better="none",
    sees="KI",
    blind="clusters that touch, and a single point",
    cost="n^2 min(d, 256)",
    reference="linked nearest neighbours",
    invariances=ALL_CHANGES - {"replication"},
    baseline="measured",
)


@dataclass(frozen=True)
class TightClusters:
    """Clusters of linked nearest neighbours.

    Attributes:
        n: rows that were linked.
        count: clusters of at least two rows.
        within_share: variance within clusters over all variance of the rows in them, in [0, 1]; 1 where there
            is one cluster or none.
        surrogate_share: the same of Gaussian rows with the same covariance.
        covered: share of rows in clusters of at least two.
    """

    n: int
    count: int
    within_share: float
    surrogate_share: float
    covered: float

    @property
    def found(self) -> bool:
        """Whether these are clusters at all.

        A line or a curve also falls into pieces, of a few rows each and with rows between them; so clusters
        hold six rows on average, and nearly all of them.
        """
        return self.count > 1 and self.covered >= LEAST_COVERED and self.n >= LEAST_ROWS * self.count

    @property
    def linked_share(self) -> float:
        """`within_share` of clusters that are some, else 1."""
        return self.within_share if self.found else 1.0

    @property
    def number(self) -> int:
        """`count` of clusters that are some, else 1."""
        return self.count if self.found else 1


@_linked_metric(
    "linked_share",
    label="variance within tight clusters",
    part="linked_share",
    high="1",
    panel=9,
    threshold="linked_share",
)
@_linked_metric("tight_clusters", part="number", low="1", high="n", panel=10)
@torch.no_grad()
def tight_clusters(rows: Tensor, seed: int = 0) -> TightClusters | None:
    """Link nearest neighbours among rows and among Gaussian rows alike.

    Args:
        rows: [n, d], finite, a sample: costs O(n^2 min(d, 256)). Ten rows a cluster are enough.
        seed: of the projection and the Gaussian rows.

    Returns:
        None where nothing can be said: fewer than eight rows, or rows that are all the same.

    Example:
        >>> centres = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
        >>> noise = 0.01 * torch.randn(400, 32, generator=torch.Generator().manual_seed(1))
        >>> found = tight_clusters(centres.repeat(40, 1) + noise)
        >>> found.count, found.within_share < 0.001, found.surrogate_share > 0.9
        (10, True, True)
    """
    rows = finite_rows(rows)
    if len(rows) < 8:
        return None
    generator = torch.Generator().manual_seed(seed)
    # in an order of their own, for the Gaussian rows depend on it
    z = in_fixed_order(rows.cpu())
    z = z - z.mean(dim=0)
    if z.shape[1] > SKETCH:
        z = z @ torch.randn(z.shape[1], SKETCH, generator=generator, dtype=z.dtype) / SKETCH**0.5
        z = z - z.mean(dim=0)
    scale = float(z.square().mean().sqrt())
    if not scale > 0:
        return None
    z = z / scale
    distinct, place = torch.unique(z, dim=0, return_inverse=True)
    # a few rows repeated often are the clusters; a few repetitions must not bring the median to zero
    label = place if len(distinct) <= len(z) // 4 else _linked(distinct)[place]
    gaussian = torch.randn(len(z), len(z), generator=generator, dtype=z.dtype) @ z / math.sqrt(len(z))
    count, within, covered = _shares(z, label)
    _, surrogate, _ = _shares(gaussian, _linked(gaussian))
    return TightClusters(len(z), count, within, surrogate, covered)


def _linked(z: Tensor) -> Tensor:
    """The connected component [n] of every row."""
    n = len(z)
    label = torch.arange(n)
    if n < 2:
        return label
    distance = torch.cdist(z, z).fill_diagonal_(math.inf)
    near = distance <= REACH * float(distance.amin(dim=1).median())
    near.fill_diagonal_(True)
    while True:
        # the least label among neighbours, then the label of that label: halves the paths every time
        least = torch.where(near, label, n).amin(dim=1)
        least = least[least]
        if torch.equal(least, label):
            return label
        label = least


def _shares(z: Tensor, label: Tensor) -> tuple[int, float, float]:
    """Number of clusters, variance within them, and share of rows in them."""
    _, place, size = torch.unique(label, return_inverse=True, return_counts=True)
    inside = size[place] > 1
    count, covered = int((size > 1).sum()), float(inside.double().mean())
    if count < 2:
        return count, 1.0, covered
    z, place = z[inside], place[inside]
    total = (z - z.mean(dim=0)).square().sum()
    sums = torch.zeros(len(size), z.shape[1], dtype=z.dtype).index_add_(0, place, z)
    means = sums / size.clamp(min=1)[:, None]
    within = (z - means[place]).square().sum()
    return count, float(within / total) if float(total) > 0 else 1.0, covered


@metric(
    "cluster_learnability",
    high="1",
    sees="K",
    blind="C, and tight clusters, which it rewards",
    cost="s (n^2 d / 4 + n K d) for s seeds",
    reference="CL of CLID, arXiv 2206.01251",
    invariances=frozenset({"scale", "permutation"}),
    slow=True,
)
def cluster_learnability(z: Tensor, clusters: int | None = None, seeds: int = 5) -> float | None:
    """CL of CLID: accuracy of k-means clusters told by the nearest neighbour.

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

    Raises:
        UsageError: no cluster or no seed.

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
        _, label = sample_kmeans(unit, clusters or round(math.sqrt(n)), seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(unit.device)
        known, asked = order[: n // 2], order[n // 2 :]
        for part in torch.split(asked, 1024):
            neighbour = known[(unit[part] @ unit[known].T).argmax(1)]
            hits += float((label[neighbour] == label[part]).sum())
    return hits / (seeds * (n - n // 2))
