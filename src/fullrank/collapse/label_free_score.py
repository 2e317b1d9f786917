"""Score of encoders from label-free measures: expected accuracy, and how sure.

The weights were learnt on encoders of known accuracy; docs/pick.md says on which, and what picking by them
costs on methods and data left out. Only differences between encoders on the same images mean anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullrank.errors import UsageError

Relation: TypeAlias = Literal["panel", "run", "method", "any"]
"""What the encoders have in common: they are of one run, of one method, or have nothing.

`panel` is of a run that trains, or that adapts: views found again decide alone, as in `any`.
"""

DRAWS = 4000


class Unexplained(NamedTuple):
    """What accuracies have beyond what is expected of them.

    Attributes:
        noise: standard deviation of what a single encoder has of its own, in points.
        drift: variance, in points, of what two encoders have beyond that for every point that is expected
            between them: encoders that are expected to be alike are alike.
        low, high: ends of the 90 % interval of a difference, in its standard deviations; those that 90 % of
            the differences lay between on methods and data that had been left out.
        spread: factor on the standard deviations by which "within a point of the best" was as often true
            there as it was said.
    """

    noise: float
    drift: float
    low: float = -1.645
    high: float = 1.645
    spread: float = 1.0


class Weights(NamedTuple):
    """What was learnt.

    Attributes:
        of: relation to measure to expected points of k-NN accuracy for a unit more of its transform
            (`transformed`).
        unexplained: relation to what is left.
    """

    of: Mapping[str, Mapping[str, float]]
    unexplained: Mapping[str, Unexplained]


@lru_cache(maxsize=8)
def read_weights(path: Path | None = None) -> Weights:
    """Read the weights that come along, or those of a file."""
    found = json.loads((path or Path(__file__).with_suffix(".json")).read_text("utf-8"))
    return Weights(
        found["weights"], {name: Unexplained(**left) for name, left in found["unexplained"].items()}
    )


@dataclass(frozen=True)
class Score:
    """Encoders on the same images, against the one that is picked.

    Attributes:
        pick: its place.
        points: expected k-NN accuracy of each less that of the picked one, in points: at most 0.
        low, high: 90 % interval of each of these differences.
        best: probability of each of being the best of all.
        close: probability that the picked one is within `within` points of the best.
        within: points.
    """

    pick: int
    points: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    best: tuple[float, ...]
    close: float
    within: float


def score_encoders(
    measures: Sequence[Mapping[str, float]],
    relation: Relation = "any",
    within: float = 1.0,
    weights: Weights | None = None,
) -> Score:
    """Score encoders by their `label_free_measures` on the same images and views.

    Args:
        measures: of each encoder.
        relation: what they have in common; what is left unexplained is least among checkpoints of one run.
        within: points of accuracy that count as close to the best.
        weights: other ones than those that come along.

    Raises:
        UsageError: no encoder.

    Example:
        >>> import torch
        >>> from fullrank.collapse.label_free import label_free_measures
        >>> image = torch.randn(200, 1, 16, generator=torch.Generator().manual_seed(0))
        >>> noise = torch.randn(200, 4, 16, generator=torch.Generator().manual_seed(1))
        >>> score_encoders([label_free_measures(image + s * noise) for s in (2.0, 0.5, 4.0)]).pick
        1
    """
    if not measures:
        raise UsageError("there is no encoder to score")
    weights = weights or read_weights()
    expected = np.array([expected_points(found, weights, relation) for found in measures])
    pick = int(expected.argmax())
    points = expected - expected[pick]
    left = weights.unexplained[relation]
    own, shared = left.noise * _normal(1, len(points)), _drifts(points, left.drift)
    drawn = points + left.spread * (own + shared)
    best = np.bincount(drawn.argmax(1), minlength=len(points)) / DRAWS
    close = float((drawn.max(1) - drawn[:, pick] <= within).mean())
    error = deviation(points, left)
    error[pick] = 0.0
    low, high = points + left.low * error, points + left.high * error
    return Score(pick, _numbers(points), _numbers(low), _numbers(high), _numbers(best), close, within)


def _numbers(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))


def deviation(points: NDArray[np.float64], left: Unexplained) -> NDArray[np.float64]:
    """Standard deviation of differences that are expected to be so many points."""
    return np.sqrt(2 * left.noise**2 + left.drift * np.abs(points))


@lru_cache(maxsize=32)
def _normal(seed: int, count: int) -> NDArray[np.float64]:
    """Standard normal numbers [draws, count], the same at every call."""
    return np.random.default_rng(seed).standard_normal((DRAWS, count))


def _drifts(points: NDArray[np.float64], drift: float) -> NDArray[np.float64]:
    """A random walk over what is expected, with a variance of `drift` a point."""
    order = np.argsort(points)
    steps = np.diff(points[order], prepend=points[order[0]])
    walked: NDArray[np.float64] = (np.sqrt(drift * steps) * _normal(2, len(points))).cumsum(1)
    return walked[:, np.argsort(order)]


def expected_points(measures: Mapping[str, float], weights: Weights, relation: Relation) -> float:
    """Expected accuracy in points, up to a constant of images and relation.

    A measure that is not defined, as of rows that all agree, counts as the worst that it can be.
    """
    return float(
        sum(weight * transformed(name, measures[name]) for name, weight in weights.of[relation].items())
    )


def transformed(name: str, value: float) -> float:
    """A measure on the scale that points are linear in.

    Example:
        >>> transformed("view_retrieval", 0.5), transformed("erank_centred", 1.0)
        (0.0, 0.0)
    """
    low, scale = TRANSFORMS[name]
    if not np.isfinite(value):
        value = low
    if scale == "logit":
        share = min(max(value, LEAST), 1 - LEAST)
        return float(np.log(share / (1 - share)))
    return float(np.log(max(value, LEAST))) if scale == "log" else float(value)


LEAST = 0.005  # a view in two hundred is found again by chance

TRANSFORMS: Mapping[str, tuple[float, Literal["logit", "log", "linear"]]] = {
    "erank_centred": (1.0, "log"),
    "rankme_unit": (1.0, "log"),
    "participation_ratio": (1.0, "log"),
    "alpha_req": (10.0, "log"),
    "relative_rank": (LEAST, "log"),
    "lidar": (1.0, "log"),
    "alignment": (0.0, "linear"),
    "uniformity": (0.0, "linear"),
    "view_share": (1.0, "linear"),
    "view_retrieval": (LEAST, "logit"),
    "neighbour_coherence": (LEAST, "logit"),
}
"""Measure to the value of one that is not defined, and the scale that it is taken on."""
