"""Diagnostics, computed now and then: metrics that cost too much for every panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.baselines import baseline
from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.metrics.neighbours import Neighbourhood
from fullrank.collapse.panel import Measure
from fullrank.collapse.predictor import PredictorSpectrum, predictor_spectrum

FROM, THROUGH = "projector", "predictor"
WIDEST = 512  # a predictor whose eigenvectors are computed: they cost the cube of its width


@dataclass(frozen=True)
class Diagnostics:
    """Metrics beyond the panel, and the spectrum of the predictor.

    Attributes:
        measures: tap to metric to its value beside that of isotropic noise.
        predictor: what the predictor does to the spectrum of the projector; None without one.
    """

    measures: Mapping[str, Mapping[str, Measure]]
    predictor: PredictorSpectrum | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the spectra."""
        measures = {
            tap: {name: asdict(m) | {"variant": METRICS[name].variant} for name, m in found.items()}
            for tap, found in self.measures.items()
        }
        return {"measures": measures, **({"predictor": self.predictor.as_dict()} if self.predictor else {})}

    @property
    def spectra(self) -> dict[str, np.ndarray]:
        """The predictor's, by name."""
        names = ("eigenvalues", "gains", "alignment", "filter") if self.predictor else ()
        return {f"predictor-map.{name}": getattr(self.predictor, name) for name in names}


def diagnose(
    points: Mapping[str, Tensor],
    pairs: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    spectra: Mapping[str, Spectra] | None = None,
) -> Diagnostics:
    """Compute the diagnostics of some taps; LiDAR where there are pairs of views.

    Args:
        points: tap to a sample of rows [n, d]; projector and predictor of the same images, row by row.
        pairs: tap to two views [k, d] of the same images.
        spectra: tap to the spectra of all rows, where they are known; else those of the sample are taken.

    Example:
        >>> z = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        >>> found = diagnose({"projector": z, "predictor": 0.5 * z})
        >>> round(found.predictor.mean_alignment, 6), sorted(found.measures["projector"])
        (1.0, ['alpha_req', 'local_dimension', 'two_nn'])
    """
    measures: dict[str, dict[str, Measure]] = {}
    for tap, rows in points.items():
        n, d = rows.shape
        known = (spectra or {}).get(tap) or Spectra.of(rows)
        inputs: dict[str, Any] = {"neighbours": Neighbourhood(rows), "spectrum": known}
        if pairs and tap in pairs and len(pairs[tap][0]) > 2:
            inputs["views"] = torch.stack(pairs[tap], dim=1)
        measures[tap] = found = {}
        for name, metric in METRICS.items():
            if metric.diagnostics and metric.needs in inputs:
                views = inputs[metric.needs].shape[:2] if metric.needs == "views" else (n, 0)
                null = baseline(name, views[0], d, views=views[1])
                found[name] = Measure(name, metric(inputs[metric.needs]), null, n, d)
    z, p = points.get(FROM), points.get(THROUGH)
    through = None
    if z is not None and p is not None and z.shape == p.shape and z.shape[1] <= WIDEST:
        through = predictor_spectrum(z, p)
    return Diagnostics(measures, through)
