"""Main effects and interactions of factors with two levels, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import TypeVar

import numpy as np

from fullrank.errors import UsageError

__all__ = ["effects"]

Levels = TypeVar("Levels", bound="tuple[bool, ...]")


def effects(factors: Sequence[str], values: Mapping[Levels, Sequence[float]]) -> dict[str, list[float]]:
    """Main effects and pairwise interactions of a full factorial design of k factors, by seed.

    The effect of a factor is the mean of all arms where it is on less the mean of all where it is off. The
    interaction of two is half of what turning the second on adds to the effect of the first; both are the
    contrasts of Yates. `values` has what was measured, by seed, for each of the 2^k combinations.

    Raises:
        UsageError: a combination is missing, or has other seeds.

    Example:
        >>> arms = {(a, b): [1.0 * (a and b)] for a in (False, True) for b in (False, True)}
        >>> effects(["a", "b"], arms)  # a logical and: each matters only with the other
        {'a': [0.5], 'b': [0.5], 'a × b': [0.5]}
    """
    counts = {len(found) for found in values.values()}
    if len(values) != 2 ** len(factors) or len(counts) != 1:
        raise UsageError(f"{len(factors)} factors need {2 ** len(factors)} cells with the same seeds each")
    contrasts = [(i,) for i in range(len(factors))] + list(combinations(range(len(factors)), 2))
    found = {}
    for places in contrasts:
        signed = [
            prod(1 if levels[i] else -1 for i in places) * np.asarray(seeds, float)
            for levels, seeds in values.items()
        ]
        name = " × ".join(factors[i] for i in places)
        found[name] = [float(x) for x in np.sum(signed, axis=0) / (len(values) / 2)]
    return found
