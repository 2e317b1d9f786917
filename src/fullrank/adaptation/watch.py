"""Held-out images of an adaptation against its start: gain, forgetting, collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import Panel, judge
from fullrank.collapse.label_free import FEWEST_IMAGES, label_free_measures
from fullrank.collapse.label_free_score import expected_points, read_weights
from fullrank.collapse.similarity import linear_cka, neighbour_sets, shared_neighbours, view_coherence
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.verdict import Verdict

RANK_KEPT = 0.9  # share of its rank that an encoder keeps that had collapsed from the start


@dataclass(frozen=True, eq=False)
class Seen:
    """Backbone features of the held-out images: rows [n, d], and views [n, q, d]."""

    rows: Tensor
    views: Tensor

    @cached_property
    def neighbours(self) -> Tensor:
        """Which images are neighbours of which, [n, n]."""
        return neighbour_sets(self.rows)

    @cached_property
    def coherence(self) -> Tensor:
        """Share of neighbours that views of an image have in common, [n]."""
        return view_coherence(self.views)

    @cached_property
    def panel(self) -> Panel:
        """Collapse measures of the rows."""
        statistics = EmbeddingStatistics(self.rows.shape[1])
        statistics.update(self.rows)
        statistics.finish()
        return Panel.from_statistics("features", statistics)

    @cached_property
    def verdict(self) -> Verdict:
        """Verdict on the rows, whatever network they are of."""
        return judge(self.panel)

    @property
    def rank(self) -> float:
        """Effective rank of the centred rows; 0 where they are all the same."""
        return self.panel.value("erank_centred") or 0.0

    def collapsed_since(self, start: Seen) -> bool:
        """Whether the rows have collapsed, and at the start they had not, or not as far."""
        before = start.verdict.collapsed and self.rank >= RANK_KEPT * start.rank
        return self.verdict.collapsed and not before

    def kept_of(self, start: Seen) -> Tensor:
        """Share of each image's neighbours at the start that it still has, [n]."""
        return shared_neighbours(start.neighbours, self.neighbours)


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split images at random: those that choose a checkpoint, and those that judge it.

    Example:
        >>> [len(half) for half in halves(5, seed=0)]
        [2, 3]
    """
    order = torch.from_numpy(np.random.default_rng([seed, 5]).permutation(n))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def compared(start: Seen, now: Seen, chosen: Tensor) -> dict[str, float | None]:
    """Measures of the images `chosen`, by name, and how they stand to the start.

    The score is the label-free one of a panel, by which `train --early-stop` ends a run, too.
    """
    measures: dict[str, float] = {}
    if len(chosen) >= FEWEST_IMAGES:
        measures = label_free_measures(now.views[chosen], now.rows[chosen])
    finite = {name: value if math.isfinite(value) else None for name, value in measures.items()}
    return finite | {
        "score": expected_points(measures, read_weights(), "panel") if measures else 0.0,
        "coherence": float(now.coherence[chosen].mean()),
        "kept": float(now.kept_of(start)[chosen].mean()),
        "collapsed": float(now.collapsed_since(start)),
        "rank": now.rank,
        "cka": linear_cka(start.rows[chosen], now.rows[chosen]),
    }
