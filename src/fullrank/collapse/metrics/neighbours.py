"""Intrinsic dimensions from distances of nearest neighbours.

Repeated rows are removed first, for a distance of zero says nothing about a dimension.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import metric
from fullrank.collapse.moments import finite_rows
from fullrank.collapse.nearest_rows import middle_of, nearest_rows
from fullrank.collapse.products import gram
from fullrank.collapse.sampling import row_hash
from fullrank.errors import UsageError

_AT_ONCE = 20  # neighbours that are found when fewer are asked for: the next measure wants them
_ROUNDING = 4 * torch.finfo(torch.float64).eps  # relative; distances that agree up to it are equal
_WHOLE = 4096  # rows of which all products are made at once: 128 MB
_CANCELLED = 1e-3  # squared distance over squared lengths, above which it keeps nine digits
_FACCO = "Facco et al. 2017, Scientific Reports 7, 12140"
_LDREG = "LDReg, arXiv 2401.10474"

_dimension = partial(
    metric,
    unit="dimensions",
    needs="neighbours",
    sees="DL",
    blind="C, of which it sees the noise; too low above about 20 dimensions",
    cost="n^2 d",
)
_local = partial(_dimension, part="mean", sees="DIL", reference=_LDREG)


def distinct_rows(z: Tensor) -> Tensor:
    """Different rows of [n, d] in float64, sorted."""
    rows: Tensor = torch.unique(finite_rows(z) + 0.0, dim=0)  # + 0.0 makes -0.0 and 0.0 one
    return rows


def neighbour_distances(rows: Tensor, k: int) -> Tensor:
    """Distances [n, k] of every row to its k nearest others; needs n > k.

    The rows all differ, so that the nearest of each is itself (`nearest_rows`).

    Example:
        >>> neighbour_distances(torch.tensor([[0.0], [1.0], [3.0]]).double(), 2).tolist()
        [[1.0, 3.0], [1.0, 2.0], [2.0, 3.0]]
    """
    if len(rows) > _WHOLE:
        return nearest_rows(rows, rows, k + 1)[0][:, 1:]
    centred = rows - middle_of(rows)
    squares = -2 * gram(centred.T)
    lengths = squares.diagonal() / -2
    squares.add_(lengths).add_(lengths[:, None]).fill_diagonal_(torch.inf)
    near, which = squares.topk(k, largest=False)
    # where squares cancel, the rows are subtracted
    doubtful = (near < _CANCELLED * (lengths[:, None] + lengths[which])).any(1)
    found = near.clamp_min(0).sqrt()
    if bool(doubtful.any()):
        found[doubtful] = nearest_rows(rows[doubtful], rows, k + 1)[0][:, 1:]
    return found


class Neighbourhood:
    """Nearest neighbours of one embedding, found once for all metrics.

    Args:
        z: [n, d]; repeated rows are removed.

    Example:
        >>> found = Neighbourhood(torch.tensor([[0.0], [1.0], [1.0], [3.0]]))
        >>> found.n, found.distances(1).flatten().tolist()
        (3, [1.0, 1.0, 2.0])
    """

    def __init__(self, z: Tensor) -> None:
        self._z = z
        self._found: Tensor | None = None

    @classmethod
    def of(cls, z: Tensor | Neighbourhood) -> Neighbourhood:
        """Neighbourhood of rows [n, d]."""
        return z if isinstance(z, Neighbourhood) else cls(z)

    @cached_property
    def rows(self) -> Tensor:
        """The different ones; raises the errors of `distinct_rows`."""
        rows = finite_rows(self._z) + 0.0
        return rows if len(row_hash(rows).unique()) == len(rows) else distinct_rows(rows)

    @property
    def n(self) -> int:
        """Number of different rows."""
        return len(self.rows)

    def distances(self, k: int) -> Tensor:
        """`neighbour_distances` [m, k] of the rows whose nearest is not too near."""
        if self._found is None or self._found.shape[1] < k:
            self._found = neighbour_distances(self.rows, max(k, min(_AT_ONCE, self.n - 1)))
        return self._found[self._found[:, 0] > 0, :k]


def _log_ratios(z: Tensor | Neighbourhood) -> Tensor | None:
    """log(r2 / r1) of the distinct rows, where r1 > 0; None with fewer than three."""
    near = Neighbourhood.of(z)
    if near.n < 3:
        return None
    distances = near.distances(2)
    return (distances[:, 1] / distances[:, 0]).log()


@_dimension("two_nn", label="TwoNN", better="none", reference=_FACCO, diagnostics=True)
def two_nn(z: Tensor | Neighbourhood) -> float | None:
    """TwoNN: intrinsic dimension from the two nearest distances.

    Formula: `(n - 1) / sum_i log(r2_i / r1_i)`. Paper: Facco et al. 2017 (Scientific Reports 7, 12140).

    Returns:
        Above 0; None with fewer than three different rows, and where every two distances agree (a lattice).

    Example:
        >>> z = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 9)
        >>> round(two_nn(z))
        2
    """
    logs = _log_ratios(z)
    total = 0.0 if logs is None else float(logs.sum())
    return (len(logs) - 1) / total if logs is not None and total > _ROUNDING * len(logs) else None


@_dimension("two_nn_fit", label="TwoNN, fitted", better="none", reference=_FACCO)
def two_nn_fit(z: Tensor | Neighbourhood, discard: float = 0.1) -> float | None:
    """TwoNN by the published line through the origin, robust to outliers.

    Formula: slope of `-log(1 - i/n)` against the sorted `log(r2 / r1)`, without the largest 10 %. Paper:
    Facco et al. 2017 (Scientific Reports 7, 12140).

    Args:
        z: [n, d], of which repeated rows are removed, or their `Neighbourhood`.
        discard: share of the largest ratios left out, in (0, 1).

    Returns:
        Above 0; None with fewer than three different rows, and where every two distances agree (a lattice).

    Example:
        >>> z = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 9)
        >>> round(two_nn_fit(z))
        2
    """
    if not 0 < discard < 1:
        raise UsageError(f"the share of ratios to discard lies in (0, 1), not {discard}")
    logs = _log_ratios(z)
    if logs is None:
        return None
    n = len(logs)
    x = logs.sort().values[: math.floor(n * (1 - discard) + 1e-9)]
    y = -torch.log1p(-torch.arange(1, len(x) + 1, device=x.device, dtype=x.dtype) / n)
    square = float(x.square().sum())
    return float((x * y).sum()) / square if square > _ROUNDING**2 * n else None


class LocalDimension(NamedTuple):
    """Local intrinsic dimensions, summed up.

    Attributes:
        mean: their geometric mean, the Frechet mean under the Fisher-Rao metric.
        log_variance: the variance of their logarithm, 0 where all points agree.
        k: neighbours used.
        points: different rows whose dimension is finite.
    """

    mean: float
    log_variance: float
    k: int
    points: int


@_local(
    "local_dimension",
    options={"estimator": "mle"},
    reference=f"{_LDREG}; Levina and Bickel 2004",
    diagnostics=True,
)
@_local("local_dimension_moments", options={"estimator": "moments"})
@_local(
    "local_dimension_spread",
    options={"estimator": "mle"},
    part="log_variance",
    better="none",
    sees="L",
    blind="a low dimension that is the same everywhere",
)
def local_dimension(
    z: Tensor | Neighbourhood, k: int = 20, estimator: Literal["mle", "moments"] = "mle"
) -> LocalDimension | None:
    """Local intrinsic dimension of every row, from its k nearest neighbours.

    Formula: `mle`, `-1 / ((1/k) sum_j log(r_j / r_k))` (Levina and Bickel 2004); `moments`, `m / (r_k - m)`
    with m the mean of the other k - 1 distances. Paper: Huang et al. 2024 (LDReg, arXiv 2401.10474).

    Args:
        z: [n, d], of which repeated rows are removed, or their `Neighbourhood`.
        k: neighbours, at least 2; 20 to 64 of five times as many rows.
        estimator: which of the two.

    Returns:
        Mean above 0; None with k or fewer different rows, and where no point has a finite dimension.

    Raises:
        UsageError: k below 2, or an unknown estimator.

    Example:
        >>> z = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 9)
        >>> round(local_dimension(z).mean), round(local_dimension(z, estimator="moments").mean)
        (2, 2)
    """
    if k < 2:
        raise UsageError(f"a local dimension needs at least 2 neighbours, not {k}")
    if estimator not in ("mle", "moments"):
        raise UsageError(f"an estimator of the local dimension is 'mle' or 'moments', not {estimator!r}")
    near = Neighbourhood.of(z)
    if near.n <= k:
        return None
    distances = near.distances(k)
    last, others = distances[:, -1], distances[:, :-1]
    if estimator == "mle":
        inverse = -(others / last[:, None]).log().sum(1) / k
    else:
        m = others.mean(1)
        inverse = (last - m) / m
    logs = -inverse[inverse > _ROUNDING].log()
    if not len(logs):
        return None
    return LocalDimension(float(logs.mean().exp()), float(logs.var(correction=0)), k, len(logs))
