"""A bounded sample of rows, for the metrics that no sums can give: they compare rows with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.moments import check_rows

__all__ = ["Reservoir"]


class Reservoir:
    """A uniform sample, without replacement, of at most `capacity` rows of a stream.

    Each row gets a key that is a fixed pseudo-random function of its place in the stream, and the rows with
    the smallest keys stay (bottom-k sampling). So the sample does not depend on how the stream was cut into
    chunks, sees every part of a data set that is sorted or interleaved by class, and is the same every time.

    Args:
        dim: d, the width of a row.
        capacity: the most rows to keep, as float32 on the CPU (16 MB for 2048 rows of 2048).
        stream: which stream this is (the rank of a process), so that two of them draw different keys.

    Attributes:
        count: rows offered.

    Example:
        >>> sample = Reservoir(dim=1, capacity=3)
        >>> sample.add(torch.arange(100.0)[:, None])
        >>> len(sample.rows), sample.count, sample.rows[:, 0].long().tolist() == sample.places.tolist()
        (3, 100, True)
    """

    def __init__(self, dim: int, capacity: int = 2048, stream: int = 0) -> None:
        self.capacity, self.stream, self.count = capacity, stream, 0
        self._keys = np.empty(0, dtype=np.uint64)
        self._places = np.empty(0, dtype=np.int64)
        self._rows = torch.empty(0, dim)
        self._waiting: list[tuple[np.ndarray, np.ndarray, Tensor]] = []

    @property
    def rows(self) -> Tensor:
        """The sample, float32 [m, d] on the CPU, smallest key first."""
        self._settle()
        return self._rows

    @property
    def places(self) -> Tensor:
        """Where in its stream each of them stood, int64 [m]."""
        self._settle()
        return torch.from_numpy(self._places)

    @torch.no_grad()
    def add(self, z: Tensor) -> None:
        """Offers rows [n, d], in the order of the stream."""
        check_rows(z, self._rows.shape[1])
        places = np.arange(self.count, self.count + len(z), dtype=np.uint64)
        keys = _mix(places + (np.uint64(self.stream) << np.uint64(40)))
        full = len(self._keys) == self.capacity
        # where the sample is full soon hardly any row is better, so hardly any is copied
        chosen = np.flatnonzero(keys < self._keys[-1]) if full else np.argsort(keys)[: self.capacity]
        rows = z.detach()[torch.from_numpy(chosen).to(z.device)].to("cpu", torch.float32)
        self._waiting.append((keys[chosen], places[chosen].astype(np.int64), rows))
        self.count += len(z)
        if len(self._keys) < self.capacity or sum(len(keys) for keys, _, _ in self._waiting) > self.capacity:
            self._settle()

    def gather(self, group: Any = None) -> None:
        """Becomes the sample of the union of all processes' streams; does nothing in a single process."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        self._settle()
        world = distributed.get_world_size(group)
        all_keys: list[Any] = [None] * world
        distributed.all_gather_object(all_keys, (self.count, self._keys), group=group)
        union = np.sort(np.concatenate([keys for _, keys in all_keys]))[: self.capacity]
        mine = int(np.searchsorted(self._keys, union[-1], side="right")) if len(union) else 0
        found: list[Any] = [None] * world  # only the winners travel
        own = (self._keys[:mine], self._places[:mine], self._rows[:mine].numpy())
        distributed.all_gather_object(found, own, group=group)
        self.count = sum(count for count, _ in all_keys)
        self._keys, self._places, self._rows = self._keys[:0], self._places[:0], self._rows[:0]
        self._waiting = [(keys, places, torch.from_numpy(rows)) for keys, places, rows in found]
        self._settle()

    def _settle(self) -> None:
        """Keeps, of the rows kept and those that wait, the ones of the smallest keys, sorted by key."""
        if not self._waiting:
            return
        keys, places, rows = zip((self._keys, self._places, self._rows), *self._waiting, strict=True)
        self._waiting = []
        joined = np.concatenate(keys)
        order = np.argsort(joined)[: self.capacity]
        self._keys, self._places = joined[order], np.concatenate(places)[order]
        self._rows = torch.cat(rows)[torch.from_numpy(order)]


def _mix(x: np.ndarray) -> np.ndarray:
    """A one-to-one scrambling of 64-bit numbers (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = x ^ (x >> np.uint64(31))
    return scrambled
