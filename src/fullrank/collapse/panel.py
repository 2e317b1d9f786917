"""Panel: the collapse metrics of one embedding beside their baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.alternatives import Alternative, Hypothesis
from fullrank.collapse.baselines import baseline
from fullrank.collapse.blemishes import RowFacts
from fullrank.collapse.decay import VIEWS
from fullrank.collapse.kmeans import in_fixed_order
from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.metrics.clusters import TightClusters, tight_clusters
from fullrank.collapse.moments import Moments, centred_rows, unit_rows
from fullrank.collapse.spectrum_ends import LEAST_WEIGHT, WIDTH, Layer, abrupt_end, standing_out
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.thresholds import beyond
from fullrank.errors import UsageError
from fullrank.figures.style import number

MANY_ROWS = 0.1  # of all rows, at the border, that take part in the directions of a layer
CERTAIN = 0.95  # that there is a layer, from which nothing is said of it
LINE, LINE_ROWS = 1.5, 256  # participation ratio of so many rows, below which they lie along a line
SHOWN_ROWS = 8  # measures that `print` shows
NOT_SHOWN = ("centred_share", "rankme_unit", "numerical_rank", "linked_share")  # others say nearly the same


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
        narrowest_weight: how probable it is that there is such a layer; 1 where it is known.
        signal: directions that stand out where all others together are noise; None where none do.
        signal_weight: how probable it is that these others are noise.
        alternatives: ranks with some rows, or the lengths of all, left out, where that is in doubt.
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
    signal_weight: float = 1.0
    alternatives: tuple[Alternative, ...] = ()
    narrowest_weight: float = 1.0

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
        found = cls.from_moments(
            tap, spectra or seen.moments, seen.sample.rows, pairs, seen.sketch.rows, seen.facts, narrowest
        )
        return replace(found, alternatives=seen.alternatives)

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
        signal = standing_out(shown["centred"])
        known = None if narrowest is None else Layer(narrowest, 1.0)
        layer = known or _read_off(shown["centred"], n, facts, clusters, points)
        return cls(
            tap,
            n,
            d,
            measures,
            shown,
            facts,
            clusters,
            layer.width if layer else None,
            signal and signal.directions,
            signal.weight if signal else 1.0,
            narrowest_weight=layer.weight if layer else 1.0,
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
    def layer(self) -> int | None:
        """Width of the narrowest layer, where there is likely one."""
        return self.narrowest if self.narrowest_weight >= 0.5 else None

    @property
    def possible(self) -> int:
        """Directions that rows could span: the least of d, n - 1 and the narrowest layer."""
        return max(min(self.d, self.n - 1, self.layer or self.d), 0)

    @property
    def within_living(self) -> int:
        """Directions that are possible among columns that are not constant."""
        return min(self.possible, self.d - (self.facts.dead if self.facts else 0))

    def value(self, name: str) -> float | None:
        """The value of a metric; None where it is not defined or not in this panel."""
        measure = self.measures.get(name)
        undefined = measure is None or measure.value is None or math.isnan(measure.value)
        return None if measure is None or undefined else measure.value

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Ranks under each hypothesis on which rows count, the most probable first."""
        left = max(1.0 - sum(alternative.weight for alternative in self.alternatives), 0.0)
        values = {name: self.value(name) for name in VIEWS}
        own = Alternative(left, self.n, values, "", self.signal, self.signal_weight)
        split = [
            under._replace(weight=share * under.weight, says="; ".join(filter(None, (under.says, says))))
            for share, possible, says in self._capacities
            for each in (own, *self.alternatives)
            for under in each.split(possible)
        ]
        return tuple(sorted((each for each in split if each.weight > 0), key=lambda each: -each.weight))

    @property
    def _capacities(self) -> tuple[tuple[float, int, str], ...]:
        """Directions that rows could span with a narrow layer and without one."""
        if self.narrowest is None:
            return ((1.0, self.d, ""),)
        share, within = self.narrowest_weight, min(self.d, self.narrowest)
        says = f"{within} are the width of a layer" if share < CERTAIN else ""
        return (share, within, says), (1 - share, self.d, "")

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
        if self.signal is not None:
            own["signal_weight"] = self.signal_weight
        if self.narrowest is not None:
            own["narrowest_weight"] = self.narrowest_weight
        if self.alternatives:
            own["alternatives"] = [asdict(alternative) for alternative in self.alternatives]
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
            data.get("signal_weight", 1.0),
            tuple(Alternative(**fields) for fields in data.get("alternatives", ())),
            data.get("narrowest_weight", 1.0),
        )


def _clusters(rows: Tensor, sample: Tensor) -> TightClusters | None:
    """Tight clusters of the rows' directions, or of the rows where these tell more.

    Embeddings are compared by their cosine: lengths that vary hide clusters of directions, and a few long
    rows make all others look like one. Two or more clusters of rows no lengths can make: of two sources of
    data one may lie around zero, where it has all directions. Where rows lie along one line, their directions
    are two points; in a plane clusters hide behind each other; and a sample shows only so many.
    """
    found = tight_clusters(rows)
    if found is None or sample.shape[1] < 3:
        return found
    directions = None if _along_a_line(sample) else tight_clusters(unit_rows(sample.double()))
    if directions is None:
        return found
    more = round(found.count) > directions.number  # also a little below the border, where both are one
    clearer = found.jump > directions.jump and (more or found.count > directions.most / 4)
    return found if clearer else directions


def _along_a_line(sample: Tensor) -> bool:
    """Whether rows in any order lie along one line, but for a few far out."""
    x = in_fixed_order(sample)[:: max(len(sample) // LINE_ROWS, 1)].double()
    x = x - x.median(dim=0).values
    distance = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    x = centred_rows(x * (distance.median() / distance.clamp(min=1e-300)).clamp(max=1.0))
    eigenvalues = torch.linalg.svdvals(x).square()
    return float(eigenvalues.sum().square() / eigenvalues.square().sum().clamp(min=1e-300)) < LINE


def _read_off(
    singular_values: np.ndarray,
    n: int,
    facts: RowFacts | None,
    clusters: TightClusters | None,
    points: Tensor | None,
) -> Layer | None:
    """`abrupt_end`, unless clusters, idle dimensions or a few odd rows account for it."""
    if clusters is not None and clusters.found:
        return None
    layer = abrupt_end(singular_values, n)
    idle = 0 if facts is None else facts.dead + facts.twins
    if layer is None or layer.width >= 0.9 * (len(singular_values) - idle):
        return None
    if points is None:
        return layer
    many = math.log(max(_rows_in(points, layer.width), 1e-300) / MANY_ROWS)
    weight = layer.weight * beyond(many, 0.0, WIDTH)
    return Layer(layer.width, weight) if weight > LEAST_WEIGHT else None


def _rows_in(points: Tensor, end: int) -> float:
    """Share of rows with a part in the latter half of directions before `end`."""
    x = centred_rows(points.double())
    directions = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, end // 2 : end]
    energy = (x @ directions).square().sum(1)
    return float(energy.sum().square() / energy.square().sum().clamp(min=1e-300)) / len(x)
