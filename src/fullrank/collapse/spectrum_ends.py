"""Ends of a spectrum: that of a layer, and a few directions above noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fullrank.collapse.thresholds import beyond

EVEN = 0.05  # a spectrum that ends abruptly is even before: from its middle to there it falls to no less
NOISE = 0.05  # of the variance, at the border, that directions of noise have together
ABRUPT = 30.0  # times that the last direction exceeds the next
MEASURED = 2.0**-23  # of the largest singular value, below which there is rounding
WIDTH = 0.25  # of the borders `NOISE` and `ABRUPT`, in natural logarithms
NARROWEST_LAYER = 32  # directions; a spectrum that ends before is a collapse, for hardly a layer is so narrow


class Signal(NamedTuple):
    """A few directions above an even floor of noise.

    Attributes:
        directions: how many.
        weight: how probable it is, in (0, 1], that all others are noise.
    """

    directions: int
    weight: float


def abrupt_end(singular_values: np.ndarray, n: int) -> int | None:
    """Number of directions before a spectrum ends abruptly; None where it does not.

    An end at the precision of the numbers is none: what follows could not be measured.

    Args:
        singular_values: [k], largest first.
        n: rows; fewer than a fifth more than the directions end every spectrum.

    Example:
        >>> abrupt_end(np.array([*np.linspace(2, 1, 64), *64 * [1e-7]]), n=1000)
        64
        >>> abrupt_end(np.arange(1, 129) ** -2.0, n=1000) is None
        True
        >>> abrupt_end(np.array([*np.arange(1.0, 200) ** -3.0, *100 * [0.0]]), n=1000) is None
        True
    """
    s = np.asarray(singular_values)
    ends = np.flatnonzero(s[:-1] > ABRUPT * s[1:]) + 1 if len(s) else s
    for end in ends[::-1]:
        even = s[end - 1] >= max(EVEN * s[end // 2], ABRUPT * MEASURED * s[0])
        if NARROWEST_LAYER <= end <= 0.9 * len(s) and n >= 1.2 * end and even:
            return int(end)
    return None


def standing_out(singular_values: np.ndarray) -> Signal | None:
    """Few directions beside which all others are noise; else None.

    Each of both borders, a thirtyfold step and a twentieth of the variance, has a width, so that a direction
    a little stronger changes the weight a little.

    Args:
        singular_values: [k], largest first.

    Example:
        >>> standing_out(np.array([*4 * [10.0], *60 * [0.03]])).directions
        4
        >>> standing_out(np.arange(1, 65) ** -2.0) is None
        True
        >>> [round(standing_out(np.array([step, *63 * [1.0]])).weight, 2) for step in (35.5, 60, 200)]
        [0.37, 0.95, 1.0]
    """
    s = np.asarray(singular_values, dtype=float)
    squares = np.square(s)
    rest = squares[::-1].cumsum()[::-1]
    found = Signal(0, 0.0)
    for end in range(1, min(NARROWEST_LAYER, len(s))):
        if not s[end - 1] > 0:
            break
        step = math.log(s[end - 1] / ABRUPT) - math.log(max(s[end], 1e-300))
        share = math.log(NOISE * rest[0]) - math.log(max(rest[end], 1e-300))
        weight = beyond(step, 0.0, WIDTH) * beyond(share, 0.0, WIDTH)
        if weight > found.weight:
            found = Signal(end, weight)
    return found if found.weight > 0.01 else None
