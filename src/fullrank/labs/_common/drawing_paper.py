"""Draws a lab's figures for a paper, with matplotlib, in the style of all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fullrank.labs._common.figures import Dots, Figure, Heat, Lines
from fullrank.report.paper_style import COLUMN, legend, log_height, one_axes, style
from fullrank.report.style import GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

__all__ = ["draw_for_paper"]

DASHES = {"solid": "-", "dash": "--", "dot": ":", "points": "o"}


def draw_for_paper(item: Figure, colours: Mapping[str, str]) -> Drawing:
    """A figure of one column.

    Args:
        item: its description.
        colours: by the names of its series or arms.

    Example:
        >>> from fullrank.labs._common.figures import Dots
        >>> type(draw_for_paper(Dots("t", "n", "x", {"a": [1.0, 2.0]}), {})).__name__
        'Figure'
    """
    with style():
        if isinstance(item, Dots):
            drawing, axes = one_axes(item.x, "", COLUMN, 0.7 + 0.22 * len(item.values))
            _dots(axes, item, colours)
        elif isinstance(item, Heat):
            drawing, axes = one_axes(item.x, item.y)
            table = np.array([[np.nan if v is None else v for v in row] for row in item.z], float)
            image = axes.imshow(table, aspect="auto", cmap="RdBu" if item.diverging else "cividis")
            if item.diverging:
                largest = float(np.nanmax(np.abs(table)))
                image.set_clim(-largest, largest)
            drawing.colorbar(image, ax=axes, pad=0.02, aspect=28).set_label(item.z_label)
        else:
            drawing, axes = one_axes(item.x, item.y)
            _lines(axes, item, colours)
    return drawing


def _lines(axes: Axes, item: Lines, colours: Mapping[str, str]) -> None:
    first = {series.name: series for series in reversed(item.series)}  # one entry of the legend for each name
    for series in item.series:
        mean, low, high = (
            np.array([np.nan if y is None else y for y in ys], float) for ys in series.summary()
        )
        colour, known = colours[series.name], np.isfinite(mean)
        x = np.asarray(series.x, float)[known]
        label = series.name if first[series.name] is series else None
        axes.plot(x, mean[known], DASHES[series.dash], color=colour, label=label, markersize=3)
        if len(series.ys) > 1:
            axes.fill_between(x, low[known], high[known], color=colour, alpha=0.16, linewidth=0)
    for text, y in item.references.items():
        axes.axhline(y, color=GREY, linewidth=0.8, linestyle=":", label=text)
    for text, mark in item.marks.items():
        axes.axvline(mark, color=GREY, linewidth=0.8, linestyle="-.", label=text)
    if item.log_y:
        log_height(axes)
    if item.log_x:
        axes.set_xscale("log")
        places = sorted({x for series in item.series for x in series.x})
        if len(places) <= 8:
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.minorticks_off()
    if item.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if item.y_range:
        axes.set_ylim(*item.y_range)
    legend(axes)


def _dots(axes: Axes, item: Dots, colours: Mapping[str, str]) -> None:
    for place, (arm, found) in enumerate(item.values.items()):
        xs = [x for x in found if x is not None]
        if not xs:
            continue
        colour = colours.get(arm, PALETTE[0])
        axes.plot([min(xs), max(xs)], [place, place], color=colour)
        axes.plot(xs, [place] * len(xs), "o", color=colour, markersize=3.5, alpha=0.75)
        axes.plot([sum(xs) / len(xs)], [place], "|", color=colour, markersize=9, markeredgewidth=1.6)
    axes.set_yticks(range(len(item.values)), list(item.values))
    axes.invert_yaxis()
    for text, x in item.references.items():
        axes.axvline(x, color=GREY, linewidth=0.8, linestyle=":", label=text)
    if item.percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if item.references:
        axes.legend(loc="best")
