"""Panel: the collapse metrics of one embedding beside their baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.baselines import baseline
from fullrank.collapse.blemishes import RowFacts
from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.metrics.clusters import TightClusters, tight_clusters
from fullrank.collapse.moments import Moments, centred_rows, unit_rows
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import UsageError
from fullrank.figures.style import number

EVEN = 0.05  # a spectrum that ends abruptly is even before: from its middle to there it falls to no less
MANY_ROWS = 0.1  # of all rows, that must take part in the directions of a layer
NOISE = 0.05  # of the variance, at most, that directions of noise have together
ABRUPT = 30.0  # times that the last direction exceeds the next
LINE, LINE_ROWS = 1.5, 256  # participation ratio of so many rows, below which they lie along a line
SHOWN_ROWS = 8  # measures that `print` shows
NOT_SHOWN = ("centred_share", "rankme_unit", "numerical_rank", "linked_share")  # others say nearly the same
NARROWEST_LAYER = 32  # directions; a spectrum that ends before is a collapse, for hardly a layer is so narrow


@dataclass(frozen=True)
class Measure:
    """One value with everything that is needed to read it.

    Attributes:
        name: the metric, a key of `METRICS`.
        value: the value, None where it is not defined (a rank of a constant, a spread of one row).
        null: what isotropic Gaussian rows of the same n and d would read, None where that is not defined.
        n: how many rows (or pairs) it was computed from.
        d: their width.
    """

    name: str
    value: float | None
    null: float | None
    n: int
    d: int


@dataclass(frozen=True)
class Panel:
    """All measures and spectra of one tap.

    Attributes:
        tap: which embedding: backbone, projector, predictor, ...
        n: rows seen.
        d: their width.
        measures: metric name to `Measure`; `alignment` only where pairs of views were given.
        facts: counts of copies, outliers and odd dimensions, where all rows were seen for them.
        clusters: jump of the distances around rows, and clusters where there are some; None where they were
            not sought.
        narrowest: width of the narrowest layer before the rows, where known or read off the spectrum.
        signal: directions that stand out where all others together are noise; None where none do.
        spectra: "centred", singular values of the centred raw rows / sqrt(n - 1): standard deviations along
            the principal directions; "unit", singular values of the uncentred unit rows / sqrt(n).

    Example:
        >>> import torch
        >>> z = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
        >>> panel = Panel.from_moments("projector", Moments.of(z), points=z[:500])
        >>> round(panel.value("level"), 2), round(panel.measures["rankme_unit"].null)
        (1.0, 16)
        >>> print(panel)  # doctest: +ELLIPSIS
        projector: 2,000 rows of width 16
        measure ...
    """

    tap: str
    n: int
    d: int
    measures: dict[str, Measure]
    spectra: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    facts: RowFacts | None = None
    clusters: TightClusters | None = None
    narrowest: int | None = None
    signal: int | None = None

    @classmethod
    def from_statistics(
        cls,
        tap: str,
        seen: EmbeddingStatistics,
        pairs: tuple[Tensor, Tensor] | None = None,
        narrowest: int | None = None,
        spectra: Spectra | None = None,
    ) -> Panel:
        """Compute a panel from finished statistics; see `from_moments` for the rest."""
        return cls.from_moments(
            tap, spectra or seen.moments, seen.sample.rows, pairs, seen.sketch.rows, seen.facts, narrowest
        )

    @classmethod
    def from_moments(
        cls,
        tap: str,
        moments: Moments | Spectra,
        points: Tensor | None = None,
        pairs: tuple[Tensor, Tensor] | None = None,
        sketch: Tensor | None = None,
        facts: RowFacts | None = None,
        narrowest: int | None = None,
    ) -> Panel:
        """Compute a panel from moments.

        Args:
            tap: the name of the embedding.
            moments: of its rows, or their spectra, each of which is then computed no more than once.
            points: [k, d], a sample of the rows for `uniformity`, which costs k^2 d.
            pairs: two [k, d] of embeddings of two views of the same images, for `alignment`.
            sketch: [m, 64], more rows in fewer dimensions, for clusters; `points` by default.
            facts: counts of copies, outliers and dimensions.
            narrowest: width of the narrowest layer before the rows; read off an abrupt end of the spectrum
                where it is not known.

        Raises:
            UsageError: the moments have seen no rows; points or pairs are not finite or not of one shape; no
                layer is so narrow.
        """
        if narrowest is not None and narrowest < 1:
            raise UsageError(f"the narrowest layer is 1 wide or more, not {narrowest}")
        spectra = Spectra.of(moments)
        n, d = spectra.moments.count, spectra.moments.dim
        inputs: dict[str, tuple[int, tuple[Any, ...]]] = dict.fromkeys(OF_MOMENTS, (n, (spectra,)))
        clusters = None
        if points is not None and len(points):
            sought = points if sketch is None else sketch
            clusters = _clusters(sought, points)
            inputs |= {"points": (len(points), (points,)), "clusters": (len(sought), (clusters,))}
        if pairs is not None and len(pairs[0]):
            inputs["pairs"] = len(pairs[0]), pairs
        measures = {}
        chosen = [metric for metric in METRICS.values() if metric.panel and metric.needs in inputs]
        for metric in sorted(chosen, key=lambda metric: metric.panel):
            k, given = inputs[metric.needs]
            value = metric.value_of(clusters) if metric.needs == "clusters" else metric(*given)
            measures[metric.name] = Measure(metric.name, value, baseline(metric.name, k, d), k, d)
        shown = {"centred": spectra.centred / max(n - 1, 1) ** 0.5, "unit": spectra.unit / n**0.5}
        return cls(
            tap,
            n,
            d,
            measures,
            shown,
            facts,
            clusters,
            narrowest or _read_off(shown["centred"], n, facts, clusters, points),
            standing_out(shown["centred"]),
        )

    def __str__(self) -> str:
        """At most ten lines: the size, and the main measures beside their baseline."""
        rows = [m for name, m in self.measures.items() if name not in NOT_SHOWN][:SHOWN_ROWS]
        labels = {m.name: METRICS[m.name].label if m.name in METRICS else m.name for m in rows}
        wide = max(map(len, ["measure", *labels.values()]))
        return "\n".join(
            [
                f"{self.tap}: {self.n:,} rows of width {self.d:,}",
                f"{'measure':<{wide}}  {'value':>7}  isotropic",
                *(f"{labels[m.name]:<{wide}}  {number(m.value):>7}  {number(m.null):>9}" for m in rows),
            ]
        )

    def __repr__(self) -> str:
        return f"Panel({self.tap!r}, n={self.n}, d={self.d}, level={number(self.value('level'))})"

    @property
    def possible(self) -> int:
        """Directions that rows could span: the least of d, n - 1 and the narrowest layer."""
        return max(min(self.d, self.n - 1, self.narrowest or self.d), 0)

    def value(self, name: str) -> float | None:
        """The value of a metric; None where it is not defined or not in this panel."""
        measure = self.measures.get(name)
        undefined = measure is None or measure.value is None or math.isnan(measure.value)
        return None if measure is None or undefined else measure.value

    def without_spectra(self) -> Panel:
        """The measures alone: a few numbers, to be kept as history."""
        return replace(self, spectra={})

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without spectra."""
        measures = {m.name: {"value": m.value, "null": m.null, "n": m.n} for m in self.measures.values()}
        own: dict[str, Any] = {"tap": self.tap, "n": self.n, "d": self.d, "measures": measures}
        if self.clusters is not None:
            own["clusters"] = asdict(self.clusters)
        for name in ("narrowest", "signal"):
            if getattr(self, name) is not None:
                own[name] = getattr(self, name)
        return own | ({"facts": asdict(self.facts)} if self.facts else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Panel:
        """The panel that `as_dict` wrote, without its spectra.

        Example:
            >>> import torch
            >>> panel = Panel.from_moments("backbone", Moments.of(torch.eye(4)))
            >>> Panel.from_dict(panel.as_dict()) == panel
            True
        """
        measures = {
            name: Measure(name, m["value"], m["null"], m["n"], data["d"])
            for name, m in data["measures"].items()
        }
        facts = RowFacts.from_dict(data["facts"]) if "facts" in data else None
        clusters = None
        if "clusters" in data:
            clusters = TightClusters(**{**data["clusters"], "jumps": tuple(data["clusters"]["jumps"])})
        return cls(
            data["tap"],
            data["n"],
            data["d"],
            measures,
            {},
            facts,
            clusters,
            data.get("narrowest"),
            data.get("signal"),
        )


def _clusters(rows: Tensor, sample: Tensor) -> TightClusters | None:
    """Tight clusters of the rows' directions, or of the rows where these tell more.

    Embeddings are compared by their cosine: lengths that vary hide clusters of directions, and a few long
    rows make all others look like one. Where rows lie along one line, their directions are two points; and a
    sample shows only so many clusters.
    """
    found = tight_clusters(rows)
    if found is None or sample.shape[1] < 3:
        return found
    centred = centred_rows(sample.double())
    eigenvalues = torch.linalg.svdvals(centred[:LINE_ROWS]).square()
    line = float(eigenvalues.sum().square() / eigenvalues.square().sum().clamp(min=1e-300)) < LINE
    directions = None if line else tight_clusters(unit_rows(sample.double()))
    if directions is None or (found.jump > directions.jump and found.count > directions.most / 4):
        return found
    return directions


def _read_off(
    singular_values: np.ndarray,
    n: int,
    facts: RowFacts | None,
    clusters: TightClusters | None,
    points: Tensor | None,
) -> int | None:
    """`abrupt_end`, unless clusters, idle dimensions or a few odd rows account for it."""
    if clusters is not None and clusters.found:
        return None
    end = abrupt_end(singular_values, n)
    idle = 0 if facts is None else facts.dead + facts.twins
    if end is None or end >= 0.9 * (len(singular_values) - idle):
        return None
    return end if points is None or _many_rows(points, end) else None


def _many_rows(points: Tensor, end: int) -> bool:
    """Whether many rows have a part in the latter half of the directions before `end`."""
    x = centred_rows(points.double())
    directions = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, end // 2 : end]
    energy = (x @ directions).square().sum(1)
    shared = energy.sum().square() / energy.square().sum().clamp(min=1e-300)
    return float(shared) > MANY_ROWS * len(x)


def abrupt_end(singular_values: np.ndarray, n: int) -> int | None:
    """Number of directions before a spectrum ends abruptly; None where it does not.

    Args:
        singular_values: [k], largest first.
        n: rows; fewer than a fifth more than the directions end every spectrum.

    Example:
        >>> abrupt_end(np.array([*np.linspace(2, 1, 64), *64 * [1e-7]]), n=1000)
        64
        >>> abrupt_end(np.arange(1, 129) ** -2.0, n=1000) is None
        True
    """
    s = np.asarray(singular_values)
    ends = np.flatnonzero(s[:-1] > ABRUPT * s[1:]) + 1 if len(s) else s
    for end in ends[::-1]:
        even = s[end - 1] >= EVEN * s[end // 2]
        if NARROWEST_LAYER <= end <= 0.9 * len(s) and n >= 1.2 * end and even:
            return int(end)
    return None


def standing_out(singular_values: np.ndarray) -> int | None:
    """Number of directions, a few, beside which all others are noise; else None.

    Args:
        singular_values: [k], largest first.

    Example:
        >>> standing_out(np.array([*4 * [10.0], *60 * [0.03]])), standing_out(np.arange(1, 65) ** -2.0)
        (4, None)
    """
    s = np.asarray(singular_values, dtype=float)
    for end in np.flatnonzero(s[:-1] > ABRUPT * s[1:]) + 1:
        if end < NARROWEST_LAYER and np.square(s[end:]).sum() < NOISE * np.square(s).sum():
            return int(end)
    return None
