"""How figures on paper look, and how they are written: SVG, PDF and PNG of one drawing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLUMN", "FORMATS", "legend", "log_height", "one_axes", "panels", "save", "style"]

FORMATS = ("svg", "pdf", "png")
COLUMN = 3.4  # inches: one column of a paper of two
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
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "fullrank",  # the same drawing is the same file
    "savefig.dpi": 300,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures while the context lasts."""
    import matplotlib

    with matplotlib.rc_context(cast(Any, STYLE)):
        yield


def one_axes(x: str, y: str, width: float = COLUMN, height: float = 2.5) -> tuple[Figure, Axes]:
    """A figure of one column with one pair of axes; pyplot, which keeps figures alive, is not involved."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def panels(count: int, across: int = 3, width: float = 7.0, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """A figure of two columns with `count` small axes, `across` in a row."""
    from matplotlib.figure import Figure

    rows = -(-count // across)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, across, place + 1) for place in range(count)]


def log_height(axes: Axes) -> None:
    """A logarithmic height: labels at 1, 2 and 5 where it spans hardly a power of ten, else at the powers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 50:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, **more: Any) -> None:
    """A legend where there is something to tell apart."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(**more)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as `stem.svg`, `.pdf` and `.png`, each whole or not at all; returns the paths.

    Dates are left out, so that the same drawing gives the same bytes.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with style():
        for kind in FORMATS:
            path = stem.with_name(f"{stem.name}.{kind}")
            beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
            figure.savefig(beside, format=kind, metadata=undated)
            beside.replace(path)
            written.append(path)
    return written
