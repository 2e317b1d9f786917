"""Figures that runs, audits and comparisons share, such as spectra."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fullrank.collapse import cumulative_curve
from fullrank.collapse.metrics._spectrum import isotropic_singular_values
from fullrank.figures import Heat, Lines, Series, curve
from fullrank.figures.style import ARM_COLOURS, BLUE, GREY, OCHRE, ORANGE, count, number

DASHES = {"isotropic": "dash", "eigenvalues 1/k": "dot"}
FORMS = (("centred", "centred", BLUE), ("unit", "unit rows, not centred", OCHRE))
FLOOR = 1e-7  # relative singular values below are rounding
DECADES = -4.0  # log10 of the smallest relative singular value that a map tells apart
MOST_POINTS, MOST_PLACES, MOST_ROWS, MOST_COLUMNS = 2000, 512, 256, 120
INDEX = "index of the singular value (1 = largest)"


class Shown(NamedTuple):
    """A metric with a small figure of its own, over depth or over epochs."""

    metric: str
    label: str
    per_dimension: bool
    least: float | None = 0.0

    def over(self, value: float | None, d: int | None) -> float | None:
        """The value as it is shown: for each of d dimensions where that compares taps."""
        return value / (d or 1) if value is not None and self.per_dimension else value

    def lines(self, x: str, note: str, series: Sequence[Series], ticks: Mapping[str, float]) -> Lines:
        """Its figure."""
        y_range = None if self.least is None else (self.least, None)
        title = self.label[0].upper() + self.label[1:]
        return Lines(title, note, x, self.label, series, y_range=y_range, ticks=ticks, height=250)


SHOWN = (
    Shown("level", "level", False),
    Shown("erank_centred", "effective rank / d", True),
    Shown("rankme_unit", "RankMe of unit rows / d", True),
    Shown("participation_ratio", "participation ratio / d", True),
    Shown("auc", "AUC", False, None),
    Shown("uniformity", "uniformity", False, None),
)


def relative(singular_values: np.ndarray) -> np.ndarray | None:
    """Scale a spectrum so that its squares sum to 1; None where it is zero.

    Example:
        >>> relative(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    total = float(np.sqrt(np.square(singular_values).sum()))
    return singular_values / total if total > 0 else None


def references(n: int, d: int) -> dict[str, np.ndarray]:
    """Relative spectra of n isotropic rows, and of covariance eigenvalues 1/k.

    Example:
        >>> {name: len(values) for name, values in references(100, 64).items()}
        {'isotropic': 64, 'eigenvalues 1/k': 64}
    """
    power = np.arange(1, d + 1)[: max(min(n - 1, d), 1)] ** -0.5
    spectra = {"isotropic": relative(isotropic_singular_values(n, d)), "eigenvalues 1/k": relative(power)}
    return {name: values for name, values in spectra.items() if values is not None}


def spectrum_curve(
    values: np.ndarray, name: str, colour: str, dash: str = "solid", floor: float = 0.0, **drawing: Any
) -> Series:
    """One spectrum over its index, without what is not above the floor."""
    kept = [float(value) if value > floor else None for value in values]
    return curve(name, range(1, len(kept) + 1), kept, colour, dash, **drawing)


def spectrum(spectra: Mapping[str, np.ndarray], n: int, d: int) -> Lines:
    """Relative singular values beside both references and the ceiling of n rows.

    The spectra are "centred" and "unit", as `Panel.spectra` has them; d is the width of the rows.

    Example:
        >>> [s.name for s in spectrum({"centred": np.ones(8)}, 100, 8).series]
        ['centred', 'isotropic', 'eigenvalues 1/k']
    """
    shown = [
        spectrum_curve(values, name, colour, floor=FLOOR)
        for form, name, colour in FORMS
        if form in spectra and (values := relative(spectra[form])) is not None
    ]
    if shown:
        shown += [
            spectrum_curve(values, name, GREY, DASHES[name], FLOOR, width=1.4, marker="none")
            for name, values in references(n, d).items()
        ]
        if 1 < n <= d:
            name, hover = f"n - 1 = {count(n - 1)}", f"{count(n)} rows show at most {count(n - 1)} directions"
            shown.append(curve(name, [n - 1] * 2, [10 * FLOOR, 1.0], ORANGE, width=1.4, hover=hover))
    note = (
        "Squares sum to 1: only shapes compare. A cliff marks directions that are lost; a first value that "
        "stands alone without centring is a common mean."
    )
    return Lines("Log spectrum", note, INDEX, "singular value, relative", shown, log_y=True, height=360)


def cumulative(spectra: Mapping[str, np.ndarray], n: int, d: int) -> Lines:
    """Cumulative curves of centred spectra with AUC (2209.15007), and references."""
    arms = dict(zip(spectra, ARM_COLOURS, strict=False))
    shown = []
    for name, values in {**spectra, **references(n, d)}.items():
        shares = cumulative_curve(values, d)
        if shares is None:
            continue
        heights = np.concatenate([[0.0], shares[:d]])
        kept = np.unique(np.linspace(0, d, min(d + 1, MOST_PLACES)).round().astype(int))
        area = f"{name}, AUC {number(float(heights[1:].mean()))}"
        drawing = {"width": 2.2 if name in arms else 1.4, "hover": name, "marker": "none"}
        colour, dash = arms.get(name, GREY), DASHES.get(name, "solid")
        shown.append(curve(area, short(kept / d), short(heights[kept]), colour, dash, **drawing))
    note = "Near the dashed line: directions are used alike. Near the upper left corner: few hold everything."
    return Lines(
        "Cumulative curve", note, "share of the directions", "share of the spectrum they hold",
        shown if len(shown) > len(references(n, d)) else [], percent=True, percent_x=True,
        x_range=(-0.01, 1.01), y_range=(0, 1.03), height=360,
    )  # fmt: skip


def compared_spectra(spectra: Mapping[str, tuple[np.ndarray, int]]) -> Lines:
    """Relative spectra of embeddings of several widths, over share of directions."""
    shown = []
    for (name, (values, d)), colour in zip(spectra.items(), ARM_COLOURS, strict=False):
        if len(values) and values[0] > 0:
            kept = [float(v) if v > FLOOR else None for v in values / values[0]]
            shown.append(
                curve(name, [(k + 1) / d for k in range(len(kept))], kept, colour, hover=f"{name}, d = {d}")
            )
    note = "Centred, each relative to its largest value."
    x, y = "share of the directions", "singular value, relative to the largest"
    return Lines("Two spectra", note, x, y, shown, log_y=True, percent_x=True, height=360)


def spectrum_over_time(
    spectra: Mapping[int, np.ndarray],
    title: str = "Spectrum over time",
    note: str = "Each column is an epoch. Bright to the bottom: all directions live. Dark: dead ones.",
    height: int = 340,
    of: int = 1,
) -> Heat:
    """Spectra over epochs as a heat map, relative to each epoch's largest value.

    Of several maps on a page, `of` of them, each is coarser and tells no values.
    """
    coarse = max(1.0, math.sqrt(of / 2))
    epochs = picked(sorted(spectra), max(30, int(MOST_COLUMNS / coarse)))
    d = min((len(spectra[epoch]) for epoch in epochs), default=0)
    most = max(40, int(MOST_ROWS / coarse))
    rows = [int(row) for row in np.unique(np.linspace(0, d - 1, min(d, most)).round())]
    z: Any = []
    if rows:
        table = np.stack([spectra[epoch][:d] for epoch in epochs], axis=1)
        largest = table.max(axis=0)
        share = np.divide(table, largest, out=np.zeros_like(table), where=largest > 0)[rows]
        z = np.log10(np.maximum(share, 10.0**DECADES)).astype(np.float32)
    ticks = {"σ₁": 0.0, "0.1 σ₁": -1.0, "0.01 σ₁": -2.0, "10⁻³ σ₁": -3.0, "≤ 10⁻⁴ σ₁": -4.0}
    return Heat(
        title, note, "epoch", "index (1 = largest)", z, "log₁₀ σ/σ₁",
        columns=epochs, rows=[row + 1 for row in rows],
        z_range=(DECADES, 0.0), z_ticks=ticks, height=height, said=of <= 2,
    )  # fmt: skip


def noise_curve(
    x: Sequence[float], baselines: Sequence[float | None], colour: str, **drawing: Any
) -> Iterator[Series]:
    """Dashed line of isotropic noise of the same n and d, where it is known."""
    if any(value is not None for value in baselines):
        marker = "bar" if len(x) == 1 else "none"  # a line of one point is invisible
        drawing = {"width": 1.4, "opacity": 0.75, "size": 12, "marker": marker, **drawing}
        yield curve("isotropic", x, baselines, colour, "dash", **drawing)


def class_points(
    places: np.ndarray, labels: np.ndarray | None, at: Sequence[str], names: Sequence[str] | None = None
) -> list[Series]:
    """Rows on a plane [m, 2], a cloud for each class; unlabelled ones lie below."""
    groups = np.zeros(len(places), int) if labels is None else labels
    clouds = []
    few = len(np.unique(groups)) <= len(ARM_COLOURS) + 1  # beyond it colours repeat: no legend
    for label in np.unique(groups):
        rows = np.flatnonzero(groups == label)
        named = names is not None and 0 <= label < len(names)
        name = "no label" if label < 0 else names[int(label)] if named and names else f"class {label}"
        colour = BLUE if labels is None else GREY if label < 0 else ARM_COLOURS[label % len(ARM_COLOURS)]
        clouds.append(
            Series(
                "" if labels is None else name, short(places[rows, 0]), [short(places[rows, 1])], "points",
                colour=colour, opacity=0.65, size=4.5, legend=few, at=[at[int(row)] for row in rows],
            )
        )  # fmt: skip
    return clouds


def short(values: np.ndarray) -> list[float]:
    """Numbers of five digits: a page need not carry more."""
    return [float(f"{value:.5g}") for value in values]


def file_name(tap: str) -> str:
    """A tap as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in tap)


def thin(
    x: Sequence[float], y: Sequence[float | None], most: int = MOST_POINTS
) -> tuple[list[float], list[float | None]]:
    """Thin a series to some `most` points, the extremes of every stretch.

    Example:
        >>> thin([1, 2, 3], [0.5, None, 0.2])
        ([1, 2, 3], [0.5, None, 0.2])
        >>> xs, ys = thin(range(100_000), [0.0] * 50_000 + [9.0] + [0.0] * 49_999)
        >>> len(xs) <= 2002, max(ys)
        (True, 9.0)
    """
    if len(x) <= most:
        return list(x), list(y)
    stretch = math.ceil(2 * len(x) / most)
    kept: set[int] = {0, len(x) - 1}
    for start in range(0, len(x), stretch):
        inside = range(start, min(start + stretch, len(x)))
        there = {index: value for index in inside if (value := y[index]) is not None}
        kept |= {min(there, key=there.__getitem__), max(there, key=there.__getitem__)} if there else {start}
    chosen = sorted(kept)
    return [x[index] for index in chosen], [y[index] for index in chosen]


def picked(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
