"""Decision between an adapted encoder and its start: all tests must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

RESAMPLES = 2_000
CONFIDENCE = 0.95
FEWEST_IMAGES = 40
"""Held-out images that judge, below which nothing is decided."""


@dataclass(frozen=True)
class Interval:
    """A mean over images, with its 95 % interval by a bootstrap.

    Example:
        >>> Interval(0.1, 0.05, 0.15).above(0.0)
        True
    """

    mean: float
    low: float
    high: float

    def above(self, border: float) -> bool:
        """Whether the whole interval lies above a border."""
        return self.low > border


def bootstrap(values: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of values [n] by image, with a 95 % interval by bootstrap.

    For differences between two encoders on the same images it is that of the paired bootstrap.

    Example:
        >>> import torch
        >>> found = bootstrap(torch.ones(50))
        >>> found.mean, found.low, found.high
        (1.0, 1.0, 1.0)
    """
    numbers = values.double().cpu().numpy()
    draws = np.random.default_rng([seed, 6]).multinomial(
        len(numbers), np.full(len(numbers), 1 / len(numbers)), resamples
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws @ numbers / len(numbers), [tail, 1 - tail])
    return Interval(float(numbers.mean()), float(low), float(high))


@dataclass(frozen=True)
class Finding:
    """One comparison of the adapted encoder with its start.

    Attributes:
        name: gain, kept, similarity, collapse or knn.
        before, after: the measure at the start and after the adaptation; None where it has no such value.
        low, high: ends of the 95 % interval of what is tested.
        border: what that must lie above; None where nothing is tested.
        images: that it was measured on.
        passed: whether it speaks for the adaptation; None where it was not tested.
        says: that in words.
    """

    name: str
    says: str
    passed: bool | None = None
    before: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None
    border: float | None = None
    images: int = 0


def decide(findings: Sequence[Finding]) -> bool:
    """Whether all tests speak for the adapted encoder; without any they do not.

    Example:
        >>> decide([Finding("gain", "", True), Finding("knn", "", None)]), decide([])
        (True, False)
    """
    tested = [finding.passed for finding in findings if finding.passed is not None]
    return bool(tested) and all(tested)
