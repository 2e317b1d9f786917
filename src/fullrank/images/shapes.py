"""Generated data set: ten bright shapes on dark ground, made in half a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

OVERSAMPLING = 3  # drawn at this many times the size per side, then averaged: smooth edges


def shapes(n: int, seed: int, size: int = 16) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw `n` images of one shape each, of random hue, size, place and turn.

    The ten classes are equally frequent, in random order. Returned are images, uint8 [n, 3, size, size], and
    labels, int64 [n], which index `SHAPES`.

    Example:
        >>> images, labels = shapes(20, seed=0)
        >>> images.shape, list(SHAPES)[labels[0]] in SHAPES
        ((20, 3, 16, 16), True)
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(SHAPES))
    radius = rng.uniform(0.45, 0.70, n)  # the frame is [-1, 1], so this is the diameter's share of it
    centre = rng.uniform(-0.35, 0.35, (2, n))
    turn = rng.uniform(-0.7, 0.7, n)
    colour = _bright_colours(rng, n)
    ground = rng.uniform(0.04, 0.14, (n, 1, 1, 1)).astype(np.float32)

    coverage = np.empty((n, size, size), np.float32)
    for label, inside in enumerate(SHAPES.values()):
        chosen = labels == label
        x, y = _local_grid(size * OVERSAMPLING, radius[chosen], centre[:, chosen], turn[chosen])
        cells = inside(x, y).reshape(-1, size, OVERSAMPLING, size, OVERSAMPLING)
        coverage[chosen] = cells.mean((2, 4), dtype=np.float32)

    images = ground + coverage[:, None] * (colour[:, :, None, None] - ground)
    images += 0.015 * rng.standard_normal(images.shape, dtype=np.float32)
    return (255 * images.clip(0, 1)).round().astype(np.uint8), labels


def _bright_colours(rng: np.random.Generator, n: int) -> Floats:
    """HSV to RGB, [n, 3]: any hue, saturation and value near full."""
    hue, saturation, value = rng.uniform([0, 0.75, 0.85], [6, 1, 1], (n, 3)).T[:, :, None]
    offset = np.array([5.0, 3.0, 1.0])
    k = (offset + hue) % 6
    rgb: Floats = (value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))).astype(np.float32)
    return rgb


def _local_grid(
    side: int, radius: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], turn: npt.NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Pixel centres [m, side, side] in the shape's frame: radius 1, upright."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    cos = (np.cos(turn) / radius).astype(np.float32)[:, None, None]
    sin = (np.sin(turn) / radius).astype(np.float32)[:, None, None]
    u = axis[None, None, :] - centre[0].astype(np.float32)[:, None, None]
    v = axis[None, :, None] - centre[1].astype(np.float32)[:, None, None]
    return u * cos + v * sin, v * cos - u * sin


# Each answers which points lie inside its shape; x runs right, y down, and the unit circle about holds it.


def _star(x: Floats, y: Floats) -> Mask:
    fifth = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)  # folded: from a point (0) to a notch
    rho: Floats = np.sqrt(x * x + y * y)
    notch_x, notch_y = 0.42 * np.cos(fifth / 2), 0.42 * np.sin(fifth / 2)
    inside: Mask = rho * (np.cos(angle) * notch_y + np.sin(angle) * (1.1 - notch_x)) < 1.1 * notch_y
    return inside


def _ring(x: Floats, y: Floats) -> Mask:
    rho2 = x * x + y * y
    return (rho2 > 0.29) & (rho2 < 0.96)


def _checks(x: Floats, y: Floats) -> Mask:
    even: Mask = (np.floor(x * 1.5 + 1.5) + np.floor(y * 1.5 + 1.5)) % 2 == 0
    return (np.maximum(np.abs(x), np.abs(y)) < 1.0) & even


SHAPES: dict[str, Callable[[Floats, Floats], Mask]] = {
    "disc": lambda x, y: x * x + y * y < 0.72,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.76,
    "triangle": lambda x, y: (y < 0.55) & (np.abs(x) * 0.866 - y * 0.5 < 0.55),
    "star": _star,
    "cross": lambda x, y: (
        (np.minimum(np.abs(x), np.abs(y)) < 0.24) & (np.maximum(np.abs(x), np.abs(y)) < 1.0)
    ),
    "ring": _ring,
    "crescent": lambda x, y: (x * x + y * y < 1.0) & ((x - 0.5) ** 2 + y * y > 0.64),
    "bars": lambda x, y: (np.maximum(np.abs(x), np.abs(y)) < 0.95) & (np.abs(np.abs(y) - 0.32) > 0.16),
    "checks": _checks,
    "two dots": lambda x, y: (np.abs(x) - 0.62) ** 2 + y * y < 0.16,
}
"""Classes in the order of their labels, and the mask that draws each."""
