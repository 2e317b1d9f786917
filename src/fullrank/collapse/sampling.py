"""Bounded samples of rows, for metrics that compare rows with each other.

Both kinds keep the rows of the smallest keys (bottom-k sampling), and keys are scrambled numbers. `Reservoir`
makes one of the place in a stream, so its sample is uniform over all rows. `row_keys` makes it of the row
itself, so the same rows give the same sample in any order, any chunks and any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fullrank.collapse.blocks import rows_of_a_block
from fullrank.collapse.moments import check_rows
from fullrank.collapse.peers import Peers


class Reservoir:
    """A uniform sample, without replacement, of at most `capacity` rows of a stream.

    The sample does not depend on how the stream was cut into chunks, sees every part of a data set that is
    sorted or interleaved by class, and is the same every time.

    Args:
        dim: d, the width of a row.
        capacity: the most rows to keep, as float32 on the CPU (16 MB for 2048 rows of 2048).
        stream: which stream this is (the rank of a process), so that two of them have different keys.

    Attributes:
        count: rows offered.

    Example:
        >>> sample = Reservoir(dim=1, capacity=3)
        >>> sample.add(torch.arange(100.0)[:, None])
        >>> len(sample.rows), sample.count, sample.rows[:, 0].long().tolist() == sample.places.tolist()
        (3, 100, True)
    """

    def __init__(self, dim: int, capacity: int = 2048, stream: int = 0) -> None:
        self.dim, self.capacity, self.stream, self.count = dim, capacity, stream, 0
        nothing = torch.empty(0, dtype=torch.int64)
        self._kept = nothing, nothing, torch.empty(0, dim)  # keys, places and rows
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._waits = 0  # rows that wait to be merged

    @property
    def rows(self) -> Tensor:
        """The sample, float32 [m, d] on the CPU, smallest key first."""
        return self._merged()[2]

    @property
    def places(self) -> Tensor:
        """Places of the sampled rows in the stream, int64 [m]."""
        return self._merged()[1]

    @torch.no_grad()
    def add(self, z: Tensor, places: Tensor | None = None) -> None:
        """Offer rows [n, d], in the order of the stream, or with their places [n] in it."""
        check_rows(z, self.dim)
        if places is None:
            places = torch.arange(self.count, self.count + len(z))
        keys = _scramble(places + (self.stream << 40)) ^ _SIGN
        kept = self._kept[0]
        full = len(kept) == self.capacity
        # where the sample is full soon hardly any row is better, so hardly any is copied
        chosen = (keys < kept[-1]).nonzero()[:, 0] if full else smallest(keys, self.capacity)
        rows = z.detach()[chosen.to(z.device)].to("cpu", torch.float32)
        self._waiting.append((keys[chosen], places[chosen], rows))
        self.count += len(z)
        self._waits += len(chosen)
        # merged in growing steps, so that rows offered one at a time cost no more than a few copies each
        if self._waits > (self.capacity if full else max(len(kept), MERGED)):
            self._merged()

    def shift(self, by: Tensor) -> None:
        """Add `by` [1, d] to every row of the sample."""
        keys, places, rows = self._merged()
        self._kept = keys, places, rows + by

    def keep(self, chosen: Tensor) -> None:
        """Keep the rows that `chosen`, bool [m], has of the sample."""
        keys, places, rows = self._merged()
        self._kept = keys[chosen], places[chosen], rows[chosen]

    def gather(self, peers: Peers | None = None) -> None:
        """Become the sample of the union of all processes' streams.

        The keys of all come first, so that of the rows only the winners travel, by one all-gather.
        """
        peers = peers or Peers()
        if peers.size == 1:
            return
        keys, places, rows = self._merged()
        union = peers.gather_rows(keys).sort().values[: self.capacity]
        if not len(union):
            return
        mine = int((keys <= union[-1]).sum())
        width = 4 * self.dim
        parts = (keys[:mine, None], places[:mine, None], rows[:mine])
        packed = torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)
        winners = peers.gather_rows(packed)
        keys, places, rows = (part.contiguous() for part in winners.split([8, 8, width], dim=1))
        self.count = int(peers.sums(self.count)[0])
        nothing = self._kept
        self._kept = nothing[0][:0], nothing[1][:0], nothing[2][:0]
        integers = (part.view(torch.int64)[:, 0] for part in (keys, places))
        self._waiting = [(*integers, rows.view(torch.float32))]
        self._merged()

    def _merged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, places and rows of the smallest keys, sorted."""
        if self._waiting:
            keys, places, rows = (torch.cat(x) for x in zip(self._kept, *self._waiting, strict=True))
            order = smallest(keys, self.capacity)
            self._kept, self._waiting, self._waits = (keys[order], places[order], rows[order]), [], 0
        return self._kept


def smallest(keys: Tensor, capacity: int) -> Tensor:
    """Places of the smallest keys, sorted by key."""
    return torch.argsort(keys, stable=True)[:capacity]


def row_keys(inputs: Sequence[Tensor]) -> Tensor:
    """Keys [n] of rows: equal rows have equal keys, all others scatter.

    Args:
        inputs: tensors [n, ...] of numbers, on one device.

    Example:
        >>> z = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
        >>> keys = row_keys([z])
        >>> bool(keys[0] == keys[2] != keys[1]), torch.equal(row_keys([z.flip(0)]), keys.flip(0))
        (True, True)
    """
    key = torch.zeros(len(inputs[0]), dtype=torch.int64, device=inputs[0].device)
    for z in inputs:
        width = z[:1].numel() if len(z) else 0
        bits = (z.double().reshape(len(z), width) + 0.0).view(torch.int64)  # + 0.0 makes -0.0 and 0.0 one
        columns = _scramble(torch.arange(width, device=z.device)) | 1
        # The upper half is folded onto the lower one, which is all zeros for numbers of few digits.
        key = _scramble(key + ((bits ^ _shifted(bits, 32)) * columns).sum(1))
    return key


def row_hash(z: Tensor) -> Tensor:
    """Hashes [n] of rows [n, d], in one pass; equal rows have equal ones.

    Example:
        >>> z = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [-0.0, 0.0], [0.0, 0.0]])
        >>> key = row_hash(z)
        >>> bool(key[0] == key[2] != key[1]), bool(key[3] == key[4])
        (True, True)
    """
    wide = torch.float64 if z.dtype == torch.float64 or not z.is_floating_point() else torch.float32
    integers = torch.int64 if wide == torch.float64 else torch.int32
    columns = _scramble(torch.arange(z.shape[1], device=z.device)) | 1
    keys = []
    for part in torch.split(z, rows_of_a_block(z)):
        bits = (part.to(wide) + 0.0).view(integers).long()  # + 0.0 makes -0.0 and 0.0 one
        bits = bits ^ _shifted(bits, 32)  # the lower half is all zeros for numbers of few digits
        keys.append((bits * columns).sum(1))
    return _scramble(torch.cat(keys)) if keys else torch.empty(0, dtype=torch.int64)


class Copies:
    """Counts of equal rows, exact up to four million different ones, by their hashes.

    Of more, those of the smallest hashes are kept, and the commonest ones.

    Attributes:
        rows: rows seen.

    Example:
        >>> copies = Copies()
        >>> copies.add(row_hash(torch.tensor([[1.0], [2.0], [1.0]])))
        >>> copies.rows, copies.distinct, copies.most
        (3, 2, 2)
    """

    def __init__(self) -> None:
        self.rows = 0
        self._keys = self._counts = torch.empty(0, dtype=torch.int64)
        self._waiting: list[Tensor] = []
        self._waits = 0  # hashes that wait to be merged
        self._share = 1.0  # of all keys, that are kept
        self._of_all: tuple[int, int] | None = None  # different rows and copies, over processes

    def add(self, keys: Tensor) -> None:
        """Take in hashes [n] of rows."""
        self.rows += len(keys)
        self._waiting.append(keys.cpu())
        self._waits += len(keys)
        if self._waits > _KEPT:
            self._merge()

    @property
    def distinct(self) -> int:
        """Different rows; an estimate where there are more than are kept."""
        if self._of_all:
            return self._of_all[0]
        self._merge()
        kept = int((self._keys < self._cut).sum()) if self._share < 1.0 else len(self._keys)
        return min(round(kept / self._share), self.rows)

    @property
    def most(self) -> int:
        """How often the commonest of the rows that are kept occurs."""
        if self._of_all:
            return self._of_all[1]
        self._merge()
        return int(self._counts.max()) if len(self._counts) else 0

    def gather(self, peers: Peers) -> None:
        """Count the rows of all processes; more cannot be added afterwards.

        Each process takes the hashes of one part of all and counts those of every process, so that none
        holds more than it sees and gets.
        """
        if peers.size == 1:
            return
        self._merge()
        owners = self._keys.remainder(peers.size)
        order = owners.argsort(stable=True)
        counts = torch.bincount(owners, minlength=peers.size).tolist()
        found = peers.exchange(torch.stack([self._keys, self._counts], dim=1)[order], counts)
        share = float(peers.reduce(torch.tensor(self._share, dtype=torch.float64), "min"))
        self._keys = self._counts = self._keys[:0]
        self._join(found[:, 0], found[:, 1])
        self.rows = int(peers.sums(self.rows)[0])
        shares = [share * 2.0**-halved for halved in range(_HALVINGS)]
        cuts = torch.tensor([_cut_at(each) for each in shares])
        below = torch.searchsorted(self._keys, cuts)
        below[0] = len(self._keys) if share == 1.0 else below[0]
        kept = peers.reduce(below)
        at = int((kept <= _KEPT).nonzero()[0])
        most = peers.reduce(self._counts.max() if len(self._counts) else torch.tensor(0), "max")
        self._of_all = min(round(int(kept[at]) / shares[at]), self.rows), int(most)

    def _merge(self) -> None:
        if self._waiting:
            keys = torch.cat(self._waiting)
            self._waiting, self._waits = [], 0
            self._join(keys, torch.ones_like(keys))
            self._thin()

    def _join(self, keys: Tensor, counts: Tensor) -> None:
        both = torch.cat([self._keys, keys])
        self._keys, place = torch.unique(both, return_inverse=True)
        self._counts = torch.zeros_like(self._keys).index_add_(0, place, torch.cat([self._counts, counts]))

    def _thin(self) -> None:
        """Keep the smaller half of all hashes, while there are too many."""
        while True:
            if self._share < 1.0:
                often = int(self._counts.topk(min(_COMMONEST, len(self._counts))).values[-1])
                kept = (self._keys < self._cut) | ((self._counts >= often) & (self._counts > 1))
                self._keys, self._counts = self._keys[kept], self._counts[kept]
            if int((self._keys < self._cut).sum()) <= _KEPT:
                return
            self._share /= 2

    @property
    def _cut(self) -> int:
        """Hashes below it are kept."""
        return _cut_at(self._share)


def _cut_at(share: float) -> int:
    """The hash that this share of all lies below."""
    return min(_SIGN + int(share * 2.0**64), -_SIGN - 1)


MERGED = 256  # rows that a sample merges at a time, at least
_KEPT = 1 << 22  # hashes of rows: 64 MB with their counts
_COMMONEST = 1024  # rows that are kept for their number
_HALVINGS = 40  # of the share of hashes that are kept, at most: for 10^18 different rows
_SIGN = -(1 << 63)  # flipped, signed numbers sort as unsigned ones do


def _scramble(x: Tensor) -> Tensor:
    """Finaliser of SplitMix64 (Steele, Lea, Flood 2014), one-to-one."""
    x = x - 0x61C8864680B583EB  # + 0x9E3779B97F4A7C15 modulo 2^64, and so below
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, places: int) -> Tensor:
    """The bits moved to the right, zeros coming in."""
    return (x >> places) & ((1 << (64 - places)) - 1)
