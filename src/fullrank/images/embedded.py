"""Data sets of the package: generated shapes, and scikit-learn's digits."""

from __future__ import annotations

import numpy as np
import torch

from fullrank.images.shapes import SHAPES, shapes
from fullrank.images.sources import MemorySource

__all__ = ["digits_data", "shapes_data"]


def shapes_data(size: int | None = None) -> tuple[MemorySource, MemorySource]:
    """Make 4,000 training and 1,000 held-out shapes of `size` (16) pixels.

    Example:
        >>> train, held_out = shapes_data()
        >>> len(train), len(held_out), train.image_size, train.classes[:2]
        (4000, 1000, (16, 16), ['disc', 'square'])
    """

    train, held_out = (
        MemorySource(name="shapes", images=torch.from_numpy(images), labels=labels, classes=list(SHAPES))
        for images, labels in (shapes(4000, 0, size or 16), shapes(1000, 1, size or 16))
    )
    return train, held_out


def digits_data() -> tuple[MemorySource, MemorySource]:
    """Open scikit-learn's 1,797 digits, doubled to 16 by 16; a fifth is held out.

    Example:
        >>> train, held_out = digits_data()
        >>> len(train), len(held_out), train.image_size
        (1438, 359, (16, 16))
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))
    images = grey.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].repeat(1, 3, 1, 1)
    labels = digits.target.astype(np.int64)
    every = MemorySource(name="digits", images=images, labels=labels, classes=[str(i) for i in range(10)])
    order = np.random.default_rng(0).permutation(len(every))
    return every.subset(np.sort(order[359:])), every.subset(np.sort(order[:359]))
