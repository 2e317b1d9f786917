"""Intervals of accuracies that were measured on so many rows."""

from __future__ import annotations

import math

NORMAL = 1.959964  # quantile of 95 %


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `n` rows, by Wilson's score.

    It is of the choice of rows alone: not of the network, whose seeds differ, nor of the bank.

    Args:
        share: in [0, 1].
        n: rows, at least one.

    Returns:
        Lower and upper end, in [0, 1].

    Example:
        >>> [round(end, 3) for end in wilson_interval(0.5, 100)]
        [0.404, 0.596]
        >>> [round(end, 3) for end in wilson_interval(0.0, 10)]
        [0.0, 0.278]
    """
    square = NORMAL**2 / n
    middle = (share + square / 2) / (1 + square)
    half = NORMAL * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)
