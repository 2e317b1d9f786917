"""The panel: every collapse metric of one embedding, each beside its value for a cloud without structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fullrank.collapse import nulls
from fullrank.collapse.catalogue import Spectra
from fullrank.collapse.clusters import tight_clusters
from fullrank.collapse.metrics import alignment, uniformity
from fullrank.collapse.moments import Moments
from fullrank.collapse.spectrum import auc, effective_rank, participation_ratio

__all__ = ["METRICS", "Measure", "Metric", "Panel"]


CLUSTER_POINTS = 1024  # linking them costs their square; ten rows a cluster show it


class Metric(NamedTuple):
    """What a metric of the panel is computed from, and its null value for n rows of width d."""

    variant: str
    null: Callable[[int, int], float | None]


def _no_null(n: int, d: int) -> float | None:
    """What is no function of n and d alone is filled in where it is measured."""
    return None


METRICS: dict[str, Metric] = {
    "level": Metric("sqrt(d) x mean std of unit rows", nulls.null_level),
    "centred_share": Metric("tr Cov / E||z||^2, raw rows", nulls.null_centred_share),
    "erank_centred": Metric("singular values, raw rows, centred", nulls.null_effective_rank),
    "rankme_uncentred": Metric("singular values, raw rows, not centred, eps 0", nulls.null_rankme),
    "rankme_unit": Metric("singular values, unit rows, not centred, eps 0", nulls.null_rankme),
    "participation_ratio": Metric("covariance eigenvalues, raw rows", nulls.null_participation_ratio),
    "auc": Metric("cumulative singular values, raw rows, centred; higher is worse", nulls.null_auc),
    "uniformity": Metric("unit rows, t = 2, a sample; higher is worse", nulls.null_uniformity),
    "linked_share": Metric(
        "variance within linked clusters, a sample; null: a Gaussian cloud linked alike", _no_null
    ),
    "tight_clusters": Metric("clusters found by linking nearest neighbours, a sample", _no_null),
    "alignment": Metric("squared distance of unit rows of two views, a sample", nulls.null_alignment),
}
"""The metrics that a panel may hold, in the order of reading."""


@dataclass(frozen=True)
class Measure:
    """One value with everything that is needed to read it.

    Attributes:
        name: the metric, a key of `METRICS`.
        value: the value, None where it is not defined (a rank of a constant, a spread of one row).
        null: what isotropic Gaussian rows of the same n and d would read, None where that is not defined.
        n: how many rows (or pairs) it was computed from.
        d: their width.
        variant: rows raw or unit, centred or not, singular values or eigenvalues.
    """

    name: str
    value: float | None
    null: float | None
    n: int
    d: int
    variant: str


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
        """Reads a panel off the moments.

        Args:
            tap: the name of the embedding.
            moments: of its rows, or their spectra, each of which is then computed no more than once.
            points: [k, d], a sample of the rows for `uniformity`, which costs k^2 d.
            pairs: two [k, d] of embeddings of two views of the same images, for `alignment`.

        Raises:
            UsageError: the moments have seen no rows; points or pairs are not finite or not of one shape.
        """
        spectra_of_rows = Spectra.of(moments)
        moments = spectra_of_rows.moments
        n, d = moments.count, moments.dim
        centred, uncentred, unit = spectra_of_rows.centred, spectra_of_rows.uncentred, spectra_of_rows.unit
        spread = n > 1  # nothing varies over a single row
        values = {
            "level": float(moments.unit.variances.sqrt().mean()) * d**0.5 if spread else None,
            "centred_share": moments.centred_share if spread else None,
            "erank_centred": effective_rank(centred),
            "rankme_uncentred": effective_rank(uncentred),
            "rankme_unit": effective_rank(unit),
            "participation_ratio": participation_ratio(centred**2),
            "auc": auc(centred, d),
        }
        measured = {name: (value, n) for name, value in values.items()}
        if points is not None and len(points):
            measured["uniformity"] = uniformity(points), len(points)
            linked = points[:CLUSTER_POINTS]
            clusters = tight_clusters(linked)
            share, count = (
                (clusters.within_share, clusters.count) if clusters and clusters.found else (1.0, 1)
            )
            measured["linked_share"] = share if clusters else None, len(linked)
            measured["tight_clusters"] = float(count) if clusters else None, len(linked)
        if pairs is not None and len(pairs[0]):
            measured["alignment"] = alignment(*pairs), len(pairs[0])
        measures = {
            name: Measure(name, value, METRICS[name].null(k, d), k, d, METRICS[name].variant)
            for name, (value, k) in measured.items()
        }
        if points is not None and len(points) and clusters:
            measures["linked_share"] = replace(measures["linked_share"], null=clusters.surrogate_share)
        spectra = {"centred": centred / max(n - 1, 1) ** 0.5, "unit": unit / n**0.5}
        return cls(tap, n, d, measures, spectra)

    def value(self, name: str) -> float | None:
        """The value of a metric; None where it is not defined or not in this panel."""
        measure = self.measures.get(name)
        return None if measure is None else measure.value

    def without_spectra(self) -> Panel:
        """The measures alone: a few numbers, to be kept as history."""
        return replace(self, spectra={})

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: `{"tap", "n", "d", "measures": {metric: {"value", "null", "n"}}}`, no spectra."""
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
            name: Measure(name, m["value"], m["null"], m["n"], data["d"], METRICS[name].variant)
            for name, m in data["measures"].items()
        }
        return cls(data["tap"], data["n"], data["d"], measures)
