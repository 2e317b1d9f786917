"""Numbers from several seeds: values, mean, and confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fullrank.figures.style import number

COVERED = 0.95
FEWEST = 3  # two values say next to nothing of their spread: t is 12.7


@dataclass(frozen=True)
class Estimate:
    """Measurements of independent runs of one setting.

    Attributes:
        values: one a run that measured it.
        mean: None without values.
        half: half the width of the 95 % interval of the mean by Student's t with n - 1 degrees of freedom;
            None for fewer than three values.
    """

    values: tuple[float, ...]
    mean: float | None
    half: float | None

    @property
    def n(self) -> int:
        """Count of values."""
        return len(self.values)

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half is None or self.mean is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half is None or self.mean is None else self.mean + self.half

    def as_dict(self) -> dict[str, object]:
        """JSON-able: n, values, mean, low, high."""
        names = ("n", "values", "mean", "low", "high")
        return {name: getattr(self, name) for name in names} | {"values": list(self.values)}


def estimate(values: Iterable[float | None]) -> Estimate:
    """Estimate the mean of what was measured, with its interval.

    Example:
        >>> found = estimate([0.60, 0.62, 0.64, None])
        >>> found.n, round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (3, 0.62, 0.57, 0.67)
        >>> estimate([0.60, 0.62]).half is None
        True
    """
    from scipy.special import stdtrit

    kept = tuple(value for value in values if value is not None and math.isfinite(value))
    n = len(kept)
    if not n:
        return Estimate((), None, None)
    mean = statistics.mean(kept)
    if n < FEWEST:
        return Estimate(kept, mean, None)
    quantile = float(stdtrit(n - 1, (1 + COVERED) / 2))
    return Estimate(kept, mean, quantile * statistics.stdev(kept) / math.sqrt(n))


def as_number(found: Estimate, digits: int = 3) -> str:
    """Format the mean with its interval, or fewer than three values as they are.

    Example:
        >>> [as_number(estimate(values)) for values in ([], [1.5], [1.5, 2.5], [1.5, 2.5, 3.5])]
        ['–', '1.50', '1.50, 2.50', '2.50 ± 2.5']
    """
    return _shown(found, lambda value: number(value, digits), lambda half: number(half, 2))


def as_percent(found: Estimate) -> str:
    """Format shares in the same way, in per cent.

    Example:
        >>> as_percent(estimate([0.60, 0.62])), as_percent(estimate([0.60, 0.62, 0.64]))
        ('60.0, 62.0 %', '62.0 ± 5.0 %')
    """

    def shown(value: float) -> str:
        return f"{100 * value:.1f}"

    return _shown(found, shown, shown, " %")


def _shown(
    found: Estimate, value: Callable[[float], str], half: Callable[[float], str], unit: str = ""
) -> str:
    if found.mean is None:
        return "–"
    if found.half is None:
        return ", ".join(map(value, found.values)) + unit
    return f"{value(found.mean)} ± {half(found.half)}{unit}"
