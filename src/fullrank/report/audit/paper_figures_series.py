"""Figures for a paper that follow an embedding over epochs or over depth.

Every function returns a figure of matplotlib, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fullrank.report.audit.terminal import AuditView
from fullrank.report.paper_style import legend, log_height, one_axes, panels, style
from fullrank.report.run.reading import Run
from fullrank.report.style import BLUE, GREY, tap_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["panels_over_depth", "panels_over_time", "spectra_over_epochs", "trajectories"]

Spectra = Mapping[int, np.ndarray]
MODES = 64  # lines of a picture of trajectories
FLOOR = 1e-4


class _Shown(NamedTuple):
    metric: str
    label: str
    per_dimension: bool
    least: float | None = 0.0


SHOWN = (
    _Shown("level", "level", False),
    _Shown("erank_centred", "effective rank / d", True),
    _Shown("rankme_unit", "RankMe of unit rows / d", True),
    _Shown("participation_ratio", "participation ratio / d", True),
    _Shown("auc", "AUC", False, None),
    _Shown("uniformity", "uniformity", False, None),
)


def trajectories(spectra: Spectra, modes: int = MODES) -> Figure | None:
    """Eigenvalues of the covariance over epochs, a line for each mode, sorted: the largest is mode 1.

    Args:
        spectra: centred singular values, descending, by epoch.
        modes: at most so many lines, evenly spread over the modes.

    Example:
        >>> trajectories({0: np.ones(4), 1: np.array([2.0, 1.0, 0.5, 0.1])}) is None
        False
    """
    epochs = sorted(spectra)
    if len(epochs) < 2:
        return None
    d = min(len(spectra[epoch]) for epoch in epochs)
    table = np.stack([spectra[epoch][:d] for epoch in epochs]) ** 2
    largest = float(table.max())
    if not largest > 0:
        return None
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    picked = np.unique(np.geomspace(1, d, min(d, modes)).round().astype(int))
    norm = LogNorm(1, d) if d > 1 else Normalize(0, 1)
    colours = colormaps["viridis"]
    with style():
        figure, axes = one_axes("epoch", "eigenvalue of the covariance")
        for mode in picked[::-1]:
            values = table[:, mode - 1]
            kept = np.where(values > 1e-10 * largest, values, np.nan)
            axes.plot(epochs, kept, color=colours(norm(mode)), linewidth=0.8)
        log_height(axes)
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, pad=0.02, aspect=28)
        bar.set_label("mode, sorted")
    return figure


def spectra_over_epochs(spectra: Spectra) -> Figure | None:
    """Singular values over epochs as a heat map, relative to each epoch's largest."""
    epochs = sorted(spectra)
    if len(epochs) < 2:
        return None
    d = min(len(spectra[epoch]) for epoch in epochs)
    table = np.stack([spectra[epoch][:d] for epoch in epochs], axis=1)
    largest = table.max(axis=0)
    share = np.divide(table, largest, out=np.zeros_like(table), where=largest > 0)
    from matplotlib.colors import LogNorm

    middles = (np.array(epochs[1:]) + np.array(epochs[:-1])) / 2
    edges = np.concatenate([[2 * epochs[0] - middles[0]], middles, [2 * epochs[-1] - middles[-1]]])
    with style():
        figure, axes = one_axes("epoch", "index of the singular value")
        image = axes.pcolormesh(
            edges,
            np.arange(d + 1) + 0.5,
            np.maximum(share, FLOOR),
            norm=LogNorm(FLOOR, 1),
            cmap="cividis",
            rasterized=True,
        )
        axes.invert_yaxis()
        figure.colorbar(image, ax=axes, pad=0.02, aspect=28).set_label("relative to the largest")
    return figure


def panels_over_depth(views: Mapping[str, AuditView]) -> Figure | None:
    """Six metrics over the taps, in the order of depth, each with what isotropic rows read."""
    measured = {tap: view.panel for tap, view in views.items() if view.panel is not None}
    if len(measured) < 2:
        return None
    with style():
        figure, grid = panels(len(SHOWN))
        for axes, shown in zip(grid, SHOWN, strict=True):
            values, nulls = [], []
            for panel in measured.values():
                measure, size = panel.measures.get(shown.metric), panel.d if shown.per_dimension else 1
                values.append(_over(measure.value if measure else None, size))
                nulls.append(_over(measure.null if measure else None, size))
            places = np.arange(len(measured))
            axes.plot(places, values, color=BLUE, marker="o", markersize=3, label="measured")
            axes.plot(places, nulls, "--", color=GREY, linewidth=0.9, label="isotropic")
            turned = max(map(len, measured)) * len(measured) > 24
            axes.set_xticks(
                places, list(measured), rotation=35 if turned else 0, ha="right" if turned else "center"
            )
            _finish(axes, shown)
        legend(grid[0])
    return figure


def panels_over_time(run: Run) -> Figure | None:
    """Six metrics of every tap over the epochs of a run, each with what isotropic rows read."""
    taps = [tap for tap in run.taps if run.measures(tap, "level")]
    if not taps:
        return None
    with style():
        figure, grid = panels(len(SHOWN))
        for axes, shown in zip(grid, SHOWN, strict=True):
            drawn = set()
            for tap in taps:
                d = run.size(tap)[1] or 1
                size = d if shown.per_dimension else 1
                points = run.measures(tap, shown.metric)
                epochs, colour = [point.epoch for point in points], tap_colour(tap, run.taps)
                axes.plot(epochs, [_over(p.value, size) for p in points], color=colour, label=tap)
                nulls = tuple(_over(p.null, size) for p in points)
                if points and nulls not in drawn:
                    drawn.add(nulls)
                    axes.plot(epochs, nulls, "--", color=GREY, linewidth=0.9)
            axes.set_xlabel("epoch")
            _finish(axes, shown)
        grid[0].plot([], [], "--", color=GREY, linewidth=0.9, label="isotropic")
        legend(grid[0])
    return figure


def _over(value: float | None, size: float) -> float:
    return float("nan") if value is None else value / size


def _finish(axes: Axes, shown: _Shown) -> None:
    axes.set_title(shown.label)
    if shown.least is not None:
        axes.set_ylim(bottom=shown.least)
