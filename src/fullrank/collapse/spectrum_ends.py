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
WIDTH = 0.25  # of the borders `EVEN`, `NOISE` and `ABRUPT`, in natural logarithms
NARROWEST_LAYER = 32  # directions at the border; what ends before is a collapse: hardly a layer is so narrow
LAYER_WIDTH = 0.2  # of that border, in natural logarithms
LEAST_WEIGHT = 0.01  # below which a reading counts for nothing


class Layer(NamedTuple):
    """A narrow layer before the rows, read off their spectrum.

    Attributes:
        width: directions before the end.
        weight: how probable it is, in (0, 1], that a layer ends the spectrum there, and no collapse.
    """

    width: int
    weight: float


class Signal(NamedTuple):
    """A few directions above an even floor of noise.

    Attributes:
        directions: how many.
        weight: how probable it is, in (0, 1], that all others are noise.
    """

    directions: int
    weight: float


def abrupt_end(singular_values: np.ndarray, n: int) -> Layer | None:
    """The directions before a spectrum ends abruptly; None where it does not.

    An end at the precision of the numbers is none: what follows could not be measured. The borders of how
    abrupt, how even and how wide have a width, so that a direction more changes the weight a little.

    Args:
        singular_values: [k], largest first.
        n: rows; fewer than a fifth more than the directions end every spectrum.

    Example:
        >>> abrupt_end(np.array([*np.linspace(2, 1, 64), *64 * [1e-7]]), n=1000).width
        64
        >>> abrupt_end(np.arange(1, 129) ** -2.0, n=1000) is None
        True
        >>> abrupt_end(np.array([*np.arange(1.0, 200) ** -3.0, *100 * [0.0]]), n=1000) is None
        True
        >>> [round(abrupt_end(np.array([*r * [1.0], *99 * [0.0]]), n=1000).weight, 2) for r in (24, 32, 64)]
        [0.17, 0.5, 0.98]
    """
    s = np.asarray(singular_values, dtype=float)
    found = Layer(0, 0.0)
    ends = np.flatnonzero(3 * s[:-1] > ABRUPT * s[1:]) + 1 if len(s) else s  # those of any weight
    for end in ends[ends <= min(0.9 * len(s), n / 1.2)]:
        if not s[end - 1] >= max(ABRUPT * MEASURED * s[0], 1e-300):
            break
        step = math.log(s[end - 1] / ABRUPT) - math.log(max(s[end], 1e-300))
        even = math.log(s[end - 1] / (EVEN * s[end // 2]))
        weight = beyond(step, 0.0, WIDTH) * beyond(even, 0.0, WIDTH)
        weight *= beyond(math.log(end / NARROWEST_LAYER), 0.0, LAYER_WIDTH)
        if weight >= found.weight:
            found = Layer(int(end), weight)
    return found if found.weight > LEAST_WEIGHT else None


def standing_out(singular_values: np.ndarray) -> Signal | None:
    """Few directions beside which all others are noise; else None.

    Each of both borders, a thirtyfold step and a twentieth of the variance, has a width, so that a direction
    a little stronger changes the weight a little. More directions than the narrowest layer has are the less
    a signal the more they are: at twice as many they are none.

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
    for end in range(1, min(2 * NARROWEST_LAYER, len(s))):
        if not s[end - 1] > 0:
            break
        step = math.log(s[end - 1] / ABRUPT) - math.log(max(s[end], 1e-300))
        share = math.log(NOISE * rest[0]) - math.log(max(rest[end], 1e-300))
        few = min(1 - math.log2(end / NARROWEST_LAYER), 1.0)
        weight = few * beyond(step, 0.0, WIDTH) * beyond(share, 0.0, WIDTH)
        if weight > found.weight:
            found = Signal(end, weight)
    return found if found.weight > LEAST_WEIGHT else None
