"""Figures: one description, drawn alike for the page and for a paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fullrank.figures import Dots, Figure, Heat, Lines, Series, curve, numbers_of
from fullrank.figures import matplotlib as paper
from fullrank.figures import plotly as page

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
    assert page.plot(item).data and paper.plot(item).axes
    assert numbers_of(item)["kind"] == type(item).__name__.lower()


def test_both_hands_draw_the_same_means_and_the_paper_nothing_that_waits() -> None:
    traces = {trace.name: trace for trace in page.plot(LINES).data if trace.name}
    assert traces["waits"].visible == "legendonly"
    drawn: Any = [line for line in paper.plot(LINES).axes[0].lines if line.get_label() == "arm"]
    assert list(traces["arm"].y) == pytest.approx(list(drawn[0].get_ydata())) == [0.15, 0.4, 0.4]
    assert "waits" not in paper.plot(LINES).axes[0].get_legend_handles_labels()[1]


def test_words_of_a_reference_stand_at_its_logarithm() -> None:
    fig = page.plot(LINES)
    assert [(a.text, a.x if a.text == "switch" else a.y) for a in fig.layout.annotations] == [
        ("chance", -1.0),
        ("switch", 1.0),
    ]


def test_choices_carry_what_they_belong_to() -> None:
    fig = page.plot_choices({("backbone", "unit"): LINES, ("projector", "unit"): LINES})
    taps = [trace.meta["tap"] for trace in fig.data]
    assert taps == sorted(taps) and set(taps) == {"backbone", "projector"}


def test_json_holds_what_a_figure_says_and_not_how_it_is_drawn() -> None:
    plain = numbers_of(LINES)
    assert set(plain["series"][0]) == {"name", "x", "ys", "dash"} and "height" not in plain
    assert numbers_of(HEAT)["z"][0] == [1.0, None] and "rows" not in numbers_of(HEAT)


def test_gaps_and_what_is_empty() -> None:
    assert Lines("t", "", "", "", [curve("a", [1], [None], "")]).empty and not LINES.empty
    assert Heat("t", "", "", "", []).empty and Dots("t", "", "", {"a": [None]}).empty
    assert np.isnan(paper._numbers([None, 1.0])[0])
