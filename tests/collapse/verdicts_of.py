"""Rows of made clouds, and the verdict on them."""

from __future__ import annotations

import torch

from fullrank.collapse import Panel, Verdict, judge
from fullrank.collapse.statistics import EmbeddingStatistics

Rows = torch.Tensor


def randn(*shape: int, seed: int = 0) -> Rows:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def verdict_of(rows: Rows, narrowest: int | None = None) -> Verdict:
    seen = EmbeddingStatistics(rows.shape[1])
    seen.update(rows)
    seen.finish()
    return judge(Panel.from_statistics("rows", seen, narrowest=narrowest))


def blemishes_of(rows: Rows) -> dict[str, str]:
    return {blemish.name: blemish.says for blemish in verdict_of(rows).blemishes}


def power_law(a: float, n: int, d: int, seed: int = 0) -> Rows:
    return randn(n, d, seed=seed) * torch.arange(1, d + 1) ** (-a / 2)
