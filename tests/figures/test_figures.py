"""Figures: one description, drawn alike for the page and for a paper."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from PIL import Image

from fullrank.figures import Dots, Figure, Heat, Lines, Series, curve, numbers_of
from fullrank.figures import matplotlib as paper
from fullrank.figures import svg as page
from fullrank.figures.axes import Axis
from fullrank.figures.raster import FINE, colours, picture
from fullrank.figures.style import BLUE

SEEDS = Series("arm", [1.0, 10.0, 100.0], [[0.1, None, 0.3], [0.2, 0.4, 0.5]])
LINES = Lines(
    "t", "n", "x (unit)", "y",
    [SEEDS, curve("cloud", [2.0], [0.3], "#d1495b", "points", whiskers=[0.1]),
     curve("waits", [1.0, 9.0], [0.1, 0.2], "#2b7bba", hidden=True)],
    references={"chance": 0.1}, marks={"switch": 10.0}, log_x=True, log_y=True, percent=True,
)  # fmt: skip
HEAT = Heat("t", "n", "x", "y", [[1.0, None], [0.0, -2.0]], "z", diverging=True, rows=[1, 2], columns=[0, 5])
DOTS = Dots("t", "n", "x", {"a": [0.1, 0.3], "b": [None], "c": [0.2]}, {"chance": 0.1}, percent=True)


@pytest.mark.parametrize("item", [LINES, HEAT, DOTS])
def test_both_hands_draw_every_kind(item: Figure) -> None:
    assert fromstring(page.plot(item).svg).tag.endswith("svg") and paper.plot(item).axes
    assert numbers_of(item)["kind"] == type(item).__name__.lower()


def test_both_hands_draw_the_same_means_and_the_paper_nothing_that_waits() -> None:
    drawn_on_page = page.plot(LINES)
    traces = {series["name"]: series for series in json.loads(drawn_on_page.data)["series"]}
    assert [hidden for _, name, _, _, hidden in drawn_on_page.keys if name == "waits"] == [True]
    assert drawn_on_page.svg.count("display:none") == 1
    drawn: Any = [line for line in paper.plot(LINES).axes[0].lines if line.get_label() == "arm"]
    assert traces["arm"]["y"] == pytest.approx(list(drawn[0].get_ydata())) == [0.15, 0.4, 0.4]
    assert "waits" not in paper.plot(LINES).axes[0].get_legend_handles_labels()[1]


def test_a_value_stands_where_its_logarithm_does() -> None:
    axis = Axis(0.01, 100.0, 0.0, 400.0, log=True)
    assert [axis(x) for x in (0.1, 1.0, 10.0)] == pytest.approx([100, 200, 300])
    assert [text for _, text in axis.ticks()] == ["0.01", "0.1", "1", "10", "100"]
    assert not axis.shows(0.0) and not axis.shows(None)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.2, 9.1), (0.9994, 0.9999), (0.0, 123456.0), (5.0, 5.1)])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_has_a_few_ticks_inside_it_whose_labels_differ(ends: tuple[float, float], log: bool) -> None:
    axis = Axis.over(ends, 0, 400, log=log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9 and len({text for _, text in ticks}) == len(ticks)
    assert all(-0.01 <= axis(value) <= 400.01 for value, _ in ticks)


def test_what_others_wrote_stays_text_in_a_drawing() -> None:
    bad = "</script><b>&"
    item = Lines(bad, bad, bad, bad, [curve(bad, [1, 2], [1.0, 2.0], BLUE)], {bad: 1.5}, {bad: 1.5})
    for drawn in (page.plot(item), page.plot(Dots(bad, bad, bad, {bad: [1.0]}, {bad: 1.0}))):
        assert "<b>" not in drawn.svg and "<" not in drawn.data
        assert fromstring(drawn.svg) is not None


def test_a_matrix_is_a_picture_of_its_cells() -> None:
    uri = picture([[0.0, None], [1.0, 0.5]], [0, 1, 2], [0, 1, 2], 0.0, 1.0, False)
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA")
    assert image.size == (2, 2) and [image.getpixel(at)[3] for at in ((0, 0), (1, 0))] == [255, 0]  # type: ignore[index]
    assert image.getpixel((0, 1))[:3] == tuple(colours(False)[255])  # type: ignore[index]
    uneven = picture([[0.0, 1.0]], [0, 1, 10], [0, 1], 0.0, 1.0, False)
    wide = Image.open(io.BytesIO(base64.b64decode(uneven.split(",")[1])))
    assert np.asarray(wide)[0].tolist().count(1) == pytest.approx(FINE / 10, abs=2)


def test_json_holds_what_a_figure_says_and_not_how_it_is_drawn() -> None:
    plain = numbers_of(LINES)
    assert set(plain["series"][0]) == {"name", "x", "ys", "dash"} and "height" not in plain
    assert numbers_of(HEAT)["z"][0] == [1.0, None] and "rows" not in numbers_of(HEAT)


def test_gaps_and_what_is_empty() -> None:
    assert Lines("t", "", "", "", [curve("a", [1], [None], "")]).empty and not LINES.empty
    assert Heat("t", "", "", "", []).empty and Dots("t", "", "", {"a": [None]}).empty
    assert np.isnan(paper._numbers([None, 1.0])[0])
