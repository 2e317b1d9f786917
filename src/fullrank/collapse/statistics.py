"""Statistics of one embedding in one pass: what a verdict is made of.

Beside moments and a sample of rows they keep a few numbers of every row, for what moments cannot see: copies,
rows far from all others, clusters. Rows far away wait aside and never enter the moments, for one of them can
outweigh a million others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.blemishes import RowFacts
from fullrank.collapse.metrics.clusters import project
from fullrank.collapse.moments import Moments, all_finite, check_rows, in_group
from fullrank.collapse.sampling import Copies, Reservoir, row_hash
from fullrank.errors import UsageError

CLUSTER_ROWS = 16_384  # projected to 64 dimensions: 4 MB; they show up to 5,461 clusters
SETTLED = 256  # rows from which a middle and a typical distance are taken
ASIDE = 4096  # rows that may wait aside however few were seen
SMALLEST, LARGEST = 1e-30, 1e30  # of rows, samples of which are kept in single precision
FAR = 10.0  # times the median distance from the middle; Gaussian rows in two dimensions reach 5
MOST_OUTLIERS = 0.05  # of all rows; more are a part of the cloud


class EmbeddingStatistics:
    """Streaming statistics of rows [n, d].

    Args:
        dim: d, the width of a row.
        device: where the moments live.
        capacity: rows of the sample.
        stream: which stream this is (the rank of a process).

    Attributes:
        moments: of all rows but outliers, after `finish`.
        sample: a uniform sample of these rows, [m, d].
        sketch: a larger one, in at most 64 dimensions.
        facts: counts of copies, outliers and values.

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

    def __init__(
        self, dim: int, device: torch.device | str = "cpu", capacity: int = 2048, stream: int = 0
    ) -> None:
        self.dim = dim
        self.moments = Moments(dim, "cpu" if torch.device(device).type == "mps" else device)
        self.sample = Reservoir(dim, capacity, stream)
        self.sketch = Reservoir(min(dim, 64), CLUSTER_ROWS, stream)
        self.copies = Copies()
        self._waiting: list[Tensor] = []  # the first rows, until a middle can be taken
        self._middle: Tensor | None = None
        self._distances: list[Tensor] = []
        self._aside: list[Tensor] = []
        self._aside_places: list[Tensor] = []
        self._taken = 0
        self._typical = 0, 0.0  # rows that the median distance is of, and that
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

    def finish(self) -> None:
        """Say which rows are outliers, and add up all processes.

        Raises:
            UsageError: all numbers are below 1e-30.
        """
        if self._finished:
            return
        self._finished = True
        if self._waiting:
            self._take()
        distances, kept, returned, largest = self._of_all_processes()
        if 0 < largest < SMALLEST:
            raise UsageError(f"the largest number of these rows is {largest:.3g}: scale them to about 1")
        typical = float(distances.median()) if len(distances) else 0.0
        self._return_near(typical, distances, returned)
        far = distances[distances > FAR * typical]
        outliers = len(far) if kept and not returned and len(far) <= MOST_OUTLIERS * len(distances) else 0
        if in_group():
            self._gather()
        facts = RowFacts.of(
            self.moments,
            self.sample.rows,
            self._lowest,
            self._highest,
            self.copies,
            outliers,
            float(far.max()) / typical if outliers and typical > 0 else 0.0,
        )
        self.facts = self._without_off_plane(facts)

    def _of_all_processes(self) -> tuple[Tensor, int, bool, float]:
        """Distances, rows aside, whether too many waited, and the largest number."""
        own = torch.cat(self._distances) if self._distances else torch.empty(0, dtype=torch.float64)
        aside = sum(map(len, self._aside))
        if not in_group():
            return own, aside, self._returned, self._largest
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        mine = own.numpy(), aside, self._returned, self._largest
        torch.distributed.all_gather_object(parts, mine)
        distances, asides, returned, largest = zip(*parts, strict=True)
        whole = torch.cat([torch.from_numpy(part) for part in distances])
        return whole, sum(asides), any(returned), max(largest)

    def _without_off_plane(self, facts: RowFacts) -> RowFacts:
        """Leave out rows beside the few directions of all others."""
        rows = self.sample.rows
        off = off_plane(rows)
        if not bool(off.any()):
            return facts
        self.moments = Moments.of(rows[~off])
        self.sample.keep(~off)
        return replace(facts, off_plane=round(float(off.double().mean()) * self.copies.rows))

    def _take(self) -> None:
        """Take in the rows that wait, but for those far from the middle."""
        z = torch.cat(self._waiting)
        self._waiting = []
        if self._middle is None:
            self._middle = z[:: max(len(z) // 1024, 1)][:1024].double().median(dim=0).values
        distance = self._distance(z)
        self._distances.append(distance)
        places = torch.arange(self._taken, self._taken + len(z))
        self._taken += len(z)
        near = distance <= self._limit()
        if not bool(near.all()):
            self._aside.append(z[~near].cpu())
            self._aside_places.append(places[~near])
            z, places = z[near], places[near]
        self._add(z, places)
        if sum(map(len, self._aside)) > max(MOST_OUTLIERS * self.count, ASIDE):
            self._return_near(float(torch.cat(self._distances).median()), None, False)
            self._returned = True

    def _add(self, z: Tensor, places: Tensor) -> None:
        if not len(z):
            return
        self.moments.update(z)
        self.sample.add(z, places)
        assert self._middle is not None
        generator = torch.Generator().manual_seed(0)
        self.sketch.add(project((z.double() - self._middle).cpu(), generator).float(), places)
        self._lowest = torch.minimum(self._lowest, z.amin(0).float().cpu())
        self._highest = torch.maximum(self._highest, z.amax(0).float().cpu())

    def _return_near(self, typical: float, distances: Tensor | None, returned: bool) -> None:
        """Take in what is not far after all, or all that waits where it is too much."""
        if not self._aside:
            return
        z, places = torch.cat(self._aside), torch.cat(self._aside_places)
        near = self._distance(z) <= FAR * typical
        count, far = self.count, int((~near).sum())
        if distances is not None:
            count, far = len(distances), int((distances > FAR * typical).sum())
        if returned or self._returned or far > MOST_OUTLIERS * count:
            near[:] = True
        self._aside, self._aside_places = ([], []) if bool(near.all()) else ([z[~near]], [places[~near]])
        self._add(z[near].to(self.moments.total.device), places[near])

    def _limit(self) -> float:
        """Distance from which a row is far, renewed with every twentieth of the rows."""
        if self._taken > 1.05 * self._typical[0]:
            self._distances = [torch.cat(self._distances)]
            self._typical = self._taken, float(self._distances[0].median())
        return FAR * self._typical[1]

    def _distance(self, z: Tensor) -> Tensor:
        assert self._middle is not None
        distance: Tensor = torch.linalg.vector_norm(z.double() - self._middle.to(z.device), dim=1)
        return distance.cpu()

    def _gather(self) -> None:
        """Become the statistics of the union of all processes' rows."""
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        own = self._middle, self._lowest, self._highest, self.copies
        torch.distributed.all_gather_object(parts, own)
        middles = [part[0] for part in parts if part[0] is not None]
        if self._middle is not None:  # all sketches around the first process's middle
            moved = (self._middle - middles[0]).cpu()[None]
            self.sketch.shift(project(moved, torch.Generator().manual_seed(0)).float())
        self.moments.all_reduce()
        self.sample.gather()
        self.sketch.gather()
        self._lowest = torch.stack([part[1] for part in parts]).amin(0)
        self._highest = torch.stack([part[2] for part in parts]).amax(0)
        self.copies = Copies.union([part[3] for part in parts])


def off_plane(rows: Tensor) -> Tensor:
    """Which of rows [n, d] lie off the few directions of all others, bool [n].

    The directions are those that hold nine tenths of the median row, at most 31 and a quarter of all. Rows
    off them have most of their length elsewhere, are at most a twentieth, and hold most of what lies there.

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
    some = 0 < int(off.sum()) <= MOST_OUTLIERS * n
    return off if some and float(beside[off].sum()) > 0.5 * float(beside.sum()) else nobody


def _largest(z: Tensor) -> float:
    """The largest absolute value; UsageError beyond single precision."""
    least, most = z.aminmax()
    largest = max(-float(least), float(most))
    if LARGEST < largest < float("inf"):
        raise UsageError(f"the largest number of these rows is {largest:.3g}: scale them to about 1")
    return largest
