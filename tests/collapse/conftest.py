"""Embeddings whose collapse is known."""

from collections.abc import Callable

import pytest
import torch

from one_thread import one_thread

__all__ = ["one_thread"]


def _gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _low_rank(n: int, d: int, rank: int, seed: int = 0) -> torch.Tensor:
    """Isotropic in `rank` random directions of d."""
    frame: torch.Tensor = torch.linalg.qr(_gaussian(d, rank, seed + 1)).Q
    return _gaussian(n, rank, seed) @ frame.mT


@pytest.fixture(scope="session")
def gaussian() -> Callable[..., torch.Tensor]:
    return _gaussian


@pytest.fixture(scope="session")
def low_rank() -> Callable[..., torch.Tensor]:
    return _low_rank
