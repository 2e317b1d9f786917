"""Measures of codes beyond the monitor: agreement with classes, mixtures, images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import CodeUsage
from fullrank.collapse.metrics.mixture import legacy_mixture_entropy, mixture_entropy
from fullrank.errors import UsageError
from fullrank.labs._common.trained import held_out_taps, reopen
from fullrank.probes.clusters import by_first_choice

IMAGES = 2048
DRAWS = {"samples": 2000, "repeats": 5}


def loss_floor(codes: int, rows: int) -> float:
    """Least value of CPLearn's loss with beta 1: `max(log(codes / rows), 0)`.

    Prior and invariance come to at least `log c - I(image; code)`, and n images hold at most log n of
    information (2410.04959).

    Example:
        >>> round(loss_floor(16384, 64), 3), loss_floor(10, 64)
        (5.545, 0.0)
    """
    return max(0.0, math.log(codes / rows))


def of_codes(run: Path, components: Sequence[int]) -> dict[str, Any]:
    """Held-out clusters by code, mixture entropies, covariance and adjacency images.

    Returns:
        `agreement` and `usage` of the codes (None for `agreement` without labels); `mixture` and `legacy`,
        entropy by number of components, in nats per dimension and in nats of the padded embedding;
        `off_diagonal`, the mean size of correlations between dimensions; `covariance` and `adjacency`, rows
        of the images.

    Raises:
        UsageError: the method has no codes.
    """
    s = reopen(run)
    taps = held_out_taps(s, IMAGES)
    if "codes" not in taps:
        raise UsageError(f"{s.config.method} has no codes")
    embedding, scores = taps["projector"], taps["codes"]
    labels = s.data.held_out.labels
    classes = None if labels is None else torch.as_tensor(labels[: len(scores)])
    usage = CodeUsage(scores.shape[1])
    usage.update(scores)
    correlations = standardised_covariance(embedding)
    off = correlations - torch.diag(correlations.diag())
    d = len(correlations)
    fitted = [k for k in components if k <= len(embedding)]
    return {
        "agreement": None if classes is None else by_first_choice(scores, classes).as_dict(),
        "usage": usage.result().as_dict(),
        "mixture": {k: _mean(mixture_entropy(embedding, k, **DRAWS)) for k in fitted},
        "legacy": {k: _mean(legacy_mixture_entropy(embedding, k, **DRAWS)) for k in fitted},
        "off_diagonal": float(off.abs().sum() / (d * (d - 1))),
        "covariance": _rounded(correlations[:64, :64]),
        "adjacency": _rounded(cosines_by_class(embedding, classes)),
    }


def standardised_covariance(rows: Tensor) -> Tensor:
    """Correlations between dimensions, [d, d]; 0 where a dimension does not vary.

    Example:
        >>> standardised_covariance(torch.tensor([[1.0, -2.0, 5.0], [-1.0, 2.0, 5.0]])).round().tolist()
        [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    z = rows.double() - rows.double().mean(0)
    spread = z.norm(dim=0)
    alive = spread > 1e-9 * spread.max().clamp_min(1e-300)
    z = torch.where(alive, z / spread.clamp_min(1e-300), 0.0)
    return z.T @ z


def cosines_by_class(rows: Tensor, labels: Tensor | None, most: int = 100) -> Tensor:
    """Cosines of centred rows, equally many per class, by class: [m, m], m <= most.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> cosines_by_class(z, torch.tensor([0, 1, 0, 1]))[0].tolist()
        [1.0, 1.0, -1.0, -1.0]
    """
    z = torch.nn.functional.normalize(rows.double() - rows.double().mean(0), dim=1)
    if labels is None:
        picked = torch.arange(min(most, len(z)))
    else:
        kinds = torch.unique(labels[labels >= 0])
        each = max(1, most // max(1, len(kinds)))
        picked = torch.cat([torch.nonzero(labels == kind).flatten()[:each] for kind in kinds[:most]])
    return z[picked] @ z[picked].T


def _mean(entropy: Any) -> float | None:
    return None if entropy is None else entropy.mean


def _rounded(matrix: Tensor) -> list[list[float]]:
    """Two decimals are all that colours show."""
    found: list[list[float]] = np.round(matrix.numpy(), 2).tolist()
    return found
