"""k-means, of a bounded sample or of all features of a data set.

`kmeans` is for many rows:

- It starts on a sample of rows and doubles it whenever the centres hardly move, so that few steps see all
  rows; in bfloat16 where the processor multiplies in it, for these centres are only where the exact steps
  start.
- A row keeps an upper bound on the distance to its own centre and a lower bound on that to all others.
  Centres that move by a little move the bounds by no more, and while the upper one is below the lower one the
  row need not be compared (Hamerly 2010). The steps are Lloyd's own, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.collapse.moments import all_finite
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError

ROWS = 2048  # at a time, so that they are still in the cache when they are summed
SAMPLE = 64  # times k rows make the first sample
LOOSE = 10.0  # times the tolerance will do on a sample
ROUNDING = 1e-5  # of the largest length: bounds that are nearer than this to each other do not count


def processor_has_bfloat16() -> bool:
    """Whether the CPU itself multiplies in bfloat16, so that it is faster."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """[n, k], not below 0."""
    squares = rows.square().sum(1)[:, None] + centres.square().sum(1)
    return squares.addmm_(rows, centres.T, alpha=-2).clamp_min_(0)


def in_fixed_order(rows: Tensor) -> Tensor:
    """Rows sorted along a fixed direction, so that their order cannot matter.

    Example:
        >>> z = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> torch.equal(in_fixed_order(z), in_fixed_order(z.flip(0)))
        True
    """
    generator = torch.Generator().manual_seed(rows.shape[1])
    direction = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64).to(rows)
    # Summed row by row: a matrix product may round equal rows differently.
    return rows[(rows * direction).sum(1).argsort(stable=True)]


@dataclass(frozen=True)
class KMeans:
    """Clusters of rows.

    Attributes:
        centres: [k, d].
        nearest: int64 [n], the centre of every row.
        inertia: sum of squared distances to it.
        steps: of Lloyd's algorithm on all rows.
        converged: whether the last of them gained no more than the tolerance, or changed no row's cluster.
    """

    centres: Tensor
    nearest: Tensor
    inertia: float
    steps: int
    converged: bool


def kmeans(
    features: Tensor,
    clusters: int,
    *,
    seed: int = 0,
    restarts: int = 1,
    steps: int = 300,
    tolerance: float = 5e-5,
    start: Tensor | None = None,
    peers: Peers | None = None,
) -> KMeans:
    """Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii 2007).

    The best of some restarts.

    Args:
        features: [n, d], finite; double precision is kept, all else is single.
        clusters: k, at most n.
        seed: of the starts.
        restarts: how often it is begun anew; the least inertia wins.
        steps: the most on all rows.
        tolerance: the share of the inertia, gained by a move of the centres, at which it stops: 5e-5 ends
            within about 0.1 % of where 0 does, which goes on until no row changes; seeds differ by more.
        start: centres [k, d] to begin from on all rows instead.
        peers: processes that each hold a part of the rows; None: this one holds all. `nearest` is then of
            this process's rows, all else of all.

    Returns:
        A cluster that loses all its rows keeps its centre.

    Raises:
        UsageError: not between 1 and n clusters, no restart or step, or values that are not finite.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2)
        >>> round(found.inertia, 4), found.converged, found.centres.sum(0)
        (0.01, True, tensor([5.1000]))
    """
    if features.ndim != 2 or not all_finite(features):
        raise UsageError(f"k-means takes a matrix of finite numbers, not {list(features.shape)} with others")
    peers = peers or Peers(alone=True)
    n = int(peers.sums(len(features))[0])
    if not 1 <= clusters <= n or restarts < 1 or steps < 1:
        raise UsageError(
            f"k-means of {n} rows takes 1 to {n} clusters, a restart and a step at "
            f"least, not {clusters}, {restarts} and {steps}"
        )
    rows = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    mean = rows.mean(0) if peers.size == 1 else (peers.reduce(rows.double().sum(0)) / n).to(rows)
    rows = rows - mean  # fewer digits are lost
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(1 if start is not None else restarts):
        if start is None:
            centres = _from_samples(rows, clusters, steps, tolerance, generator, peers)
        else:
            centres = start.to(rows) - mean
        run = _BoundedSteps(rows, centres, peers)
        done, converged = run.until(steps, tolerance)
        found.append(KMeans(run.centres + mean, run.nearest, run.inertia(), done, converged))
    return min(found, key=lambda result: result.inertia)


def sample_kmeans(rows: Tensor, clusters: int, seed: int = 0, steps: int = 50) -> tuple[Tensor, Tensor]:
    """Centres [k, d] of a bounded sample, and the nearest one [n] of every row.

    Args:
        rows: [n, d], finite floats.
        clusters: k; fewer centres come back where there are fewer different rows.
        seed: of the start.
        steps: the most of them.

    Example:
        >>> sample_kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 3)[1].unique().tolist()
        [0, 1, 2]
    """
    if not len(rows) or clusters < 1:
        raise UsageError(f"k-means needs rows and at least one cluster, not {len(rows)} and {clusters}")
    mean = rows.mean(0)
    rows = rows - mean
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(len(rows), (), generator=generator))
    centres = _plus_plus(rows, clusters, generator, first)
    nearest = squared_distances(rows, centres).argmin(1)
    for _ in range(steps):
        counts = torch.bincount(nearest, minlength=len(centres)).to(rows)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        before, nearest = nearest, squared_distances(rows, centres).argmin(1)
        if torch.equal(before, nearest):
            break
    return centres + mean, nearest


def _from_samples(
    rows: Tensor, clusters: int, steps: int, tolerance: float, generator: torch.Generator, peers: Peers
) -> Tensor:
    """Centres [k, d] from samples of all rows, each twice as large as the last one."""
    counts = peers.gather(torch.tensor(len(rows))).tolist()
    n, first = sum(counts), sum(counts[: peers.rank])
    order = torch.randperm(n, generator=generator).to(rows.device)
    size = min(SAMPLE * clusters, n)
    centres = _plus_plus(_first_sample(rows, order[:size] - first, peers), clusters, generator)
    quick = rows.device.type == "cpu" and rows.dtype == torch.float32 and processor_has_bfloat16()
    quick = bool(peers.reduce(torch.tensor(int(quick)), "min"))
    while size < n:
        places = order[:size] - first
        sample = rows.index_select(0, places[(places >= 0) & (places < len(rows))])
        centres = _rough_steps(sample, centres, quick, steps, LOOSE * tolerance, peers)
        size *= 2
    return _rough_steps(rows, centres, True, steps, tolerance, peers) if quick else centres


def _first_sample(rows: Tensor, places: Tensor, peers: Peers) -> Tensor:
    """Rows of all processes in order, counted from this process's first row."""
    own = ((places >= 0) & (places < len(rows))).nonzero()[:, 0]
    found, turns = peers.gather_rows(rows[places[own]]), peers.gather_rows(own)
    return found[turns.argsort()]


def _rough_steps(
    rows: Tensor, centres: Tensor, quick: bool, steps: int, tolerance: float, peers: Peers
) -> Tensor:
    """Steps until one gains no more than a share of the inertia."""
    dtype = torch.bfloat16 if quick else rows.dtype
    compared = rows.to(dtype)
    squares = float(torch.linalg.vector_norm(rows, dim=1).double().square().sum())
    several = peers.size > 1
    for _ in range(steps):
        sums, counts = torch.zeros_like(centres), centres.new_zeros(len(centres))
        inertia, lengths, other = squares, centres.square().sum(1), centres.to(dtype).T
        for part, x in zip(torch.split(compared, ROWS), torch.split(rows, ROWS), strict=True):
            best, nearest = torch.sub(lengths, part @ other, alpha=2).min(1)
            sums.index_add_(0, nearest, x)
            counts += torch.bincount(nearest, minlength=len(centres))
            inertia += float(best.sum(dtype=torch.float64))
        if several:
            (inertia,) = peers.sums(inertia)
            sums, counts = peers.reduce(sums.double()).to(sums), peers.reduce(counts)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        gain = float(counts @ (means - centres).square().sum(1))
        centres = means
        if gain <= tolerance * inertia:
            break
    return centres


def _plus_plus(rows: Tensor, clusters: int, generator: torch.Generator, first: int | None = None) -> Tensor:
    """Centres [k, d] among the rows, chosen by squared distance (k-means++).

    With a first row given there are fewer where there are fewer different rows, without one some repeat.
    """
    squares = torch.linalg.vector_norm(rows, dim=1).square()
    chance, chosen = torch.ones_like(squares), list[int]()
    while len(chosen) < clusters:
        place = first
        if chosen or place is None:
            steps = chance.cumsum(0, dtype=torch.float64)
            aim = torch.rand((), generator=generator, dtype=torch.float64).to(steps) * steps[-1:]
            place = int(torch.searchsorted(steps, aim, right=True).clamp_max(len(rows) - 1))
        chosen.append(place)
        if first is not None:
            distance = (rows - rows[place]).square().sum(1)
        else:  # faster, but equal rows need not be at 0
            distance = (squares - 2 * (rows @ rows[place]) + squares[place]).clamp_min(0)
        chance = distance if len(chosen) == 1 else chance.minimum(distance)
        if not float(chance.sum()) > 0:
            if first is not None:
                break
            chance = torch.ones_like(chance)  # all different rows are centres already
    return rows[chosen].clone()


class _BoundedSteps:
    """State of one run: assignments, sums of the clusters, and the bounds."""

    def __init__(self, rows: Tensor, centres: Tensor, peers: Peers) -> None:
        self.rows, self.centres, self.peers = rows, centres, peers
        n, k = len(rows), len(centres)
        length = torch.linalg.vector_norm(rows, dim=1)
        self.squares, self.slack = length.square(), ROUNDING * (float(length.max()) if n else 0.0)
        self.nearest = torch.zeros(n, dtype=torch.long, device=rows.device)
        self.own, self.others = torch.zeros_like(self.squares), torch.zeros_like(self.squares)
        self.sums = torch.zeros(k, rows.shape[1], dtype=torch.float64, device=rows.device)
        self.counts = torch.zeros(k, dtype=torch.float64, device=rows.device)

    def until(self, steps: int, tolerance: float) -> tuple[int, bool]:
        """Steps until one gains no more than a share of the inertia."""
        self._assign_all()
        step, converged = 0, False
        while step < steps and not converged:
            step += 1
            inertia = float(self.own.square().sum(dtype=torch.float64))  # or a little more
            small = self._move() <= tolerance * self.peers.sums(inertia)[0]
            converged = not self.peers.sums(self._assign_doubtful())[0] or small
        return step, converged

    def inertia(self) -> float:
        """The sum of squared distances, computed anew."""
        found = 0.0
        for part in self._blocks():
            gap = self.rows[part] - self.centres.index_select(0, self.nearest[part])
            found += float(torch.linalg.vector_norm(gap, dim=1).double().square().sum())
        return self.peers.sums(found)[0]

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + ROWS) for start in range(0, len(self.rows), ROWS))

    def _move(self) -> float:
        """Move centres to the means; return how much inertia that gains."""
        sums, counts = self.peers.reduce(self.sums), self.peers.reduce(self.counts)
        means = (sums / counts.clamp_min(1)[:, None]).to(self.centres)
        centres = torch.where(counts[:, None] > 0, means, self.centres)
        moved = (centres - self.centres).norm(dim=1)
        self.centres = centres
        self.own += moved[self.nearest]
        if len(moved) > 1:
            far, which = moved.topk(2)
            self.others -= torch.where(self.nearest == which[0], far[1], far[0])
        return float(counts @ moved.double().square())

    def _assign_all(self) -> None:
        for part in self._blocks():
            x = self.rows[part]
            self.nearest[part], self.own[part], self.others[part] = self._compared(x, self.squares[part])
            self._add(self.nearest[part], x, 1)

    def _assign_doubtful(self) -> bool:
        """Assign rows whose bounds overlap; return whether one has changed."""
        changed = False
        doubtful = self.own + self.slack >= self.others
        for part in self._blocks():
            rows = doubtful[part].nonzero()[:, 0] + part.start
            if not len(rows):
                continue
            whole = 2 * len(rows) > ROWS  # looking at all is faster than picking most
            where: Tensor | slice = part if whole else rows
            x = self.rows[part] if whole else self.rows.index_select(0, rows)
            before = self.nearest[where].clone()
            nearest, self.own[where], self.others[where] = self._compared(x, self.squares[where])
            moved = (nearest != before).nonzero()[:, 0]
            if len(moved):
                x = x.index_select(0, moved)
                self._add(before[moved], x, -1)
                self._add(nearest[moved], x, 1)
                self.nearest[where] = nearest
                changed = True
        return changed

    def _compared(self, x: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest centre of rows, the distance to it, and that to the second nearest."""
        scores = torch.addmm(self.centres.square().sum(1), x, self.centres.T, alpha=-2)  # |c|^2 - 2 x.c
        best, nearest = scores.min(1)
        scores.scatter_(1, nearest[:, None], torch.inf)
        own, others = (best + squares).clamp_min(0), (scores.amin(1) + squares).clamp_min(0)
        return nearest, own.sqrt(), others.sqrt()

    def _add(self, cluster: Tensor, rows: Tensor, sign: int) -> None:
        self.sums += torch.zeros_like(self.centres).index_add_(0, cluster, rows, alpha=sign)
        self.counts += sign * torch.bincount(cluster, minlength=len(self.centres))
