"""Small figures as inline SVG: text in the page's own colours, marks that differ in shape as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

WIDTH, LEFT, RIGHT, ROW, TOP = 680, 232, 26, 24, 8
LONGEST = 31  # letters of a row's name that fit
_NUMBERS = count(1)


@dataclass(frozen=True)
class Dot:
    """A value in a row of a figure.

    Attributes:
        value: along the axis.
        kind: a class of `site.css`: `plain`, `good`, `bad`, `base`.
        spread: half the length of its bar; 0 for none.
        words: what a pointer over it shows.
    """

    value: float
    kind: str = "plain"
    spread: float = 0.0
    words: str = ""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values that cover a range.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / max(most - 1, 1) or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def dot_rows(
    rows: Mapping[str, Sequence[Dot]],
    axis: str,
    title: str,
    marks: Mapping[str, str] | None = None,
    at: float | None = None,
) -> str:
    """A figure with a row of dots for each name.

    Args:
        rows: name to dots.
        axis: what the horizontal axis measures, with its unit.
        title: what a screen reader says of the figure.
        marks: kind of dot to its words in the key.
        at: where a line is drawn across all rows.
    """
    values = [v for dots in rows.values() for d in dots for v in (d.value - d.spread, d.value + d.spread)]
    values += [at] if at is not None else []
    low, high = min(values), max(values)
    pad = 0.04 * (high - low) or 1.0
    low, high = low - pad, high + pad
    bottom = TOP + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = [*_axis(low, high, x, bottom, axis)]
    if at is not None:
        parts.append(f'<line class="at" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{bottom}"/>')
    for number, (name, dots) in enumerate(rows.items()):
        y = TOP + ROW * (number + 0.5)
        place = f'class="name" x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end"'
        parts.append(f"<text {place}>{escape(_fitting(name))}</text>")
        parts += [_dot(dot, x, y) for dot in dots]
    key = "".join(
        f'<span><svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{_shape(kind, 7, 7)}</svg>'
        f" {escape(words)}</span>"
        for kind, words in (marks or {}).items()
    )
    number = f"figure-{next(_NUMBERS)}"
    return (
        f'<figure class="plot"><div class="scroll" tabindex="0" role="group" aria-label="{escape(title)}">'
        f'<svg viewBox="0 0 {WIDTH} {bottom + 44}" role="img" '
        f'aria-labelledby="{number}"><title id="{number}">{escape(title)}</title>{"".join(parts)}</svg></div>'
        f"{f'<div class=key>{key}</div>' if key else ''}<figcaption>{escape(title)}</figcaption></figure>\n"
    )


def _fitting(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _axis(low: float, high: float, x: Callable[[float], float], bottom: float, words: str) -> Iterable[str]:
    for value in ticks(low, high):
        yield f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">{escape(words)}</text>'


def _dot(dot: Dot, x: Callable[[float], float], y: float) -> str:
    bar = ""
    if dot.spread:
        ends = f'x1="{x(dot.value - dot.spread):.1f}" x2="{x(dot.value + dot.spread):.1f}"'
        bar = f'<line class="bar {dot.kind}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>'
    return f"<g><title>{escape(dot.words)}</title>{bar}{_shape(dot.kind, x(dot.value), y)}</g>"


def _shape(kind: str, x: float, y: float) -> str:
    if kind == "bad":
        return f'<path class="dot bad" d="M{x - 5:.1f},{y - 5:.1f}l10,10m0,-10l-10,10"/>'
    if kind == "base":
        return f'<path class="dot base" d="M{x:.1f},{y - 7:.1f}v14"/>'
    return f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
