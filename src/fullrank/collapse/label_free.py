"""Label-free measures of an encoder, from views of images.

They are what `fullrank pick` ranks encoders by. None of them is the worth of an encoder: how much accuracy
picking by each of them costs is measured on encoders of known accuracy (docs/pick.md).
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.metrics.views import alignment, lidar
from fullrank.collapse.moments import finite_rows
from fullrank.errors import UsageError

FEWEST_IMAGES = 8
"""Images below which nothing is measured."""

SPECTRAL = ("erank_centred", "rankme_unit", "participation_ratio", "alpha_req")
AGREEMENT = ("view_share", "view_retrieval", "neighbour_coherence")
LABEL_FREE = (*SPECTRAL, "relative_rank", "lidar", "alignment", "uniformity", *AGREEMENT)
"""Names of the measures."""


@torch.no_grad()
def label_free_measures(views: Tensor, rows: Tensor | None = None) -> dict[str, float]:
    """Measure an encoder by views of images, without labels.

    - `erank_centred`, `rankme_unit`, `participation_ratio`, `alpha_req`: of `rows`; `relative_rank` is the
      first of them over the largest that as many rows of that width can have.
    - `lidar`, `alignment` (of unit rows), `uniformity`: as the metrics of these names have them.
    - `view_share`, `view_retrieval`, `neighbour_coherence`: the mean over all pairs of views.

    Args:
        views: [n, q, d], q >= 2 views of each of n images with the augmentations of training.
        rows: [m, d], images without augmentation; None takes the mean of the views of each.

    Returns:
        Every name of `LABEL_FREE`; NaN where a measure is not defined, as a rank of rows that all agree.

    Raises:
        UsageError: not [n, q, d] with n >= 8 and q >= 2, or numbers that are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.randn(100, 1, 8, generator=generator)
        >>> seen = label_free_measures(images + 0.1 * torch.randn(100, 4, 8, generator=generator))
        >>> round(seen["view_retrieval"], 2), round(seen["view_share"], 2), round(seen["erank_centred"])
        (1.0, 0.01, 8)
    """
    if views.ndim != 3 or len(views) < FEWEST_IMAGES or views.shape[1] < 2:
        raise UsageError(
            f"views are [images, views, d] of at least {FEWEST_IMAGES} images and two views, not "
            f"{list(views.shape)}"
        )
    flat = finite_rows(views.flatten(0, 1)).cpu()
    seen = flat.reshape(views.shape)
    clean = seen.mean(1) if rows is None else finite_rows(rows).cpu()
    spectra = Spectra.of(clean)
    found = {name: _value(METRICS[name](spectra)) for name in SPECTRAL}
    found["relative_rank"] = found["erank_centred"] / max(min(len(clean) - 1, clean.shape[1]), 1)
    found["lidar"] = _value(lidar(seen))
    found["alignment"] = _value(alignment(seen[:, 0], seen[:, 1]))
    found["uniformity"] = _value(METRICS["uniformity"](clean))
    pairs = [(seen[:, one], seen[:, other]) for one, other in combinations(range(seen.shape[1]), 2)]
    for name in AGREEMENT:
        values = [_value(METRICS[name](*pair)) for pair in pairs]
        found[name] = sum(values) / len(values)
    return found


def _value(found: object) -> float:
    """A metric's number; NaN where it is not defined."""
    value = getattr(found, "alpha", found)
    return math.nan if value is None else float(value)  # type: ignore[arg-type]
