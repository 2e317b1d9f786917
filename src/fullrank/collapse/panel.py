"""Panel: the collapse metrics of one embedding beside their baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.collapse.baselines import baseline
from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Spectra
from fullrank.collapse.metrics.clusters import tight_clusters
from fullrank.collapse.moments import Moments

CLUSTER_POINTS = 1024  # linking them costs their square; ten rows a cluster show it


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
        spectra: "centred", singular values of the centred raw rows / sqrt(n - 1): standard deviations along
            the principal directions; "unit", singular values of the uncentred unit rows / sqrt(n).

    Example:
        >>> import torch
        >>> z = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
        >>> panel = Panel.from_moments("projector", Moments.of(z), points=z[:500])
        >>> round(panel.value("level"), 2), round(panel.measures["rankme_unit"].null)
        (1.0, 16)
    """

    tap: str
    n: int
    d: int
    measures: dict[str, Measure]
    spectra: dict[str, np.ndarray] = field(default_factory=dict, compare=False)

    @classmethod
    def from_moments(
        cls,
        tap: str,
        moments: Moments | Spectra,
        points: Tensor | None = None,
        pairs: tuple[Tensor, Tensor] | None = None,
    ) -> Panel:
        """Compute a panel from moments.

        Args:
            tap: the name of the embedding.
            moments: of its rows, or their spectra, each of which is then computed no more than once.
            points: [k, d], a sample of the rows for `uniformity`, which costs k^2 d.
            pairs: two [k, d] of embeddings of two views of the same images, for `alignment`.

        Raises:
            UsageError: the moments have seen no rows; points or pairs are not finite or not of one shape.
        """
        spectra = Spectra.of(moments)
        n, d = spectra.moments.count, spectra.moments.dim
        inputs: dict[str, tuple[int, tuple[Any, ...]]] = dict.fromkeys(OF_MOMENTS, (n, (spectra,)))
        clusters = None
        if points is not None and len(points):
            linked = points[:CLUSTER_POINTS]
            clusters = tight_clusters(linked)
            inputs |= {"points": (len(points), (points,)), "clusters": (len(linked), (clusters,))}
        if pairs is not None and len(pairs[0]):
            inputs["pairs"] = len(pairs[0]), pairs
        measures = {}
        chosen = [metric for metric in METRICS.values() if metric.panel and metric.needs in inputs]
        for metric in sorted(chosen, key=lambda metric: metric.panel):
            k, given = inputs[metric.needs]
            value = metric.value_of(clusters) if metric.needs == "clusters" else metric(*given)
            measures[metric.name] = Measure(metric.name, value, baseline(metric.name, k, d), k, d)
        if clusters is not None:
            measures["linked_share"] = replace(measures["linked_share"], null=clusters.surrogate_share)
        shown = {"centred": spectra.centred / max(n - 1, 1) ** 0.5, "unit": spectra.unit / n**0.5}
        return cls(tap, n, d, measures, shown)

    def value(self, name: str) -> float | None:
        """The value of a metric; None where it is not defined or not in this panel."""
        measure = self.measures.get(name)
        return None if measure is None else measure.value

    def without_spectra(self) -> Panel:
        """The measures alone: a few numbers, to be kept as history."""
        return replace(self, spectra={})

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without spectra."""
        measures = {m.name: {"value": m.value, "null": m.null, "n": m.n} for m in self.measures.values()}
        return {"tap": self.tap, "n": self.n, "d": self.d, "measures": measures}

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
        return cls(data["tap"], data["n"], data["d"], measures)
