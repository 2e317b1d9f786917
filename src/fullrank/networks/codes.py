"""Codes: fixed dictionaries of signs, and the mean use of a code over a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fullrank.networks.processes import sum_over_processes, world

__all__ = ["SignDictionary", "log_mean_of_codes"]


class SignDictionary(nn.Module):
    """A fixed matrix W in {-1, +1}^{f x c} of independent fair signs, kept as bits.

    The state holds f c / 8 bytes: 4 MB for 2048 x 16384, where floats take 134. The floats that products need
    are made when first asked for.

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
        signs = np.random.default_rng(seed).integers(0, 2, size=dim * count, dtype=np.uint8)
        self.register_buffer("bits", torch.from_numpy(np.packbits(signs)))
        self._matrix: Tensor | None = None

    def matrix(self, like: Tensor) -> Tensor:
        """W [f, c] on the device and in the type of `like`."""
        made = self._matrix
        if made is None or made.device != like.device or made.dtype != like.dtype:
            packed = self.bits.cpu().numpy()
            signs = np.unpackbits(packed, count=math.prod(self.shape)).reshape(self.shape)
            made = torch.from_numpy(signs).to(like.device, like.dtype).mul_(2).sub_(1)
            self._matrix = made
        return made

    @staticmethod
    def pack(floats: Tensor) -> Tensor:
        """Bits, as the state holds them, of a matrix of signs."""
        return torch.from_numpy(np.packbits((floats > 0).cpu().numpy().ravel()))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._matrix = None  # made of what was there before


def log_mean_of_codes(log_p: Tensor, everywhere: bool = True) -> Tensor:
    """log of the mean probability of each code over a batch, [n, c] to [c], where no mass is lost to
    underflow.

    Args:
        log_p: log-probabilities.
        everywhere: the mean over the rows of all processes, else over this one's.

    Example:
        >>> log_mean_of_codes(torch.tensor([[0.0, -1000.0], [0.0, -1000.0]])).tolist()
        [0.0, -1000.0]
    """
    processes = world()[1] if everywhere else 1
    if processes == 1:
        return log_p.logsumexp(dim=0) - math.log(len(log_p))
    largest = log_p.detach().amax(dim=0)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    total = sum_over_processes((log_p - largest).exp().sum(dim=0))
    return total.log() + largest - math.log(len(log_p) * processes)
