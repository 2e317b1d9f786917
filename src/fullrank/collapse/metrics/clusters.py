"""Clusters among the rows: tight ones, and how learnable they are.

Around a row of a tight cluster the distances to all other rows, sorted, jump where the cluster ends. In a
cloud of any shape they grow without a jump: around a row of a line the next one is a little farther, around a
row of a Gaussian all are about equally far.
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
from fullrank.collapse.products import ascending
from fullrank.errors import UsageError

ANCHORS = 192  # rows around which distances are sorted; more among fewer rows, at most
MOST_ANCHORS = 512
ANCHORED = 16_384  # rows from which on there are the fewest
SKETCH = 64  # wider rows are projected to this many random directions, which keep distances to some percent
LEAST_SIZE = 3  # rows of a cluster: pairs may be two views of an image
JUMP = 0.75  # natural logarithm; lines reach 0.5, clusters whose spread is a quarter of the centres' 1.0
LINE = 0.4  # taken off over the participation ratio: rows along one direction leave gaps by chance
MOST_OF_ALL = 0.95  # of all rows, that one cluster may hold
LEAST_COVERED = (0.6, 0.7)  # of rows, whose jump counts: the mean between; a line covers 0.37 by chance
SAME = 1e-6  # of the spread of all rows: nearer ones are copies, for so much is lost in single precision

_linked_metric = partial(
    metric,
    needs="clusters",
    better="none",
    sees="KI",
    blind="clusters that touch, and those of fewer than three rows",
    cost="192 n min(d, 64)",
    reference="jumps in sorted distances",
    invariances=ALL_CHANGES - {"replication"},
)


@dataclass(frozen=True)
class TightClusters:
    """Clusters of rows that lie much nearer to each other than to all other rows.

    Attributes:
        n: rows among which they were sought.
        count: clusters, estimated from their sizes around the anchors.
        within_share: variance within clusters over all variance, in [0, 1]; 1 where there are none.
        covered: share of rows around which distances jump.
        jump: logarithm of the jump that two of three rows reach (mean between the `LEAST_COVERED` shares),
            less what chance does on a line.
        rest_share: mean squared distance within clusters over that to the rows of no or another cluster.
        jumps: those that shares of the rows between the `LEAST_COVERED` ones reach; `jump` is their mean.
        covered_within: variance within the clusters of the rows that `covered` counts, over all variance.
    """

    n: int
    count: float
    within_share: float
    covered: float
    jump: float
    rest_share: float = 1.0
    jumps: tuple[float, ...] = ()
    covered_within: float = 1.0

    @property
    def found(self) -> bool:
        """Whether these are clusters at all."""
        return self.jump >= JUMP

    @property
    def linked_share(self) -> float:
        """`within_share` of clusters that are some, else 1."""
        return self.within_share if self.found else 1.0

    @property
    def number(self) -> int:
        """`count` of clusters that are some, else 1."""
        return max(round(self.count), 1) if self.found else 1

    @property
    def most(self) -> int:
        """The largest number of clusters that so many rows could show."""
        return self.n // LEAST_SIZE

    def in_words(self, border: float) -> str:
        """What `number` counts, and how near it is to being a collapse."""
        jump = f"distances jump by {self.jump:.2f} where they end, {border:g} is the border"
        return f"number of tight clusters (1: none): {jump}, and {self.most:,} at most can be seen"


@_linked_metric(
    "linked_share",
    label="variance within tight clusters",
    part="linked_share",
    high="1",
    panel=10,
    baseline=lambda n, d: 1.0,
)
@_linked_metric("tight_clusters", part="number", low="1", high="n / 3", panel=11, baseline=lambda n, d: 1.0)
@torch.no_grad()
def tight_clusters(rows: Tensor, seed: int = 0) -> TightClusters | None:
    """Find the jump in the sorted distances from some rows to all others.

    Args:
        rows: [n, d], finite; costs O(192 n min(d, 64)). They show up to n / 3 clusters.
        seed: of the projection and of the choice of anchors.

    Returns:
        None where nothing can be said: fewer than eight rows, or rows that are all the same.

    Example:
        >>> centres = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
        >>> noise = 0.01 * torch.randn(400, 32, generator=torch.Generator().manual_seed(1))
        >>> found = tight_clusters(centres.repeat(40, 1) + noise)
        >>> found.number, found.within_share < 0.001, found.covered
        (10, True, 1.0)
    """
    rows = finite_rows(rows)
    n = len(rows)
    if n < 8:
        return None
    # in an order of their own, so that the anchors do not depend on the rows' order
    z = in_fixed_order(rows.cpu())
    generator = torch.Generator().manual_seed(seed)
    z = project(z - z[:1], generator)
    z = z - z.mean(dim=0)
    scale = float(z.square().mean().sqrt())
    if not scale > 0:
        return None
    z = (z / scale).float()
    most = min(max(ANCHORS * ANCHORED // n, ANCHORS), MOST_ANCHORS)
    anchors = torch.randperm(n, generator=generator)[:most]
    # by subtraction: the expanded form loses the distances within tight clusters
    apart = torch.cdist(z[anchors], z, compute_mode="donot_use_mm_for_euclid_dist")
    distances = ascending(apart.clone())
    jump, size = _largest_jumps(distances[:, 1:])
    covariance = z.T @ z / n
    jump = jump - LINE * float(covariance.square().sum() / covariance.trace() ** 2)
    covered = float((jump >= JUMP).double().mean())
    between = torch.linspace(1 - LEAST_COVERED[1], 1 - LEAST_COVERED[0], 11)
    reached = jump.quantile(between, interpolation="lower")
    needed = float(reached.mean())
    inside = jump >= min(JUMP, needed)  # a border below the usual one has its clusters, too
    squares = distances.double().square()
    own = torch.arange(n) < size[:, None]
    total, held = squares.sum(1), (squares * own).sum(1)
    within, rest = held / size, (total - held) / (n - size).clamp(min=1)
    share = float(within[inside].mean() / (total.mean() / n))
    rest_share = float(within[inside].mean() / rest[inside].mean().clamp(min=1e-30))
    radius = distances.gather(1, size[:, None] - 1)
    count = _count(apart[inside] <= radius[inside], anchors[inside], size[inside], covered * n)
    sure = jump >= JUMP
    sure_share = float(within[sure].mean() / (total.mean() / n)) if bool(sure.any()) else 1.0
    return TightClusters(
        n,
        count,
        min(share, 1.0),
        covered,
        needed,
        rest_share,
        tuple(reached.tolist()),
        min(sure_share, 1.0),
    )


def _count(holds: Tensor, anchors: Tensor, size: Tensor, clustered: float) -> float:
    """Clusters around anchors, and those that no anchor lies in.

    Args:
        holds: [a, n], whether a row lies in the cluster around an anchor.
        anchors: [a], the rows that they are.
        size: [a], rows of the cluster.
        clustered: rows that lie in clusters, estimated.
    """
    n = holds.shape[1]
    if not len(anchors):
        return 1.0
    linked = holds[:, anchors]
    linked = linked | linked.T
    label = torch.arange(len(anchors))
    while True:  # clusters that overlap are one
        least = torch.where(linked, label, n).amin(1)
        if torch.equal(least, label):
            break
        label = least
    seen = float(len(label.unique()))
    unseen = max(clustered - float(holds.any(0).sum()), 0.0)
    # each row of a cluster counts 1 / its size
    return seen + unseen * float(size.double().reciprocal().mean())


def project(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows [n, d] in at most `SKETCH` dimensions, by a random Gaussian matrix."""
    d = rows.shape[1]
    return rows if d <= SKETCH else rows @ directions(d, generator).to(rows)


def directions(d: int, generator: torch.Generator) -> Tensor:
    """A random Gaussian matrix [d, SKETCH], in double precision."""
    drawn: Tensor = torch.randn(d, SKETCH, generator=generator, dtype=torch.float64) / SKETCH**0.5
    return drawn


def _largest_jumps(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of the largest jump [a] in sorted distances, and rows [a] before it.

    A jump is measured across a window that grows with the number of rows before it, for a broad cluster ends
    gradually; where it lies in that window, the largest step says.
    """
    n = distances.shape[1] + 1
    logs = distances.clamp(min=SAME).log()
    # neighbours in the cluster; what lies around nearly all rows is the edge of a cloud with outliers
    before = torch.arange(LEAST_SIZE - 1, max(int(MOST_OF_ALL * n), LEAST_SIZE))
    width = torch.minimum(before // 10, (n - 1 - before) // 3)
    jump, place = (logs[:, before + width] - logs[:, before - width - 1]).max(dim=1)
    first, last = (before - width - 1)[place], (before + width)[place]
    step, column = logs.diff(dim=1), torch.arange(n - 2)
    step = torch.where((column >= first[:, None]) & (column < last[:, None]), step, -1.0)
    return jump, step.argmax(dim=1) + 2


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
