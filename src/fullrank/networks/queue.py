"""Queue of recent embeddings, among which NNSiam finds neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.networks.processes import gather_rows


class Queue(nn.Module):
    """The last `size` rows of all processes, newest first, in the buffer `rows`.

    Args:
        size: rows kept.
        dim: d.
        random: start with random unit rows instead of zeros.

    Example:
        >>> queue = Queue(4, 2)
        >>> queue.push(torch.ones(3, 2))
        >>> queue.rows.sum(dim=1).tolist()
        [2.0, 2.0, 2.0, 0.0]
    """

    rows: Tensor

    def __init__(self, size: int, dim: int, random: bool = False) -> None:
        super().__init__()
        rows = nn.functional.normalize(torch.randn(size, dim), dim=1) if random else torch.zeros(size, dim)
        self.register_buffer("rows", rows)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put the rows [n, d] of all processes in front, and drop as many at the end."""
        new = gather_rows(rows.detach()).to(self.rows.dtype)
        self.rows = torch.cat([new, self.rows])[: len(self.rows)]
