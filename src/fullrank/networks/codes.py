"""Codes: fixed dictionaries of signs, and the mean use of a code over a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fullrank.networks.processes import sum_over_processes, world

BLOCK = 4096  # codes whose floats are made at once
DRAWN = 1 << 24  # signs drawn at a time; a multiple of 8, so that the stream is as if drawn at once
KEPT_BYTES = {"cpu": 2**28, "cuda": 2**32}  # floats up to here are made once and kept


class SignDictionary(nn.Module):
    """A fixed matrix W in {-1, +1}^{f x c} of independent fair signs, stored as bits.

    The state holds f c / 8 bytes: 4 MB for 2048 x 16384, where floats take 134. Products take floats, which
    are made block by block, and cached where all of them are small: up to 256 MB on a CPU, 4 GB on a GPU.

    Args:
        dim: f, length of a code.
        count: c, number of codes.
        seed: decides the signs; the process's random state has no say.

    Example:
        >>> codes = SignDictionary(4, 6, seed=0)
        >>> codes.matrix(torch.zeros(1)).shape, codes.bits.numel()
        (torch.Size([4, 6]), 3)
    """

    bits: Tensor

    def __init__(self, dim: int, count: int, seed: int) -> None:
        super().__init__()
        self.shape = dim, count
        if torch.get_default_device().type == "meta":  # where only the size counts
            self.register_buffer("bits", torch.empty(-(-dim * count // 8), dtype=torch.uint8))
        else:
            self.register_buffer("bits", self._drawn(dim, count, seed))
        self._kept: dict[tuple[torch.device, torch.dtype, int], list[Tensor]] = {}  # blocks, where W is small
        self._rows: Tensor | None = None  # the bits with every row beginning on a byte, where they do not so

    @staticmethod
    def _drawn(dim: int, count: int, seed: int) -> Tensor:
        rng, sizes = np.random.default_rng(seed), [*range(0, dim * count, DRAWN), dim * count]
        drawn = (rng.integers(0, 2, size=b - a, dtype=np.uint8) for a, b in pairwise(sizes))
        return torch.from_numpy(np.concatenate([np.packbits(part) for part in drawn]))

    def matrix(self, like: Tensor) -> Tensor:
        """W [f, c] on the device and in the type of `like`."""
        return torch.cat([block for _, block in self._made(like)], dim=1)

    def blocks(self, like: Tensor, width: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        """Yield W block by block, as `like`: a slice of the codes, [f, width].

        Example:
            >>> codes = SignDictionary(4, 20, seed=0)
            >>> whole = codes.matrix(torch.zeros(1))
            >>> all(torch.equal(whole[:, at], w) for at, w in codes.blocks(torch.zeros(1), width=8))
            True
        """
        f, c = self.shape
        if f * c * like.element_size() > KEPT_BYTES.get(like.device.type, 0):
            yield from self._made(like, width)
            return
        key = like.device, like.dtype, width
        if key not in self._kept:
            self._kept[key] = [block for _, block in self._made(like, width)]
        for k, block in enumerate(self._kept[key]):
            yield slice(k * width, min((k + 1) * width, c)), block

    def _made(self, like: Tensor, width: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        f, c = self.shape
        if c % 8 == 0:
            rows = self.bits.view(f, -1).to(like.device)
        elif self._rows is None or self._rows.device != like.device:
            signs = np.unpackbits(self.bits.cpu().numpy(), count=f * c).reshape(f, c)
            rows = self._rows = torch.from_numpy(np.packbits(signs, axis=1)).to(like.device)
        else:
            rows = self._rows
        shifts = torch.arange(7, -1, -1, device=like.device)
        signs_of = (torch.arange(256, device=like.device)[:, None] >> shifts & 1).to(like.dtype) * 2 - 1
        for start in range(0, c, width):
            at = slice(start, min(start + width, c))
            packed = rows[:, at.start // 8 : -(-at.stop // 8)].int()
            block = nn.functional.embedding(packed, signs_of).view(f, -1)
            yield at, block[:, : at.stop - at.start].contiguous()

    @staticmethod
    def pack(floats: Tensor) -> Tensor:
        """Bits, as the state holds them, of a matrix of signs."""
        return torch.from_numpy(np.packbits((floats > 0).cpu().numpy().ravel()))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._kept, self._rows = {}, None  # made of what was there before


def log_mean_of_codes(log_p: Tensor) -> Tensor:
    """log of each code's mean probability over all processes, [n, c] to [c].

    Example:
        >>> log_mean_of_codes(torch.tensor([[0.0, -1000.0], [0.0, -1000.0]])).tolist()
        [0.0, -1000.0]
    """
    processes = world()[1]
    if processes == 1:
        return log_p.logsumexp(dim=0) - math.log(len(log_p))
    largest = log_p.detach().amax(dim=0)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    total = sum_over_processes((log_p - largest).exp().sum(dim=0))
    return total.log() + largest - math.log(len(log_p) * processes)
