"""Where along a level line its label lies over no curve."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

Point = tuple[float, float]
ABOVE, BELOW = (-15.0, -3.0), (2.0, 16.0)  # what a line of text covers, from the level line on


def place_label(
    curves: Iterable[Sequence[Point | None]], line: float, length: float, plane: Point, below: bool
) -> tuple[float, bool]:
    """The right end of a label of a level line, and whether it is below it.

    Args:
        curves: what is drawn, as points of the plane; None is a gap.
        line: height of the line in the plane, from its top.
        length: of the label.
        plane: width and height.
        below: on which side it is where both are free.

    Returns:
        The rightmost place that no curve crosses, within the plane; without one that with the least of them.

    Example:
        >>> flat = [(0.0, 55.0), (100.0, 55.0)]
        >>> place_label([flat], 50.0, 30.0, (100.0, 100.0), below=True)
        (100.0, False)
    """
    width, height = plane
    drawn = [list(_segments(points)) for points in curves]
    ends = [max(width - k * width / 12, length) for k in range(12)]
    tries = [(end, side) for end in dict.fromkeys(ends) for side in (below, not below)]
    inside = [(end, side) for end, side in tries if _fits(line, side, height)] or tries

    def crossed(end: float, side: bool) -> float:
        low, high = BELOW if side else ABOVE
        box = end - length, end, line + low, line + high
        return sum(_covered(a, b, *box) for segments in drawn for a, b in segments)

    return min(inside, key=lambda each: crossed(*each))  # the first of equals


def _fits(line: float, below: bool, height: float) -> bool:
    low, high = BELOW if below else ABOVE
    return line + low >= 0 and line + high <= height


def _segments(points: Sequence[Point | None]) -> Iterator[tuple[Point, Point]]:
    """Pairs of neighbours; a lone point is a segment of no length."""
    if sum(point is not None for point in points) == 1:
        yield from ((point, point) for point in points if point is not None)
    yield from ((a, b) for a, b in itertools.pairwise(points) if a is not None and b is not None)


def _covered(a: Point, b: Point, left: float, right: float, top: float, bottom: float) -> float:
    """How much of the box a segment goes across; one that touches it counts."""
    (x0, y0), (x1, y1) = sorted((a, b))
    start, stop = max(x0, left), min(x1, right)
    if start > stop:
        return 0.0
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
    first, last = (y0 + slope * (x - x0) for x in (start, stop))
    low, high = (min(y0, y1), max(y0, y1)) if x1 == x0 else (min(first, last), max(first, last))
    return 0.0 if high < top or low > bottom else stop - start + 1.0
