"""Axes of a drawing: from values to pixels, and where ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low, high: values at its ends.
        begin, end: their places in pixels.
        log: whether it is logarithmic.
        percent: whether values are shares, shown as per cent.
        names: places that have a name; these are its ticks, if any.
        whole: whether ticks belong at whole numbers alone.
        most: ticks, at most.

    Example:
        >>> axis = Axis(0.0, 1.0, 100.0, 0.0)
        >>> axis(0.25), [text for _, text in axis.ticks()]
        (75.0, ['0', '0.2', '0.4', '0.6', '0.8', '1'])
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    percent: bool = False
    names: Mapping[str, float] | None = None
    whole: bool = False
    most: int = 7

    @classmethod
    def over(
        cls, values: Iterable[float | None], begin: float, end: float, *, pad: float = 0.03, **more: object
    ) -> Axis:
        """An axis that all values fit on, those that a logarithm cannot show left out."""
        log = bool(more.get("log"))
        known = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
        low, high = (min(known), max(known)) if known else (1.0, 10.0) if log else (0.0, 1.0)
        if log:
            room = pad * math.log(high / low) if high > low else math.log(1.5)
            return cls(low / math.exp(room), high * math.exp(room), begin, end, **more)  # type: ignore[arg-type]
        room = pad * (high - low) or 0.5 * abs(high) or 0.5
        return cls(low - room, high + room, begin, end, **more)  # type: ignore[arg-type]

    def shows(self, value: float | None) -> bool:
        """Whether a value has a place."""
        return value is not None and math.isfinite(value) and (value > 0 or not self.log)

    def __call__(self, value: float) -> float:
        """Place of a value in pixels."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(value) if self.log else value
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values with their labels."""
        if self.names:
            return [(x, name) for name, x in self.names.items() if self.low <= x <= self.high]
        values = self._logarithmic() if self.log else self._linear()
        if self.percent:
            places = max((_decimals(100 * v) for v in values), default=0)
            return [(v, f"{100 * v:.{places}f} %".replace("-", "−")) for v in values]
        return [(v, label(v)) for v in values]

    def _linear(self) -> list[float]:
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / self.most))
        step = next(step * m for m in (1, 2, 5, 10, 20) if (self.high - self.low) / (step * m) <= self.most)
        step = max(step, 1.0) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def _logarithmic(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        inside = [10.0**k for k in range(first, last + 1) if self.low <= 10.0**k <= self.high]
        if len(inside) > self.most:
            return inside[:: math.ceil(len(inside) / self.most)]
        for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
            found = [m * 10.0**k for k in range(first, last + 1) for m in digits]
            inside = [v for v in found if self.low <= v <= self.high]
            if len(inside) >= 3:
                return inside
        return self._linear() if self.high / self.low < 2 else inside


def label(value: float) -> str:
    """A value on an axis.

    Example:
        >>> label(0.25), label(20000), label(1e-6), label(-3.0)
        ('0.25', '20,000', '10⁻⁶', '−3')
    """
    if value == 0 or abs(value) < 1e-12:
        return "0"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    if -4 < power < 6:
        return f"{value:,.{max(0, 6 - max(power, 0))}f}".rstrip("0").rstrip(".").replace("-", "−")
    digit = value / 10.0**power
    head = "" if abs(digit - 1) < 1e-6 else f"{digit:.3g}·".replace("-", "−")
    return f"{head}10{str(power).translate(SUPERSCRIPT)}"


def _decimals(value: float) -> int:
    return next((k for k in range(4) if abs(value * 10**k - round(value * 10**k)) < 1e-6), 4)
