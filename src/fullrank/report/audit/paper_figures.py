"""Figures of one embedding for a paper: spectra, cumulative curve, covariance, adjacency, mixture entropy.

Every function returns a figure of matplotlib, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.kmeans import sample_kmeans
from fullrank.collapse.metrics.mixture import mixture_entropy
from fullrank.report.audit.curves import ceiling, references, relative, share_curve
from fullrank.report.paper_style import COLUMN, legend, log_height, one_axes, style
from fullrank.report.style import BLUE, GREY, OCHRE, ORANGE, PALETTE, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COMPONENTS",
    "adjacency",
    "compared_spectra",
    "covariance",
    "cumulative_curves",
    "log_spectrum",
    "mixture_curve",
]

DASHES = {"isotropic": "--", "eigenvalues 1/k": ":"}
FLOOR = 1e-7  # relative singular values below are rounding
MOST = 512  # rows and columns of an image
COMPONENTS = (1, 2, 5, 10, 20, 50)


def log_spectrum(spectra: Mapping[str, np.ndarray], n: int, d: int) -> Figure | None:
    """Relative singular values with and without centring, the two references, and the ceiling of n rows.

    Args:
        spectra: "centred" and "unit" as `Panel.spectra` has them.
        n: rows.
        d: their width.

    Example:
        >>> type(log_spectrum({"centred": np.ones(8), "unit": np.ones(8)}, 100, 8)).__name__
        'Figure'
    """
    shown = {
        name: values
        for form, name in (("centred", "centred"), ("unit", "unit rows, not centred"))
        if form in spectra and (values := relative(spectra[form])) is not None
    }
    if not shown:
        return None
    with style():
        figure, axes = one_axes("index of the singular value", "singular value, relative")
        for (name, values), colour in zip(shown.items(), (BLUE, OCHRE), strict=False):
            axes.plot(np.arange(1, len(values) + 1), _above(values), color=colour, label=name)
        for name, values in references(n, d).items():
            ks = np.arange(1, len(values) + 1)
            axes.plot(ks, _above(values), DASHES[name], color=GREY, linewidth=0.9, label=name)
        if limit := ceiling(n, d):
            axes.axvline(limit, color=ORANGE, linewidth=0.8, label=f"$n - 1 = {limit}$")
        log_height(axes)
        legend(axes, loc="center right" if axes.get_ylim()[0] < 5e-3 else "upper right")
    return figure


def _above(values: np.ndarray) -> np.ndarray:
    """Without what a logarithm has no place for."""
    kept: np.ndarray = np.where(values > FLOOR, values, np.nan)
    return kept


def cumulative_curves(spectra: Mapping[str, np.ndarray], n: int, d: int) -> Figure | None:
    """Cumulative curves of centred spectra with their AUC, between the references of n rows of width d."""
    curves = {name: share_curve(values, d) for name, values in spectra.items()}
    if not any(curve is not None for curve in curves.values()):
        return None
    with style():
        figure, axes = one_axes("share of the directions", "share of the spectrum they hold")
        for place, (name, curve) in enumerate(curves.items()):
            if curve is not None:
                area = number(float(curve[1][1:].mean()))
                axes.plot(*curve, color=PALETTE[place % len(PALETTE)], label=f"{name}, AUC {area}")
        for name, values in references(n, d).items():
            if (curve := share_curve(values, d)) is not None:
                area = number(float(curve[1][1:].mean()))
                axes.plot(*curve, DASHES[name], color=GREY, linewidth=0.9, label=f"{name}, AUC {area}")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        legend(axes, loc="lower right")
    return figure


def compared_spectra(spectra: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> Figure | None:
    """Centred spectra of several embeddings, each relative to its largest, over the share of directions."""
    shown = {name: v / v[0] for name, v in spectra.items() if len(v) and v[0] > 0}
    if not shown:
        return None
    with style():
        figure, axes = one_axes("share of the directions", "singular value, relative to the largest")
        for place, (name, values) in enumerate(shown.items()):
            xs = np.arange(1, len(values) + 1) / widths[name]
            axes.plot(xs, _above(values), color=PALETTE[place % len(PALETTE)], label=name)
        log_height(axes)
        legend(axes)
    return figure


def covariance(rows: Tensor) -> Figure | None:
    """The covariance of the first 512 dimensions, each scaled to a variance of 1, as an image.

    After CPLearn (arXiv 2410.04959). Decorrelated dimensions show a diagonal alone, dead ones nothing.
    """
    z = rows[:, :MOST].double()
    z = z - z.mean(dim=0)
    spread = z.norm(dim=0)
    if not len(z) or not float(spread.max()) > 0:
        return None
    alive = spread > 1e-9 * spread.max()
    z = torch.where(alive, z / spread.clamp_min(1e-300), 0.0)
    return _image((z.T @ z).numpy(), "dimension", "covariance, standardised")


def adjacency(rows: Tensor, labels: Tensor | None = None, clusters: int = 10) -> Figure | None:
    """Cosines between up to 512 centred rows, sorted by class, or by k-means where there are no labels.

    Blocks are groups that look alike inside (CPLearn, arXiv 2410.04959).
    """
    z = rows[:MOST].double()
    z = z - z.mean(dim=0)
    if len(z) < 2 or not float(z.abs().max()) > 0:
        return None
    z = torch.nn.functional.normalize(z, dim=1)
    groups = labels[:MOST] if labels is not None else sample_kmeans(z, min(clusters, len(z))).nearest
    order = torch.argsort(groups, stable=True)
    by = "class" if labels is not None else "cluster"
    return _image((z[order] @ z[order].T).numpy(), f"row, sorted by {by}", "cosine of centred rows")


def _image(matrix: np.ndarray, what: str, shown: str) -> Figure:
    with style():
        figure, axes = one_axes(what, what, COLUMN, 2.8)
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", rasterized=True)
        for spine in axes.spines.values():
            spine.set_visible(True)
        bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=28, pad=0.02)
        bar.set_label(shown)
        bar.outline.set_linewidth(0.5)
    return figure


def mixture_curve(arms: Mapping[str, Tensor], components: Sequence[int] = COMPONENTS) -> Figure | None:
    """Entropy per dimension of a Gaussian mixture against its number of components, with its deviation.

    A curve that falls as components are added: rows lie in clusters tighter than one Gaussian tells. Takes a
    fit for each number of components: seconds at 100 dimensions, minutes at 2,000.

    Example:
        >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture_curve({"rows": z}, components=(1, 2)) is None
        False
    """
    curves = {}
    for name, rows in arms.items():
        found = {k: mixture_entropy(rows, k, samples=2000, repeats=5) for k in components if k <= len(rows)}
        curves[name] = {k: entropy for k, entropy in found.items() if entropy is not None}
    if not any(curves.values()):
        return None
    with style():
        figure, axes = one_axes("components of the mixture", "entropy per dimension, nats")
        axes.set_xscale("log")
        for place, (name, curve) in enumerate(curves.items()):
            values = [entropy.mean for entropy in curve.values()]
            errors = [entropy.std for entropy in curve.values()]
            colour = PALETTE[place % len(PALETTE)]
            axes.errorbar(list(curve), values, errors, color=colour, marker="o", markersize=3, label=name)
        isotropic = 0.5 * np.log(2 * np.pi * np.e)
        axes.axhline(isotropic, color=GREY, linestyle="--", linewidth=0.9, label="isotropic Gaussian")
        ticks = sorted({k for curve in curves.values() for k in curve})
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        legend(axes)
    return figure
