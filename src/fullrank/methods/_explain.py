"""Meaning of a loss's value: at which fixed point of its method it sits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, SupportsFloat

from fullrank.coercion import as_name, shown
from fullrank.errors import UsageError
from fullrank.methods._base import METHODS, make_config
from fullrank.methods._config import FULL_WIDTH, MethodConfig
from fullrank.methods._fixed_points import FixedPoint, Situation

__all__ = ["LossExplanation", "explain_loss"]


@dataclass(frozen=True)
class LossExplanation:
    """Where a loss's value sits among the fixed points of its method.

    Attributes:
        method: name of the method.
        value: of the loss.
        fixed_points: all of the method's in this situation, by value: state, formula, value, collapses and
            meaning.
        at: those within the tolerance.
        tolerance: allowed distance, as a share of the fixed point's size, at least of 1.
        least: what the loss never goes below, where that is known.
    """

    method: str
    value: float
    fixed_points: tuple[Mapping[str, Any], ...]
    at: tuple[Mapping[str, Any], ...]
    tolerance: float
    least: float | None = None

    @property
    def lines(self) -> list[str]:
        """What the value means, a sentence a fixed point."""
        if self.at:
            return [_sentence(self.method, point) for point in self.at]
        if self.least is not None and self.value < self.least:
            return [
                f"{self.value:.4g} is below {self.least:g}, which {self.method}'s loss never is: it is of "
                "another loss, or of one with a scale or further terms."
            ]
        below = [point for point in self.fixed_points if point["value"] < self.value]
        above = [point for point in self.fixed_points if point["value"] > self.value]
        between = [f"{_in_symbols(p)} ({p['state']})" for p in (*below[-1:], *above[:1])]
        side = "between" if len(between) > 1 else "above" if below else "below"
        return [
            f"{self.value:.4g} is at no fixed point of {self.method}'s loss: it lies {side} "
            f"{' and '.join(between)}. No collapse follows from it, and none is ruled out."
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping, as `--json` prints it."""
        return asdict(self) | {"lines": self.lines}


def _in_symbols(point: Mapping[str, Any]) -> str:
    number = f"{point['value']:.4g}"
    return number if point["formula"] == number else f"{point['formula']} = {number}"


def _sentence(method: str, point: Mapping[str, Any]) -> str:
    """A fixed point and what it means, in words."""
    kinds = " or ".join(point["collapses"])
    verdict = f"compatible with {kinds} collapse" if kinds else "no collapse"
    return (
        f"{method}'s loss at {_in_symbols(point)}: embeddings are {point['state']} "
        f"({verdict}). {point['meaning']}"
    )


def explained(
    method: str,
    declared: tuple[FixedPoint, ...],
    value: float,
    situation: Situation,
    tolerance: float = 0.01,
    least: float | None = None,
) -> LossExplanation:
    """Compare a loss's value with a method's declared fixed points.

    Raises:
        UsageError: the value is not finite, or the method declares no fixed point that has a value here.
    """
    if not math.isfinite(value):
        raise UsageError(f"a loss of {value} says that training has diverged: lower the learning rate")
    if not 0 < tolerance < math.inf or situation.n < 1 or situation.views < 1:
        raise UsageError("the tolerance must be above 0, and a batch has 1 image or more, in 1 view or more")
    found = [(point, point.value(situation)) for point in declared]
    points = sorted(
        ({**point._asdict(), "value": at} for point, at in found if at is not None), key=lambda p: p["value"]
    )
    if not points:
        raise UsageError(f"{method} declares no fixed point of its loss with these options")
    at = [p for p in points if abs(value - p["value"]) <= tolerance * max(1.0, abs(p["value"]))]
    return LossExplanation(method, value, tuple(points), tuple(at), tolerance, least)


def explain_loss(
    value: float,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    batch_size: int = 256,
    views: int = 2,
    feature_dim: int = FULL_WIDTH,
    tolerance: float = 0.01,
) -> LossExplanation:
    """Say at which fixed point of a method's loss a value sits, and what it means.

    Args:
        value: of the loss.
        method: a key of `METHODS`.
        options: of the method; the rest keeps its defaults.
        batch_size: images in a batch, over all devices.
        views: of an image.
        feature_dim: of the backbone, where widths of heads follow it.
        tolerance: allowed distance, as a share of the fixed point's size, at least of 1.

    Raises:
        UsageError: the value is not finite, or the method declares no fixed point.
        UnknownNameError: no such method or option.

    Example:
        >>> explain_loss(8.32, "dino", {"num_prototypes": 4096}).at[0]["formula"]
        'ln K'
    """
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise UsageError(f"explain_loss takes the value of a loss first, a number, not {shown(value)}")
    value = float(value)
    cls = METHODS[as_name(method, "explain_loss takes the name of a method after the value")]
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"options of a method are a mapping of names to values, not {shown(options)}")
    if views < cls.views_needed:
        raise UsageError(f"{method} compares {cls.views_needed} views of an image or more, not {views}")
    config = make_config(cls, options or {})
    fitted = config.fit(feature_dim) if isinstance(config, MethodConfig) else config
    situation = Situation(fitted, batch_size, views)
    return explained(method, cls.fixed_points, value, situation, tolerance, cls.least_loss)
