"""Statistics of one embedding in one pass: what a verdict is made of.

Beside moments and a sample of rows they keep a few numbers of every row, for what moments cannot see: copies,
rows far from all others, clusters. Rows far away wait aside and never enter the moments, for one of them can
outweigh a million others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fullrank.collapse.alternatives import Alternative
from fullrank.collapse.blemishes import RowFacts
from fullrank.collapse.blocks import rows_of_a_block
from fullrank.collapse.metrics.clusters import SKETCH, directions, project
from fullrank.collapse.moments import Moments, all_finite, check_rows
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Copies, Reservoir, row_hash
from fullrank.collapse.thresholds import beyond
from fullrank.errors import BadRowsError, UsageError

CLUSTER_ROWS = 16_384  # projected to 64 dimensions: 4 MB; they show up to 5,461 clusters
SETTLED = 256  # rows from which a middle and a typical distance are taken
MIDDLE_ROWS = 1024  # of the first rows, in a random order, since theirs may have a period
ASIDE = 4096  # rows that may wait aside however few were seen
SMALLEST, LARGEST = 1e-30, 1e30  # of rows, samples of which are kept in single precision
FAR = 10.0  # times the median distance from the middle; Gaussian rows in two dimensions reach 5
DOUBTFUL = 0.8  # times that distance: rows beyond it wait until the median distance of all rows is known
MOST_OUTLIERS = 0.05  # of all rows; more are taken in
PART_OF_CLOUD = 0.08  # of all rows: as many as this are a part of the cloud as likely as not
PART_WIDTH = 0.2  # of that border, in natural logarithms
COUNTED = 0.02  # weight from which an alternative is measured


class EmbeddingStatistics:
    """Streaming statistics of rows [n, d].

    Args:
        dim: d, the width of a row.
        device: where the moments live.
        capacity: rows of the sample.
        stream: which stream this is (the rank of a process).
        first: place of the first row, where these rows are a part of a longer stream.
        expected: rows that will come, of all processes, where that is known.
        peers: processes that `finish` adds up; None takes those of the default group.

    Attributes:
        moments: of all rows but outliers, after `finish`.
        sample: a uniform sample of these rows, [m, d].
        sketch: a larger one, in at most 64 dimensions.
        facts: counts of copies, outliers and values.
        outlier_rows: places of the outliers that are known, after `finish`.
        alternatives: ranks without rows that may be no part of the cloud, and of directions alone where
            lengths have heavy tails.

    Example:
        >>> z = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
        >>> z[7] *= 1e5
        >>> seen = EmbeddingStatistics(8)
        >>> seen.update(z)
        >>> seen.finish()
        >>> seen.moments.count, seen.facts.outliers, seen.facts.distinct
        (999, 1, 1000)
    """

    facts: RowFacts
    alternatives: tuple[Alternative, ...] = ()

    def __init__(
        self,
        dim: int,
        device: torch.device | str = "cpu",
        capacity: int = 2048,
        stream: int = 0,
        *,
        first: int = 0,
        expected: int = 0,
        peers: Peers | None = None,
    ) -> None:
        self.dim, self.expected, self.peers = dim, expected, peers or Peers()
        self.moments = Moments(dim, "cpu" if torch.device(device).type == "mps" else device)
        self.sample = Reservoir(dim, capacity, stream)
        self.sketch = Reservoir(min(dim, 64), CLUSTER_ROWS, stream)
        self.copies = Copies()
        self._waiting: list[Tensor] = []  # the first rows, until a middle can be taken
        self._middle: Tensor | None = None
        self._distances: list[Tensor] = []
        self._aside: list[Tensor] = []
        self._aside_places: list[Tensor] = []
        self._next = first  # place of the row that is taken next
        self.outlier_rows: list[int] = []
        self._typical = 0.0  # median distance of the first rows
        self._returned = False  # whether rows far away were so many that they were taken in
        self._lowest = torch.full((dim,), torch.inf)
        self._highest = torch.full((dim,), -torch.inf)
        self._largest = 0.0  # number, of all rows
        self._finished = False

    @property
    def count(self) -> int:
        """Rows seen, outliers and all."""
        return self.copies.rows

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Add rows [n, d].

        Raises:
            UsageError: wrong shape or width, rows that are not finite or beyond 1e30 (then nothing was taken
                in), or statistics that are finished.
        """
        check_rows(z, self.dim)
        if self._finished:
            raise UsageError("these statistics are finished: more rows need new ones")
        if not len(z):
            return
        z = z.detach()
        if not all_finite(z):
            self.moments.update(z)  # says which
        self._largest = max(self._largest, _largest(z))
        self.copies.add(row_hash(z))
        settled = self._middle is not None or sum(map(len, self._waiting)) + len(z) >= SETTLED
        self._waiting.append(z if settled else z.clone())  # what waits must not change with a buffer
        if settled:
            self._take()

    @property
    def middle(self) -> tuple[Tensor, float] | None:
        """Middle [d] of the first rows, and their median distance, once known."""
        return None if self._middle is None else (self._middle, self._typical)

    def begin(self, middle: Tensor, typical: float) -> None:
        """Take middle and median distance that another process has found.

        Then what is far from all other rows does not depend on which process sees which rows.
        """
        self._middle, self._typical = middle, typical

    def fix_middle(self) -> None:
        """Take in the rows that wait for a middle, although they are few."""
        if self._waiting:
            self._take()

    def finish(self) -> None:
        """Say which rows are outliers, and add up all processes.

        Raises:
            UsageError: all numbers are below 1e-30.
        """
        if self._finished:
            return
        self._finished = True
        self.fix_middle()
        peers = self.peers
        none = torch.empty(0, dtype=torch.float64)
        own = torch.cat([none, *self._distances])
        self._distances = []
        extremes = torch.tensor([self._largest, float(own.max()) if len(own) else 0.0], dtype=torch.float64)
        largest, farthest = peers.reduce(extremes, "max").tolist()
        if 0 < largest < SMALLEST:
            raise BadRowsError(f"the largest number of these rows is {largest:.3g}: scale them to about 1")
        count = int(peers.sums(len(own))[0])
        typical = peers.kth_smallest(own, (count - 1) // 2) if count else 0.0
        aside = sum(map(len, self._aside))
        far, kept, returned = map(int, peers.sums(int((own > FAR * typical).sum()), aside, self._returned))
        several = bool(returned) or far > MOST_OUTLIERS * count
        self._return_near(torch.inf if several else FAR * typical)
        outliers = far if kept and not several else 0
        left = [torch.empty(0, dtype=torch.long), *self._aside_places]
        self.outlier_rows = sorted(peers.gather_rows(torch.cat(left)).tolist()) if outliers else []
        heavy = several and typical > 0
        self._gather()
        facts = RowFacts.of(
            self.moments,
            self.sample.rows,
            self._lowest,
            self._highest,
            self.copies,
            outliers,
            farthest / typical if outliers and typical > 0 else 0.0,
            far if heavy else 0,
        )
        self.facts = self._in_directions(facts) if heavy else self._without_off_plane(facts)

    def _without_off_plane(self, facts: RowFacts) -> RowFacts:
        """Leave out rows off the few directions of all others, or measure without."""
        rows = self.sample.rows
        off = off_plane(rows)
        share = float(off.double().mean()) if len(rows) else 0.0
        if 0 < share <= MOST_OUTLIERS:
            self.outlier_rows = sorted([*self.outlier_rows, *self.sample.places[off].tolist()])
            self.moments = Moments.of(rows[~off])
            self.sample.keep(~off)
            return replace(facts, off_plane=round(share * self.copies.rows))
        if (weight := beside(share)) > COUNTED:
            says = f"{share:.0%} of the rows, off the few directions of all others, are left out"
            self.alternatives = (Alternative.of(Moments.of(rows[~off]), weight, says),)
        return facts

    def _in_directions(self, facts: RowFacts) -> RowFacts:
        """Measure ranks that no long rows set: of unit rows, and without those."""
        weight, share = beside(facts.far / facts.n), f"{facts.far / facts.n:.0%}"
        says = "directions alone count"
        self.alternatives = (Alternative.of(self.moments, 1 - weight, says, directions=True),)
        if weight > COUNTED:
            rows = self.sample.rows.double()
            distance = torch.linalg.vector_norm(rows - rows.median(dim=0).values, dim=1)
            near = Moments.of(rows[distance <= FAR * distance.median()])
            says = f"{share} of the rows, far out, are left out"
            self.alternatives += (Alternative.of(near, weight, says),)
        return facts

    def _take(self) -> None:
        """Take in the rows that wait, but for those far from the middle."""
        z = torch.cat(self._waiting)
        self._waiting = []
        begun = self._middle is not None
        if self._middle is None:
            some = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:MIDDLE_ROWS]
            self._middle = z[some.to(z.device)].double().median(dim=0).values
        distance = self._distance(z)
        self._distances.append(distance)
        if not begun:
            self._typical = float(distance.median())
        places = torch.arange(self._next, self._next + len(z))
        self._next += len(z)
        near = distance <= (torch.inf if self._returned else DOUBTFUL * FAR * self._typical)
        if not bool(near.all()):
            self._aside.append(z[~near].cpu())
            self._aside_places.append(places[~near])
            z, places = z[near], places[near]
        self._add(z, places)
        if sum(map(len, self._aside)) > max(self._most_outliers, ASIDE):
            self._make_room()

    @property
    def _most_outliers(self) -> float:
        return MOST_OUTLIERS * max(self.count, self.expected)

    def _make_room(self) -> None:
        """Take in waiting rows near the middle, or all where they are too many."""
        self._distances = [torch.cat(self._distances)]
        self._typical = float(self._distances[0].median())
        far = int((self._distance(torch.cat(self._aside)) > FAR * self._typical).sum())
        self._returned = far > self._most_outliers
        self._return_near(torch.inf if self._returned else DOUBTFUL * FAR * self._typical)

    def _add(self, z: Tensor, places: Tensor) -> None:
        if not len(z):
            return
        self.moments.update(z)
        self.sample.add(z, places)
        assert self._middle is not None
        sketch = directions(self.dim, torch.Generator().manual_seed(0)) if self.dim > SKETCH else None
        rows = [(part if sketch is None else part @ sketch.to(part)).float() for part in self._centred(z)]
        self.sketch.add(torch.cat(rows).cpu(), places)
        self._lowest = torch.minimum(self._lowest, z.amin(0).float().cpu())
        self._highest = torch.maximum(self._highest, z.amax(0).float().cpu())

    def _return_near(self, limit: float) -> None:
        """Take in those of the rows aside that are no farther than that from the middle."""
        if not self._aside:
            return
        z, places = torch.cat(self._aside), torch.cat(self._aside_places)
        near = self._distance(z) <= limit
        self._aside, self._aside_places = ([], []) if bool(near.all()) else ([z[~near]], [places[~near]])
        self._add(z[near].to(self.moments.total.device), places[near])

    def _distance(self, z: Tensor) -> Tensor:
        return torch.cat([torch.linalg.vector_norm(part, dim=1) for part in self._centred(z)]).cpu()

    def _centred(self, z: Tensor) -> Iterator[Tensor]:
        """Rows less the middle in double precision, some at a time."""
        assert self._middle is not None
        middle = self._middle.to(z.device)
        for part in torch.split(z, rows_of_a_block(z)):
            yield part.double() - middle

    def _gather(self) -> None:
        """Become the statistics of the union of all processes' rows."""
        peers = self.peers
        if peers.size == 1:
            return
        middles = peers.gather(torch.zeros(self.dim).double() if self._middle is None else self._middle.cpu())
        some = [bool(there) for there in peers.gather(torch.tensor(int(self._middle is not None))).tolist()]
        if self._middle is not None:  # all sketches around the first process's middle
            moved = (self._middle.cpu() - middles[some.index(True)])[None]
            if bool(moved.any()):
                self.sketch.shift(project(moved, torch.Generator().manual_seed(0)).float())
        self.moments.all_reduce(peers)
        self.sample.gather(peers)
        self.sketch.gather(peers)
        self._lowest = peers.reduce(self._lowest, "min")
        self._highest = peers.reduce(self._highest, "max")
        self.copies.gather(peers)


def beside(share: float) -> float:
    """How probable it is that so few rows are no part of the cloud; 0 for none.

    Example:
        >>> beside(0.0), beside(0.08), round(beside(0.05), 2), round(beside(0.12), 2)
        (0.0, 0.5, 0.93, 0.1)
    """
    return beyond(math.log(PART_OF_CLOUD / share), 0.0, PART_WIDTH) if share > 0 else 0.0


def off_plane(rows: Tensor) -> Tensor:
    """Which of rows [n, d] lie off the few directions of all others, bool [n].

    The directions are those that hold nine tenths of the median row, at most 31 and a quarter of all. Rows
    off them have most of their length elsewhere, are at most three twentieths, and hold most of what lies
    there.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(500, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
        >>> z[:3] = torch.randn(3, 64, generator=generator)
        >>> off_plane(z).nonzero()[:, 0].tolist(), int(off_plane(torch.eye(64).repeat(9, 1)).sum())
        ([0, 1, 2], 0)
    """
    n, d = rows.shape
    nobody = torch.zeros(n, dtype=torch.bool)
    most = min(d // 4, 31)
    if n < 64 or most < 1:
        return nobody
    x = rows.double() - rows.double().mean(0)
    total = x.square().sum(1)
    basis = torch.randn(d, min(most + 8, d), generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    for _ in range(3):  # of the power method for the strongest directions
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    scores = x @ basis
    turn = torch.linalg.eigh(scores.T @ scores).eigenvectors.flip(1)
    left = (total[:, None] - (scores @ turn).square().cumsum(1)[:, :most]).clamp(min=0)
    typical = (left / total.clamp(min=1e-300)[:, None]).median(dim=0).values
    if float(typical.min()) > 0.1:
        return nobody
    beside = left[:, int((typical > 0.1).sum())]
    off = beside > 0.5 * total
    some = 0 < int(off.sum()) <= 3 * MOST_OUTLIERS * n
    return off if some and float(beside[off].sum()) > 0.5 * float(beside.sum()) else nobody


def _largest(z: Tensor) -> float:
    """The largest absolute value; UsageError beyond single precision."""
    least, most = z.aminmax()
    largest = max(-float(least), float(most))
    if LARGEST < largest < float("inf"):
        raise BadRowsError(f"the largest number of these rows is {largest:.3g}: scale them to about 1")
    return largest
