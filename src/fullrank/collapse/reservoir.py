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

    Example:
        >>> sample = Reservoir(dim=1, capacity=3)
        >>> sample.add(torch.arange(100.0)[:, None])
        >>> len(sample.rows), sample.count
        (3, 100)
    """

    def __init__(self, dim: int, capacity: int = 2048, stream: int = 0) -> None:
        self.capacity, self.stream, self.count = capacity, stream, 0
        self.keys = np.empty(0, dtype=np.uint64)
        self.rows = torch.empty(0, dim)

    @torch.no_grad()
    def add(self, z: Tensor) -> None:
        """Offers rows [n, d], in the order of the stream."""
        check_rows(z, self.rows.shape[1])
        places = np.arange(self.count, self.count + len(z), dtype=np.uint64)
        keys = _mix(places + (np.uint64(self.stream) << np.uint64(40)))
        chosen = np.argsort(keys)[
            : self.capacity
        ]  # before the copy: most rows of a long chunk are not needed
        rows = z.detach()[torch.from_numpy(chosen).to(z.device)].to("cpu", torch.float32)
        self.count += len(z)
        self._keep(np.concatenate([self.keys, keys[chosen]]), torch.cat([self.rows, rows]))

    def gather(self, group: Any = None) -> None:
        """Becomes the sample of the union of all processes' streams; does nothing in a single process."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        world = distributed.get_world_size(group)
        all_keys: list[Any] = [None] * world
        distributed.all_gather_object(all_keys, (self.count, self.keys), group=group)
        union = np.sort(np.concatenate([keys for _, keys in all_keys]))[: self.capacity]
        mine = int(np.searchsorted(self.keys, union[-1], side="right")) if len(union) else 0
        all_rows: list[Any] = [None] * world  # only the winners travel
        distributed.all_gather_object(all_rows, (self.keys[:mine], self.rows[:mine].numpy()), group=group)
        self.count = sum(count for count, _ in all_keys)
        rows = [torch.from_numpy(rows) for _, rows in all_rows]
        self._keep(np.concatenate([keys for keys, _ in all_rows]), torch.cat(rows))

    def _keep(self, keys: np.ndarray, rows: Tensor) -> None:
        """Keeps the rows of the smallest keys, sorted by key."""
        order = np.argsort(keys)[: self.capacity]
        self.keys, self.rows = keys[order], rows[torch.from_numpy(order)]


def _mix(x: np.ndarray) -> np.ndarray:
    """A one-to-one scrambling of 64-bit numbers (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = x ^ (x >> np.uint64(31))
    return scrambled
