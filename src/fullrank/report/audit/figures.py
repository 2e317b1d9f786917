"""Figures of an audit, for its page and for a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.kmeans import sample_kmeans
from fullrank.collapse.metrics.clusters import SKETCH
from fullrank.collapse.metrics.mixture import mixture_entropy
from fullrank.features.store import main_tap
from fullrank.figures import Figure, Heat, Lines, curve
from fullrank.figures.style import ARM_COLOURS, BLUE, GREY, count
from fullrank.report.audit.view import Against, AuditFacts, Views
from fullrank.report.curves import (
    SHOWN,
    class_points,
    compared_spectra,
    cumulative,
    file_name,
    noise_curve,
    short,
    spectrum,
)

MOST_COMPARED = 1024  # rows whose distances are taken: their square
MOST = 512  # rows and columns of an image
COMPONENTS = (1, 2, 5, 10, 20, 50)


def spectra(view: AuditFacts) -> Lines:
    """Spectra of one tap with and without centring, beside both references."""
    return spectrum(view.panel.spectra if view.panel else {}, view.n, view.d)


def cumulative_curve(view: AuditFacts) -> Lines:
    """Cumulative curve of one tap."""
    return cumulative({"rows": view.panel.spectra["centred"]} if view.panel else {}, view.n, view.d)


def principal(view: AuditFacts) -> Lines:
    """The sample on its first two principal axes, coloured by class."""
    found = principal_map(view.sample)
    series = []
    note = f"{count(len(view.sample))} rows on the two axes of most variance."
    if found is not None:
        places, (first, second) = found
        held = f"axes hold {first:.1%} and {second:.1%} of the variance"
        labels = None if view.labels is None else view.labels.numpy()
        series = class_points(places, labels, [held] * len(places), view.classes)
    if view.labels is not None:
        note += f" Coloured by {len(set(view.labels.tolist()))} classes."
    return Lines("Principal map", note, "first principal axis", "second principal axis", series, height=360)


def pairwise(view: AuditFacts) -> Lines:
    """Distances between rows, beside Gaussian rows of the same covariance."""
    found = None if view.panel is None else distances(view.sample)
    series = []
    if found is not None:
        xs = short(np.repeat(found[0], 2)[1:-1])
        rows, gaussian = (short(np.repeat(shares, 2)) for shares in found[1:])
        series = [
            curve("rows", xs, rows, BLUE, width=1.6, fill=True),
            curve("Gaussian rows of the same covariance", xs, gaussian, GREY, "dash", width=1.6),
        ]
    note = "A hump at small distances that Gaussian rows have not: tight clusters."
    x, y = "distance of two rows / mean distance", "share of the pairs"
    ticks = {f"{x:g}": x for x in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)}
    more: dict[str, Any] = {"log_x": True, "percent": True, "y_range": (0, None)}
    return Lines("Distances between rows", note, x, y, series, ticks=ticks, height=360, **more)


def code_use(view: AuditFacts) -> Lines:
    """Use of every code, the most used first, beside equal use."""
    series = []
    if view.use is not None:
        use = view.use.sort(descending=True).values.numpy()
        edges = np.repeat(np.arange(len(use) + 1) + 0.5, 2)[1:-1]
        heights = [float(v) if v > 0 else None for v in np.repeat(use, 2)]
        equal = f"equal use: 1/{count(view.d)}"
        series = [
            curve(view.tap, edges.tolist(), heights, BLUE, marker="none"),
            curve(equal, [0.5, view.d + 0.5], [1 / view.d] * 2, GREY, "dash", width=1.4, marker="none"),
        ]
    note = "Flat at equal use: all codes serve. A cliff: the others are dead."
    x, y = "codes, the most used first", "share of the assignments"
    return Lines("Use of codes", note, x, y, series, log_y=True, height=360)


def depth(views: Views) -> list[Lines]:
    """Six metrics over the depth of several taps, each beside isotropic rows."""
    measured = {tap: view.panel for tap, view in views.items() if view.panel is not None}
    ticks = {tap: float(place) for place, tap in enumerate(measured)}
    figures = []
    for shown in SHOWN if len(measured) > 1 else ():
        found = [(panel.measures.get(shown.metric), panel.d) for panel in measured.values()]
        values, baselines = (
            [shown.over(getattr(measure, key, None), d) for measure, d in found] for key in ("value", "null")
        )
        places = list(ticks.values())
        series = [curve("measured", places, values, BLUE), *noise_curve(places, baselines, GREY)]
        figures.append(shown.lines("", "", series, ticks))
    return figures


def versus(view: AuditFacts, against: Against, name: str = "this") -> Lines:
    """The centred spectra of two embeddings over each other."""
    pair = {name: view, against.name: against.view}
    if any(found.panel is None for found in pair.values()):
        return compared_spectra({})
    return compared_spectra({k: (v.panel.spectra["centred"], v.d) for k, v in pair.items() if v.panel})


def covariance(rows: Tensor) -> Heat:
    """Correlations of the first 512 dimensions.

    After CPLearn (arXiv 2410.04959). Decorrelated dimensions show a diagonal alone, dead ones nothing.
    """
    z = rows[:, :MOST].double()
    z = z - z.mean(dim=0)
    spread = z.norm(dim=0)
    if not len(z) or not float(spread.max()) > 0:
        return _square("Covariance", None, "dimension", "")
    alive = spread > 1e-9 * spread.max()
    z = torch.where(alive, z / spread.clamp_min(1e-300), 0.0)
    return _square("Covariance", z.T @ z, "dimension", "covariance, standardised")


def adjacency(rows: Tensor, labels: Tensor | None = None, clusters: int = 10) -> Heat:
    """Cosines between up to 512 centred rows, sorted by class or k-means cluster.

    Blocks are groups that look alike inside (CPLearn, arXiv 2410.04959).
    """
    z = rows[:MOST].double()
    z = z - z.mean(dim=0)
    by = f"row, sorted by {'class' if labels is not None else 'cluster'}"
    if len(z) < 2 or not float(z.abs().max()) > 0:
        return _square("Adjacency", None, by, "")
    z = torch.nn.functional.normalize(z, dim=1)
    groups = labels[:MOST] if labels is not None else sample_kmeans(z, min(clusters, len(z)))[1]
    z = z[torch.argsort(groups, stable=True)]
    return _square("Adjacency", z @ z.T, by, "cosine of centred rows")


def _square(title: str, matrix: Tensor | None, what: str, shown: str) -> Heat:
    z = [] if matrix is None else matrix.tolist()
    return Heat(title, "", what, what, z, shown, diverging=True, z_range=(-1, 1))


def mixture_curve(arms: Mapping[str, Tensor], components: Sequence[int] = COMPONENTS) -> Lines:
    """Entropy per dimension of Gaussian mixtures over their number of components.

    A curve that falls as components are added: rows lie in clusters tighter than one Gaussian tells. Takes a
    fit for each number of components: seconds at 100 dimensions, minutes at 2,000.

    Example:
        >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture_curve({"rows": z}, components=(1, 2)).empty
        False
    """
    series = []
    for (name, rows), colour in zip(arms.items(), ARM_COLOURS, strict=False):
        fits = {k: mixture_entropy(rows, k, samples=2000, repeats=5) for k in components if k <= len(rows)}
        known = {float(k): entropy for k, entropy in fits.items() if entropy is not None}
        means, deviations = [e.mean for e in known.values()], [e.std for e in known.values()]
        series.append(curve(name, known, means, colour, whiskers=deviations))
    isotropic = {"isotropic Gaussian": float(0.5 * np.log(2 * np.pi * np.e))}
    x, y = "components of the mixture", "entropy per dimension, nats"
    return Lines("Mixture entropy", "", x, y, series, isotropic, log_x=True)


def paper_figures(views: Views, against: Against | None = None) -> Iterator[tuple[str, Figure | list[Lines]]]:
    """The figures of an audit for a paper, by name.

    Where there are several taps, a figure of one is called `TAP-FIGURE`, and images are of the main one.
    Mixture entropy takes minutes: it is drawn where the metric `mixture_entropy` was asked for.
    """
    main = views[main_tap(views)]
    for tap, view in views.items():
        if view.panel is None:
            continue
        name = f"{file_name(tap)}-" if len(views) > 1 else ""
        yield f"{name}spectrum", spectra(view)
        yield f"{name}cumulative", cumulative_curve(view)
        if view is main:
            yield f"{name}covariance", covariance(view.sample)
            yield f"{name}adjacency", adjacency(view.sample, view.labels)
            if "mixture_entropy" in view.metrics:
                yield f"{name}mixture-entropy", mixture_curve({"rows": view.sample})
    yield "depth", depth(views)
    if against is not None:
        yield "against", versus(main, against)


@torch.no_grad()
def principal_map(rows: Tensor) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Project rows [m, d] on two principal axes [m, 2], with shares of variance."""
    z = rows.double() - rows.double().mean(dim=0)
    total = float(z.square().sum())
    if not total > 0 or len(z) < 2:
        return None
    if z.shape[1] < 2:
        return torch.cat([z, torch.zeros_like(z)], dim=1).numpy(), (1.0, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, sigma, axes = torch.pca_lowrank(z, q=min(8, *z.shape), center=False, niter=4)
    first, second = (float(value) ** 2 / total for value in sigma[:2])
    return (z @ axes[:, :2]).numpy(), (first, second)


@torch.no_grad()
def distances(rows: Tensor, bins: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Distances between rows, and between Gaussian rows of the same covariance.

    Returns the edges [b + 1] of bins of equal ratio, as shares of the mean distance, and the shares of pairs
    in them [b] of the rows and of the Gaussian ones; None where all rows are one. Rows in tight clusters show
    a hump at small distances that a Gaussian cloud has not.
    """
    z = rows[:MOST_COMPARED].double()
    if len(z) < 8:
        return None
    z = z - z.mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    if z.shape[1] > SKETCH:
        z = z @ torch.randn(z.shape[1], SKETCH, generator=generator, dtype=z.dtype) / SKETCH**0.5
    gaussian = torch.randn(len(z), len(z), generator=generator, dtype=z.dtype) @ z / len(z) ** 0.5
    found = [torch.nn.functional.pdist(cloud).numpy() for cloud in (z, gaussian)]
    if not found[0].mean() > 0 or not found[1].mean() > 0:
        return None
    found = [values / values.mean() for values in found]
    lowest = min(max(float(np.quantile(values, 0.0005)), 1e-3) for values in found)
    edges = np.geomspace(0.9 * lowest, 1.05 * max(float(values.max()) for values in found), bins + 1)
    # what lies at zero, as repeated rows do, is counted in the first bin
    shares = [np.histogram(values.clip(edges[0]), edges)[0] / len(values) for values in found]
    return edges, shares[0], shares[1]
