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
from fullrank.collapse.moments import check_rows
from fullrank.collapse.panel import Measure
from fullrank.errors import UsageError

FROM, THROUGH = "projector", "predictor"
WIDEST = 512  # a predictor whose eigenvectors are computed: they cost the cube of its width
TRACE = 0.9999  # directions that hold this share of the trace are looked at; the rest is noise


@dataclass(frozen=True)
class PredictorSpectrum:
    """Predictor in the eigenvectors u_i of its input's correlation E[z z^T].

    Attributes:
        eigenvalues: float64 [m], of C, descending: those that hold 99.99 % of its trace.
        gains: float64 [m], |W u_i|: how much the predictor lets through of each direction.
        alignment: float64 [m] in [-1, 1], u_i^T W u_i / |W u_i|: 1 where u_i is an eigenvector of W too; a
            random map reads 0 within 1 / sqrt(d).
        filter: float64 [m], sqrt(E (u_i^T p)^2 / E (u_i^T z)^2): the spectral filter between the branches.
        explained: share of E|p|^2 that the best linear map of z explains; a linear predictor has 1.
    """

    eigenvalues: np.ndarray
    gains: np.ndarray
    alignment: np.ndarray
    filter: np.ndarray
    explained: float

    @property
    def mean_alignment(self) -> float:
        """Alignment averaged with the weight of each direction's eigenvalue."""
        return float(np.average(self.alignment, weights=self.eigenvalues))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the two summaries, without the spectra."""
        directions = len(self.eigenvalues)
        return {"alignment": self.mean_alignment, "explained": self.explained, "directions": directions}


@torch.no_grad()
def predictor_spectrum(z: Tensor, p: Tensor) -> PredictorSpectrum | None:
    """Best linear map W from z to p in the eigenvectors of E[z z^T].

    W u_i = E[p z^T] u_i / lambda_i, so that nothing but C is decomposed. For a linear predictor W is the
    predictor itself; DirectPred (2102.06810) rests on its eigenvectors coming to be those of C, and implicit
    variance regularisation (2212.04858, figure 4) plots the alignment. The filter is that of RDM (2303.02387,
    figure 3), which calls it a low-pass one where it falls with the index.

    Args:
        z: inputs of the predictor [n, d], n above d for a sharp answer.
        p: its outputs [n, d] on the same rows.

    Raises:
        UsageError: wrong or different shapes.

    Example:
        >>> z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 3, 2, 1])
        >>> found = predictor_spectrum(z, z * torch.tensor([1.0, 0.5, 0.25, 0.1]))
        >>> found.gains.round(1).tolist(), round(found.mean_alignment, 2), round(found.explained, 6)
        ([1.0, 0.5, 0.3, 0.1], 1.0, 1.0)
    """
    check_rows(z)
    check_rows(p, z.shape[1])
    if len(z) != len(p):
        raise UsageError(
            f"inputs and outputs of a predictor are of the same rows; there are {len(z)} and {len(p)}"
        )
    z, p = z.double(), p.double()
    n = len(z)
    values, vectors = torch.linalg.eigh(z.T @ z / n)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = values.sum()
    if not total > 0:
        return None
    kept = int((values.cumsum(0) < TRACE * total).sum()) + 1
    kept = min(kept, int((values > values[0] * n * torch.finfo(values.dtype).eps).sum()))
    values, u = values[:kept], vectors[:, :kept]
    mapped = p.T @ (z @ u) / n / values  # W u_i, column by column
    gains = mapped.norm(dim=0)
    alignment = (u * mapped).sum(0) / gains.clamp(min=torch.finfo(torch.float64).tiny)
    passed = ((p @ u).square().mean(0) / values).sqrt()
    energy = p.square().sum() / n
    explained = float((gains.square() * values).sum() / energy) if energy > 0 else 1.0
    return PredictorSpectrum(values.numpy(), gains.numpy(), alignment.numpy(), passed.numpy(), explained)


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
