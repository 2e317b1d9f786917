"""Figures of one run, for its page and for a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fullrank.figures import Figure, Lines, Series, curve
from fullrank.figures.style import BLUE, GREEN, GREY, OCHRE, PALETTE, PURPLE, along_ramp, count, tap_colour
from fullrank.report.curves import (
    INDEX,
    SHOWN,
    cumulative,
    file_name,
    noise_curve,
    picked,
    spectrum,
    spectrum_curve,
    spectrum_over_time,
    thin,
)
from fullrank.report.run.reading import Point, Run, read_run
from fullrank.report.run.summary import start_of, threshold_of

RANKS = (
    ("erank_centred", "erank, centred", BLUE),
    ("rankme_uncentred", "RankMe", OCHRE),
    ("rankme_unit", "RankMe, unit rows", PURPLE),
)
OF_CODES = (
    ("marginal_entropy", "entropy of the mean assignment", BLUE),
    ("conditional_entropy", "mean entropy of an image's own", PURPLE),
    ("dead_share", "share of codes nobody prefers", OCHRE),
)
FORMS = ("centred", "unit")
MODES = 64  # lines of a picture of trajectories

T = TypeVar("T")


def by_tap(run: Run, figure: Callable[[Run, str], Lines]) -> dict[tuple[str, ...], Lines]:
    """A figure of every tap that has one."""
    return {(tap,): found for tap in run.taps if not (found := figure(run, tap)).empty}


def by_form(run: Run, figure: Callable[[Mapping[int, np.ndarray]], T]) -> dict[tuple[str, ...], T]:
    """A figure of the spectra of every tap, with and without centring."""
    return {
        (tap, form): figure(spectra)
        for tap in run.taps
        for form in FORMS
        if (spectra := run.spectra(tap, form))
    }


def loss(run: Run) -> Lines:
    """Loss of every logged step; its terms wait in the legend.

    Example:
        >>> loss(Run(Path("runs/a"))).empty
        True
    """
    steps = [row.step for row in run.steps]
    xs, ys = thin(steps, [row.loss for row in run.steps])
    series = [curve("loss", xs, ys, BLUE, width=1.4)]
    terms = sorted({name for row in run.steps for name in row.terms})
    for index, name in enumerate(terms if len(terms) > 1 else []):
        xs, ys = thin(steps, [row.terms.get(name) for row in run.steps])
        series.append(curve(name, xs, ys, PALETTE[1:][index % 5], width=1, hidden=True))
    ended = [row for row in run.epochs if row.loss is not None]
    if ended:
        at = [f"epoch {row.epoch}" for row in ended]
        means = [row.loss for row in ended]
        mean: dict[str, Any] = {"size": 6, "at": at, "hover": "mean of the epoch"}
        series.append(curve("loss", [row.step for row in ended], means, BLUE, "points", legend=False, **mean))
    shown = "Every logged step" if run.every == 1 else f"One in {run.every:,} of the logged steps"
    note = f"{shown}, not smoothed. Dots: means of epochs. A perfect loss is also what collapse looks like."
    return Lines("Loss", note, "step", "training loss", series)


def level(run: Run) -> Lines:
    """Normalized std (level) of every tap, in batches and on held-out images."""
    series = []
    for tap in run.taps:
        colour = tap_colour(tap, run.taps)
        rows = [row for row in run.steps if tap in row.level]
        xs, ys = thin([row.step for row in rows], [row.level[tap] for row in rows])
        if xs:
            series.append(curve(tap, xs, ys, colour, width=1.6, hover=f"{tap}, batch", marker="line"))
        if points := run.measures(tap, "level"):
            at, steps = [f"epoch {p.epoch}" for p in points], [p.step for p in points]
            values, hover = [p.value for p in points], f"{tap}, held-out"
            series.append(curve(tap, steps, values, colour, "points", size=6, at=at, hover=hover))
    note = "Lines: training batches. Dots: held-out images. Falling to 0 is complete collapse."
    threshold = threshold_of(run.verdict)
    return Lines(
        "Level", note, "step", LEVEL, series, level_references(threshold), y_range=level_range(series)
    )


LEVEL = "normalized std (level)"


def level_references(threshold: float | None) -> dict[str, float]:
    """Level lines: isotropic rows, and the threshold of complete collapse."""
    collapse = {} if threshold is None else {f"below {threshold:g}: complete collapse": threshold}
    return {"isotropic: 1": 1.0, **collapse}


def level_range(series: Sequence[Series]) -> tuple[float, float]:
    """Range of a level axis: from 0 to above 1."""
    return 0.0, max([1.12, *(1.05 * y for s in series for ys in s.ys for y in ys if y is not None)])


def ranks(run: Run, tap: str) -> Lines:
    """Three effective ranks over epochs, each beside isotropic noise."""
    n, d = run.size(tap)
    series: list[Series] = []
    for name, label, colour in RANKS:
        points = run.measures(tap, name)
        hover = f"{label} of d = {count(d)}, n = {count(n)}"
        series += _measured(points, label, colour, hover=hover)
    note = "Solid: measured. Dashed: isotropic noise with the same n and d."
    y = "effective rank (directions in use)"
    return Lines("Effective ranks", note, "epoch", y, series, y_range=(0, None))


def _measured(points: Sequence[Point], name: str, colour: str, hover: str = "") -> Iterator[Series]:
    """A measure over epochs with its baseline dashed."""
    if points:
        epochs = [point.epoch for point in points]
        yield curve(name, epochs, [p.value for p in points], colour, marker="circle", size=6, hover=hover)
        yield from noise_curve(epochs, [p.null for p in points], colour, hover=f"isotropic, {name}")


def log_spectra(spectra: Mapping[int, np.ndarray], most: int = 6, start: str = "untrained") -> Lines:
    """Spectra of a few epochs, from the first (faint) to the last (strong)."""
    shown = picked(sorted(spectra), most)
    series = []
    for place, epoch in enumerate(shown):
        opacity = 1.0 if epoch == 0 else 0.25 + 0.75 * place / max(1, len(shown) - 1)
        name, colour, dash = (start, GREY, "dot") if epoch == 0 else (f"epoch {epoch}", BLUE, "solid")
        width = 2.4 if epoch == shown[-1] else 1.7
        series.append(
            spectrum_curve(spectra[epoch], name, colour, dash, opacity=opacity, width=width, marker="none")
        )
    note = f"Faint is early, strong is late, dotted is the network {start}. A cliff marks dead directions."
    return Lines("Spectra, first to last", note, INDEX, "singular value σ", series, log_y=True, height=340)


def alignment_uniformity(run: Run) -> Lines:
    """Path of alignment against uniformity over epochs, a line for each tap."""
    series: list[Series] = []
    for tap in run.taps:
        aligned = {point.epoch: point.value for point in run.measures(tap, "alignment")}
        path = [
            (point.value, aligned[point.epoch], f"{tap}, epoch {point.epoch}")
            for point in run.measures(tap, "uniformity")
            if point.value is not None and aligned.get(point.epoch) is not None
        ]
        if path:
            xs, ys, at = zip(*path, strict=True)
            colour, untrained = tap_colour(tap, run.taps), at[0].endswith("epoch 0")
            series += [
                curve(tap, xs, ys, colour, width=1.4, size=4, at=at, marker="circle"),
                curve(tap, xs[-1:], ys[-1:], colour, "points", size=11, at=at[-1:], marker="circle"),
                *[curve(tap, xs[:1], ys[:1], colour, "points", size=8, at=at[:1], marker="diamond")]
                * untrained,
            ]
    isotropic = [p.null for tap in run.taps for p in run.measures(tap, "uniformity") if p.null is not None]
    start = start_of(run.config)
    note = f"From the network {start} (diamond) to the last epoch (large dot). Low and left: good."
    x, y = "uniformity (lower: more evenly spread)", "alignment (lower: views agree more)"
    marks = {"isotropic": isotropic[0]} if isotropic else {}
    return Lines("Alignment and uniformity", note, x, y, series, marks=marks)


def accuracies(run: Run, probe: str) -> tuple[list[int], list[float]]:
    """Epochs and top-1 accuracy of `knn` or of the online `probe`."""
    known = {row.epoch: top1 for row in run.epochs if (top1 := row.accuracy(probe)) is not None}
    return list(known), list(known.values())


def knn(run: Run) -> Lines:
    """k-NN and online linear accuracy over epochs, beside the network of epoch 0."""
    start = start_of(run.config)
    epochs, values = accuracies(run, "knn")
    about = run.last("knn") or {}
    series = [curve("k-NN", epochs, values, GREEN, marker="circle", size=6)]
    if epochs[:1] == [0]:
        first: dict[str, Any] = {"marker": "diamond", "size": 10, "legend": False, "hover": start}
        series.append(curve("k-NN", [0], values[:1], GREEN, "points", **first))
    where, linear = accuracies(run, "probe")
    if epochs and where:
        series.append(curve("linear, online", where, linear, BLUE, "dash"))
    note = (
        "What the features are worth. Staying at the dotted line means nothing was learned. "
        "Dashed: a linear classifier trained beside the method."
    )
    y = f"k-NN top-1 (k = {about.get('k')}, {count(about.get('bank'))} images)"
    references = {f"network {start}: {values[0]:.1%}": values[0]} if epochs[:1] == [0] else {}
    return Lines(
        "k-NN and linear accuracy", note, "epoch", y, series, references, percent=True, y_range=(0, None)
    )


def codes(run: Run) -> Lines:
    """Use of codes over epochs, as shares of ln K; empty for a method without codes.

    Healthy: the upper line near 1, the lower one well below it. Both near 1: every image is assigned to all
    codes. Both near 0: one code for all.
    """
    rows = [(row.epoch, row.usage) for row in run.epochs if row.usage]
    k = rows[-1][1]["codes"] if rows else None
    series = [
        curve(label, [epoch for epoch, _ in rows], [usage.get(key) for _, usage in rows], colour)
        for key, label, colour in OF_CODES
    ]
    unique = [(row.epoch, row.unique_prototypes) for row in run.epochs if row.unique_prototypes is not None]
    if unique:
        epochs, shares = zip(*unique, strict=True)
        series.append(curve("share of unique prototypes", list(epochs), list(shares), GREEN))
    note = "Upper line near 1: all codes are in use. Lower line near 1 too: every image uses all."
    y = f"share of ln K (K = {count(k)})"
    return Lines("Use of codes", note, "epoch", y, series, {"ln K": 1.0}, y_range=(0, None))


def rank_difference(run: Run) -> Lines:
    """Effective rank of the target less that of the online output."""
    rows = [row for row in run.epochs if row.rank_difference is not None]
    values = [row.rank_difference for row in rows]
    series = [curve("difference", [row.epoch for row in rows], values, BLUE)]
    note = "Above 0 the target's rank pulls the online branch up, which holds collapse off."
    y = "rank of target - rank of online"
    return Lines("Rank difference of the branches", note, "epoch", y, series, {"no difference": 0.0})


def predictor(run: Run) -> list[Lines]:
    """Alignment of the predictor with the projector's eigenvectors, and its filter."""
    index = "index of the eigenvector (1 = largest)"
    aligned, passed = (_by_epoch(run.spectra("predictor-map", form)) for form in ("alignment", "filter"))
    bounds = {"random map": 0.0, "shared eigenvectors": 1.0}
    alignment = "1: a direction of the projections is an eigenvector of the predictor. Faint is early."
    low_pass = "What passes of each direction. Falling to the right: a low-pass filter. Faint is early."
    y = "alignment of predictor and eigenvector"
    return [
        Lines("Predictor and eigenvectors", alignment, index, y, aligned, bounds),
        Lines(
            "Filter of the predictor", low_pass, index, "spectral filter of the predictor", passed, log_y=True
        ),
    ]


def _by_epoch(spectra: Mapping[int, np.ndarray]) -> list[Series]:
    """One line for each epoch with diagnostics, faint to strong."""
    strengths = np.linspace(0.25, 1.0, len(spectra)) if len(spectra) > 1 else [1.0]
    return [
        curve(f"epoch {epoch}", range(1, len(values) + 1), values.tolist(), BLUE, opacity=float(strength))
        for (epoch, values), strength in zip(spectra.items(), strengths, strict=False)
    ]


def over_epochs(run: Run, metric: str, title: str, note: str) -> Lines:
    """A metric of the diagnostics over epochs, a line a tap, beside isotropic noise."""
    series: list[Series] = []
    for tap in run.taps:
        points = [point for point in run.measures(tap, metric) if point.value is not None]
        series += _measured(points, tap, tap_colour(tap, run.taps))
    return Lines(title, note, "epoch", title, series)


def panels(run: Run) -> list[Lines]:
    """Six metrics of every tap over epochs, each beside isotropic noise."""
    taps = [tap for tap in run.taps if run.measures(tap, "level")]
    figures = []
    for shown in SHOWN if taps else ():
        measured, noise = [], {}
        for tap in taps:
            points, d = run.measures(tap, shown.metric), run.size(tap)[1]
            epochs, values = [point.epoch for point in points], [shown.over(p.value, d) for p in points]
            measured.append(curve(tap, epochs, values, tap_colour(tap, run.taps), marker="line"))
            baselines = tuple(shown.over(p.null, d) for p in points)
            noise[baselines] = list(noise_curve(epochs, baselines, GREY))  # taps of one shape share it
        series = [*measured, *(line for lines in noise.values() for line in lines)]
        figures.append(shown.lines("epoch", "", series, {}))
    return figures


def trajectories(spectra: Mapping[int, np.ndarray], modes: int = MODES) -> Lines:
    """Eigenvalues of the covariance over epochs, for up to 64 modes."""
    epochs, series = sorted(spectra), []
    if len(epochs) > 1:
        d = min(len(spectra[epoch]) for epoch in epochs)
        table = np.stack([spectra[epoch][:d] for epoch in epochs]) ** 2
        kept = np.where(table > 1e-10 * max(float(table.max()), 1e-300), table, np.nan)
        shown = [int(mode) for mode in np.unique(np.geomspace(1, d, min(d, modes)).round())]
        named = {shown[round(share * (len(shown) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)}
        for mode in shown[::-1]:
            colour = along_ramp(np.log(mode) / np.log(d) if d > 1 else 0.0)
            values = [None if np.isnan(value) else float(value) for value in kept[:, mode - 1]]
            name = f"mode {mode}"
            series.append(curve(name, epochs, values, colour, width=1.2, marker="none", legend=mode in named))
    note = "Dark: the largest. A mode that falls away has died."
    return Lines(
        "Eigenvalues over time", note, "epoch", "eigenvalue of the covariance", series[::-1], log_y=True
    )


def write_run_figures(run_dir: Path | str) -> list[Path]:
    """Write the figures of a run for a paper into its `figures/`; returns the files.

    Raises:
        UsageError: it is no run directory.
    """
    from fullrank.figures.matplotlib import write_figures

    return write_figures(paper_figures(read_run(run_dir)), Path(run_dir) / "figures")


def paper_figures(run: Run) -> Iterator[tuple[str, Figure | list[Lines]]]:
    """The figures of a run by name: panels over time, and of every tap its spectra."""
    yield "panels", panels(run)
    for tap in run.taps:
        spectra, name = run.spectra(tap, "centred"), file_name(tap)
        yield f"{name}-trajectories", trajectories(spectra)
        if len(spectra) > 1:
            yield f"{name}-spectra", spectrum_over_time(spectra)
        n, d = run.size(tap)
        if spectra and n and d:
            last = {form: found for form in FORMS if (found := run.spectra(tap, form))}
            shown = {form: found[max(found)] for form, found in last.items()}
            yield f"{name}-spectrum", spectrum(shown, n, d)
            ends = {f"epoch {epoch}": spectra[epoch] for epoch in sorted({min(spectra), max(spectra)})}
            yield f"{name}-cumulative", cumulative(ends, n, d)
