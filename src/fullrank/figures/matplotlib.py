"""Figures for a paper, with matplotlib, as SVG, PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fullrank.atomic import replacing
from fullrank.figures.description import Dots, Figure, Heat, Lines, Series, few_whole
from fullrank.figures.style import BLUE, GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

FORMATS = ("svg", "pdf", "png")
COLUMN = 3.4  # inches: one column of a paper of two
MOST_NAMES = 11  # in a legend: more would hide the curves
THINNER = 0.65  # points on paper for a pixel of the page
DASHES = {"solid": "-", "dash": "--", "dot": ":", "points": ""}
MARKERS = {"diamond": "D", "bar": "_"}
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.8,
    "legend.edgecolor": "none",
    "legend.handlelength": 1.6,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "fullrank",  # the same drawing is the same file
    "savefig.dpi": 300,
}


def plot(item: Figure, colours: Mapping[str, str] | None = None) -> Drawing:
    """Draw a figure of one column, with colours by names of series or arms.

    Pyplot, which keeps figures alive, is not involved.

    Example:
        >>> type(plot(Dots("t", "n", "x", {"a": [1.0, 2.0]}))).__name__
        'Figure'
    """
    from matplotlib.figure import Figure as Drawing

    with paper_style():
        height = 0.7 + 0.22 * len(item.values) if isinstance(item, Dots) else 2.5
        drawing = Drawing(figsize=(COLUMN, height), layout="constrained")
        axes = drawing.add_subplot()
        if isinstance(item, Dots):
            axes.set_xlabel(item.x)
            _dots(axes, item, colours or {})
        elif isinstance(item, Heat):
            _heat(axes, item)
        else:
            _lines(axes, item, colours or {})
            _legend(axes)
    return drawing


def plot_panels(items: Sequence[Lines], across: int = 3) -> Drawing:
    """Draw small figures beside each other; the first has the legend."""
    from matplotlib.figure import Figure as Drawing

    with paper_style():
        rows = -(-len(items) // across)
        drawing = Drawing(figsize=(7.0, 1.9 * rows), layout="constrained")
        for place, item in enumerate(items):
            axes = drawing.add_subplot(rows, across, place + 1)
            _lines(axes, item, {})
            axes.set_title(item.y)
            axes.set_ylabel("")
            if not place:
                _legend(axes)
    return drawing


def save(drawing: Drawing, stem: Path) -> list[Path]:
    """Write a drawing as `stem.svg`, `.pdf` and `.png`; returns the paths.

    Each file is whole or not there. Dates are left out, so that the same drawing gives the same bytes.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with paper_style():
        for kind in FORMATS:
            path = stem.with_name(f"{stem.name}.{kind}")
            undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
            with replacing(path) as file:
                drawing.savefig(file, format=kind, metadata=undated)
            written.append(path)
    return written


def write_figures(
    figures: Iterable[tuple[str, Figure | Sequence[Lines]]],
    folder: Path,
    colours: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw and write figures by name, a sequence of lines as panels; empty ones not."""
    written = []
    for name, item in figures:
        if isinstance(item, Lines | Dots | Heat):
            drawing = None if item.empty else plot(item, colours)
        else:
            drawing = plot_panels(item) if item else None
        if drawing:
            written += save(drawing, folder / name)
    return written


def paper_style() -> AbstractContextManager[None]:
    """Fonts and line widths of all figures while the context lasts."""
    import matplotlib

    return matplotlib.rc_context(cast(Any, STYLE))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _lines(axes: Axes, item: Lines, colours: Mapping[str, str]) -> None:
    axes.set_xlabel(item.x)
    axes.set_ylabel(item.y)
    for series in item.series:
        if not series.hidden:
            colour = series.colour or colours.get(series.name, BLUE)
            _curve(axes, series, colour, series.name if item.named.get(series.name) is series else None)
    for text, y in item.references.items():
        axes.axhline(y, color=GREY, linewidth=0.8, linestyle=":", label=text)
    for text, mark in item.marks.items():
        axes.axvline(mark, color=GREY, linewidth=0.8, linestyle="-.", label=text)
    _scale(axes, item)


def _scale(axes: Axes, item: Lines) -> None:
    if item.log_y:
        _log_height(axes, item.narrow)
    if item.log_x:
        axes.set_xscale("log")
    if item.named_places:
        _name_places(axes, item)
    elif item.whole_x:
        axes.locator_params("x", integer=True)
    for share, axis in ((item.percent, axes.yaxis), (item.percent_x, axes.xaxis)):
        if share:
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    if item.x_range:
        axes.set_xlim(*item.x_range)
    if item.y_range:
        low, high = item.y_range
        top = axes.get_ylim()[1]
        axes.set_ylim(low, top + 0.05 * (top - low) if high is None else high)


def _curve(axes: Axes, series: Series, colour: str, label: str | None) -> None:
    mean, low, high = map(_numbers, series.summary())
    known, x = np.isfinite(mean), np.asarray(series.x, float)
    size = THINNER * series.size
    if series.dash == "points" and not series.marker:  # a cloud
        size *= min(1.0, max(0.4, (400 / len(x)) ** 0.5))
    how: dict[str, Any] = {
        "color": colour,
        "alpha": series.opacity,
        "linewidth": THINNER * series.width,
        "linestyle": DASHES[series.dash],
        "marker": MARKERS.get(series.marker, "o") if series.marked else "",
        "markersize": size,
        "markeredgewidth": 1.0 if series.marker in MARKERS else 0,
        "markerfacecolor": "none" if series.marker == "diamond" else colour,
        "label": label,
    }
    if series.whiskers:
        axes.errorbar(
            x[known], mean[known], _numbers(series.whiskers)[known], ecolor=GREY, elinewidth=0.8, **how
        )
    else:
        axes.plot(x[known], mean[known], **how)
    if len(series.ys) > 1:
        axes.fill_between(x[known], low[known], high[known], color=colour, alpha=0.16, linewidth=0)
    if series.fill:
        axes.fill_between(x[known], mean[known], color=colour, alpha=0.16, linewidth=0)


def _log_height(axes: Axes, narrow: bool) -> None:
    """Scale y by logarithm, with labels at 1, 2 and 5 on a narrow range."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    if narrow:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _name_places(axes: Axes, item: Lines) -> None:
    names = item.named_places
    turned = max(map(len, names)) * len(names) > 24
    axes.set_xticks(
        list(names.values()), list(names), rotation=35 if turned else 0, ha="right" if turned else "center"
    )
    axes.minorticks_off()


def _legend(axes: Axes) -> None:
    """A legend where there is something to tell apart, and no more than can be told."""
    if 1 < len(axes.get_legend_handles_labels()[1]) <= MOST_NAMES:
        for handle in axes.legend().legend_handles:
            if handle is not None:
                handle.set_alpha(1)


def _dots(axes: Axes, item: Dots, colours: Mapping[str, str]) -> None:
    for arm, xs in item.known.items():
        place = list(item.values).index(arm)
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


def _heat(axes: Axes, item: Heat) -> None:
    axes.set_xlabel(item.x)
    axes.set_ylabel(item.y)
    table = np.array([_numbers(row) for row in item.z])
    largest = float(np.nanmax(np.abs(table)))
    low, high = item.z_range or ((-largest, largest) if item.diverging else (None, None))
    columns = item.columns or np.arange(table.shape[1])
    rows = item.rows or np.arange(table.shape[0])
    image = axes.pcolormesh(
        columns,
        rows,
        table,
        vmin=low,
        vmax=high,
        cmap="RdBu_r" if item.diverging else "cividis",
        shading="nearest",
        rasterized=True,
    )
    axes.invert_yaxis()
    if few_whole(item.columns):
        axes.locator_params("x", integer=True)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=28)
    bar.set_label("" if item.z_ticks else item.z_label)
    bar.outline.set_linewidth(0.5)
    if item.z_ticks:
        bar.set_ticks(list(item.z_ticks.values()), labels=list(item.z_ticks))
