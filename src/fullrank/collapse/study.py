"""The closer look, taken now and then: what costs too much for every panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.catalogue import CATALOGUE, Spectra
from fullrank.collapse.neighbours import Neighbourhood
from fullrank.collapse.panel import Measure
from fullrank.collapse.predictor import PredictorSpectrum, predictor_spectrum
from fullrank.collapse.reference import reference_value

__all__ = ["STUDIED", "Study", "study"]

STUDIED = ("local_dimension", "two_nn", "alpha_req", "lidar")
"""Metrics of the catalogue that a closer look adds to the panel; `lidar` where pairs of views are there."""

FROM, THROUGH = "projector", "predictor"
WIDEST = 512  # of a predictor whose eigenvectors are looked at: they cost the cube of its width


@dataclass(frozen=True)
class Study:
    """What a closer look found.

    Attributes:
        measures: tap to metric to its value beside that of isotropic noise.
        predictor: what the predictor does to the spectrum of the projector; None without one.
    """

    measures: Mapping[str, Mapping[str, Measure]]
    predictor: PredictorSpectrum | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the spectra."""
        measures = {
            tap: {name: asdict(measure) for name, measure in found.items()}
            for tap, found in self.measures.items()
        }
        return {"measures": measures, **({"predictor": self.predictor.as_dict()} if self.predictor else {})}

    @property
    def spectra(self) -> dict[str, np.ndarray]:
        """The predictor's, by name."""
        found = self.predictor
        if found is None:
            return {}
        return {
            "predictor-map.eigenvalues": found.eigenvalues,
            "predictor-map.gains": found.gains,
            "predictor-map.alignment": found.alignment,
            "predictor-map.filter": found.filter,
        }


def study(
    points: Mapping[str, Tensor],
    pairs: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    spectra: Mapping[str, Spectra] | None = None,
) -> Study:
    """Takes the closer look.

    Args:
        points: tap to a sample of rows [n, d]; projector and predictor of the same images, row by row.
        pairs: tap to two views [k, d] of the same images.
        spectra: tap to the spectra of all rows, where they are known; else those of the sample are taken.

    Example:
        >>> z = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        >>> found = study({"projector": z, "predictor": 0.5 * z})
        >>> round(found.predictor.mean_alignment, 6), sorted(found.measures["projector"])
        (1.0, ['alpha_req', 'local_dimension', 'two_nn'])
    """
    measures: dict[str, dict[str, Measure]] = {}
    for tap, rows in points.items():
        n, d = rows.shape
        known = (spectra or {}).get(tap) or Spectra.of(rows)
        near = Neighbourhood(rows)
        found = {
            name: CATALOGUE[name](known if CATALOGUE[name].spectrum else near)
            for name in STUDIED
            if CATALOGUE[name].needs != "views"
        }
        nulls = {name: reference_value("isotropic", name, n, d, n) for name in found}
        if pairs and tap in pairs and len(pairs[tap][0]) > 2:
            views = torch.stack(pairs[tap], dim=1)
            found["lidar"], nulls["lidar"] = CATALOGUE["lidar"](views), _lidar_of_noise(*views.shape)
        measures[tap] = {
            name: Measure(name, value, nulls[name], n, d, CATALOGUE[name].variant)
            for name, value in found.items()
        }
    z, p = points.get(FROM), points.get(THROUGH)
    through = None
    if z is not None and p is not None and z.shape == p.shape and z.shape[1] <= WIDEST:
        through = predictor_spectrum(z, p)
    return Study(measures, through)


@lru_cache(maxsize=64)
def _lidar_of_noise(n: int, views: int, d: int) -> float | None:
    """LiDAR of views that have nothing in common."""
    value: float | None = CATALOGUE["lidar"](
        torch.randn(n, views, d, generator=torch.Generator().manual_seed(0))
    )
    return value
