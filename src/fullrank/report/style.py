"""How things look and are worded, once for the terminal, the figures and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "GREY",
    "PALETTE",
    "Look",
    "count",
    "duration",
    "look_of",
    "number",
    "percent",
    "plane",
    "tap_colour",
]

# Okabe and Ito's hues, set to a lightness that reads on white and on near-black alike.
BLUE, ORANGE, GREEN, PURPLE, OCHRE, CYAN, RED = (
    "#2b7bba",
    "#d9730d",
    "#12997a",
    "#b0569b",
    "#b58900",
    "#2f9fb3",
    "#d1495b",
)
GREY = "#7f8a96"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, OCHRE, CYAN)
TAP_COLOURS = {"backbone": BLUE, "projector": PURPLE, "predictor": OCHRE, "target": CYAN, "codes": GREY}


@dataclass(frozen=True)
class Look:
    """How a verdict is shown: always a colour and a glyph and words, never a colour alone."""

    word: str
    title: str
    glyph: str
    colour: str


LOOKS = {
    "healthy": Look("healthy", "Healthy", "●", GREEN),
    "complete": Look("complete", "Complete collapse", "■", RED),
    "dimensional": Look("dimensional", "Dimensional collapse", "▲", ORANGE),
    "cluster": Look("cluster", "Cluster collapse", "◆", ORANGE),
    "intra-cluster": Look("intra-cluster", "Intra-cluster collapse", "◆", ORANGE),
    "uniform-assignment": Look("uniform-assignment", "Uniform-assignment collapse", "◆", ORANGE),
    "not decidable": Look("not decidable", "Not decidable", "○", GREY),
}


def look_of(kind: str) -> Look:
    """The look of a verdict kind; one that is not known is shown in grey by its own name.

    Example:
        >>> look_of("complete").title
        'Complete collapse'
    """
    return LOOKS.get(kind) or Look(kind, kind.capitalize(), "○", GREY)


def tap_colour(tap: str, taps: Iterable[str] = ()) -> str:
    """The colour of a tap: the same in every figure; `taps` places the names that are not the usual ones."""
    others = [name for name in taps if name not in TAP_COLOURS]
    spare = (GREEN, ORANGE, RED)
    return TAP_COLOURS.get(tap) or spare[others.index(tap) % len(spare) if tap in others else 0]


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, a dash where there is none.

    Example:
        >>> number(0.12345), number(41.25), number(12345.6), number(0.0000123), number(None)
        ('0.123', '41.2', '12,346', '1.2e-5', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 10.0**-digits:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"


def count(value: float | None) -> str:
    """A whole number with thousands set apart, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share as per cent with one decimal, or a dash.

    Example:
        >>> percent(0.614)
        '61.4 %'
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds in words a person reads at a glance.

    Example:
        >>> duration(7.24), duration(92.1), duration(11045)
        ('7.2 s', '1 min 32 s', '3 h 04 min')
    """
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plane(value: Any) -> str:
    """A config value in one line: a mapping or a list as `name` or `key=value` pairs.

    Example:
        >>> plane({"width": 128, "layers": [2, 2]}), plane("resnet18"), plane(None)
        ('width=128, layers=2 2', 'resnet18', '–')
    """
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key}={plane(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(plane(item) for item in value)
    return str(value)
