"""Colours, glyphs and number formats of terminal, figures and pages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's hues, set to a lightness that reads on white and on near-black alike.
BLUE, ORANGE, GREEN, PURPLE = "#2b7bba", "#d9730d", "#12997a", "#b0569b"
OCHRE, CYAN, RED, GREY = "#b58900", "#2f9fb3", "#d1495b", "#7f8a96"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, OCHRE, CYAN)
ARM_COLOURS = (*PALETTE, "#6b7fd7", "#8c6d46", "#7c9a2e", "#c26d8f")  # also of classes; then they come again
RAMP = ("#4a5fd0", "#2f8a86", "#e0a030")  # dark to light: readable in grey, and by the colour-blind
TAP_COLOURS = {"backbone": BLUE, "projector": PURPLE, "predictor": OCHRE, "target": CYAN, "codes": GREY}


@dataclass(frozen=True)
class VerdictStyle:
    """Words, glyph and colour of a verdict: never a colour alone."""

    word: str
    title: str
    glyph: str
    colour: str


STYLES = {
    "healthy": VerdictStyle("healthy", "Healthy", "●", GREEN),
    "complete": VerdictStyle("complete", "Complete collapse", "■", RED),
    "dimensional": VerdictStyle("dimensional", "Dimensional collapse", "▲", ORANGE),
    "cluster": VerdictStyle("cluster", "Cluster collapse", "◆", ORANGE),
    "intra-cluster": VerdictStyle("intra-cluster", "Intra-cluster collapse", "◆", ORANGE),
    "uniform-assignment": VerdictStyle("uniform-assignment", "Uniform-assignment collapse", "◆", ORANGE),
}


def style_of(kind: str) -> VerdictStyle:
    """Style of a kind of verdict; an unknown one is grey and goes by its own name.

    Example:
        >>> style_of("complete").title
        'Complete collapse'
    """
    return STYLES.get(kind) or VerdictStyle(kind, kind.capitalize(), "○", GREY)


def tap_colour(tap: str, taps: Iterable[str] = ()) -> str:
    """Colour of a tap, the same in every figure; `taps` places the unusual names."""
    others = [name for name in taps if name not in TAP_COLOURS]
    spare = (GREEN, ORANGE, RED)
    return TAP_COLOURS.get(tap) or spare[others.index(tap) % len(spare) if tap in others else 0]


def colours_of(names: Iterable[str], ordered: bool = False) -> dict[str, str]:
    """One colour for each name, in order; ordered ones run along a ramp.

    Example:
        >>> colours_of(["a", "b", "a"])["b"] == PALETTE[1]
        True
        >>> colours_of(["1", "2", "3"], ordered=True)["2"]
        '#2f8a86'
    """
    known = list(dict.fromkeys(names))
    if ordered:
        return {name: along_ramp(place / max(1, len(known) - 1)) for place, name in enumerate(known)}
    return {name: ARM_COLOURS[place % len(ARM_COLOURS)] for place, name in enumerate(known)}


def along_ramp(share: float) -> str:
    """Colour at a share from 0 to 1 of the way from dark to light."""
    place = share * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    ends = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP[low : low + 2])
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*ends, strict=True))


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` significant digits; a dash where there is none.

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
    """Format a whole number with thousands set apart, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def counted(n: int, noun: str) -> str:
    """Format a number of things.

    Example:
        >>> counted(1, "epoch"), counted(1200, "epoch")
        ('1 epoch', '1,200 epochs')
    """
    return f"{count(n)} {noun}{'s' * (n != 1)}"


def percent(share: float | None) -> str:
    """Format a share as per cent with one decimal, or a dash.

    Example:
        >>> percent(0.614), percent(math.nan)
        ('61.4 %', '–')
    """
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def duration(seconds: float | None) -> str:
    """Format seconds in minutes and hours.

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


def one_line(value: Any) -> str:
    """Format a config value in one line, a mapping as `key=value` pairs.

    Example:
        >>> one_line({"width": 128, "layers": [2, 2]}), one_line("resnet18"), one_line(None)
        ('width=128, layers=2 2', 'resnet18', '–')
    """
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key}={one_line(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(one_line(item) for item in value)
    return str(value)


def typographic(text: str) -> str:
    """The same with real minus signs before numbers; hyphens of words stay.

    Example:
        >>> typographic("-0.5, 1e-06, one-sided, resnet8-2")
        '−0.5, 1e−06, one-sided, resnet8-2'
    """
    return re.sub(r"(?:(?<=\de)|(?<!\w))-(?=[\d.∞])", "\u2212", text)
