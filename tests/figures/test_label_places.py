"""Labels of level lines lie over no curve, wherever there is room for them."""

from __future__ import annotations

import pytest

from fullrank.figures.label_places import ABOVE, BELOW, Point, place_label

PLANE = (400.0, 200.0)
LENGTH = 120.0


def flat(height: float, start: float = 0.0, end: float = 400.0) -> list[Point | None]:
    return [(start, height), (end, height)]


def crosses(curve: list[Point | None], end: float, below: bool, line: float) -> bool:
    low, high = BELOW if below else ABOVE
    points = [point for point in curve if point]
    (x0, y0), (x1, y1) = points[0], points[-1]
    steps = [(x0 + t / 500 * (x1 - x0), y0 + t / 500 * (y1 - y0)) for t in range(501)]
    return any(end - LENGTH <= x <= end and line + low <= y <= line + high for x, y in steps)


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize(
    "curve",
    [
        flat(105.0),
        flat(95.0),
        [(0.0, 100.0), (400.0, 60.0)],
        [(0.0, 140.0), (400.0, 100.0)],
        [(0.0, 60.0), (400.0, 140.0)],
        flat(110.0, 200.0),
    ],
)
def test_a_label_lies_over_no_curve(curve: list[Point | None], below: bool) -> None:
    end, side = place_label([curve], 100.0, LENGTH, PLANE, below)
    assert LENGTH <= end <= PLANE[0]
    assert not crosses(curve, end, side, 100.0)


def test_a_free_label_stays_at_the_right_on_the_side_that_is_preferred() -> None:
    assert place_label([flat(20.0)], 100.0, LENGTH, PLANE, below=True) == (400.0, True)
    assert place_label([flat(20.0)], 100.0, LENGTH, PLANE, below=False) == (400.0, False)


@pytest.mark.parametrize(("line", "below"), [(2.0, True), (198.0, False)])
def test_a_label_stays_within_the_plane(line: float, below: bool) -> None:
    assert place_label([], line, LENGTH, PLANE, not below)[1] == below


def test_curves_on_both_sides_of_one_half_send_it_to_the_other() -> None:
    curves = [flat(105.0, 200.0), flat(95.0, 200.0)]
    assert place_label(curves, 100.0, LENGTH, PLANE, below=True)[0] <= 200.0
