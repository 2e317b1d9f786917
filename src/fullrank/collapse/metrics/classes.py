"""Metrics of labels or clusters: spread within and between classes.

NC1 to NC4 are the four parts of neural collapse (Papyan, Han and Donoho 2020, arXiv 2008.08186). Class means
are centred by the mean of the class means, which is the global mean where classes are balanced. All take
rows [n, d] and one integer label a row, and raise UsageError for anything else.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fullrank.collapse.kmeans import squared_distances
from fullrank.collapse.metrics._definition import ALL_CHANGES, metric
from fullrank.collapse.moments import centred_rows, finite_rows
from fullrank.errors import UsageError

_EPS = torch.finfo(torch.float64).eps
_PAPYAN = "Papyan, Han and Donoho 2020, arXiv 2008.08186"

_of_labels = partial(metric, needs="labels", better="none", sees="KI", reference=_PAPYAN)
_of_means = partial(_of_labels, better="low", sees="K", blind="the spread within classes")
_of_classifier = partial(_of_labels, needs="classifier", better="low", sees="I")


class _Classes(NamedTuple):
    rows: Tensor  # [n, d], less their mean
    member: Tensor  # [n], which of the classes that occur
    names: Tensor  # [C], their labels
    counts: Tensor  # [C]
    means: Tensor  # [C, d], of the rows as they are here
    centred: Tensor  # [C, d], less the mean of the class means; exactly 0 where that is rounding noise


def _classes(z: Tensor, labels: Tensor) -> _Classes:
    rows = finite_rows(z)
    if not isinstance(labels, Tensor) or labels.shape != rows.shape[:1]:
        shape = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UsageError(f"labels are a tensor of one integer a row, [{len(rows)}], not {shape}")
    if labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"labels are integers, not {str(labels.dtype).removeprefix('torch.')}")
    if not len(rows):
        raise UsageError("no embedding rows were seen, so there is nothing to measure")
    size = float(rows.square().sum(1).mean()) ** 0.5
    rows = centred_rows(rows)
    labels = labels.detach().to(rows.device)
    names, member, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    means = rows.new_zeros(len(names), rows.shape[1]).index_add_(0, member, rows) / counts[:, None]
    centred = means - means.mean(0)
    centred = torch.where(centred.norm(dim=1, keepdim=True) > len(rows) * _EPS * size, centred, 0.0)
    return _Classes(rows, member, names, counts, means, centred)


@_of_labels(
    "within_share",
    label="share of the variance within classes",
    high="1",
    sees="I",
    blind="C, and the number of clusters; needs a Gaussian cloud beside it",
    cost="n d",
    reference="`tr S_w / tr S_t`",
)
def within_share(z: Tensor, labels: Tensor) -> float | None:
    """Share of the variance that lies within classes or clusters: `tr S_w / tr S_t`.

    k-means always lowers it, so hold it against the same share of a Gaussian cloud with the same covariance.

    Returns:
        In [0, 1]: 0 where every cluster is one point, 1 where clusters have one mean; None for a constant.

    Example:
        >>> within_share(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
        0.038461538461538464
    """
    c = _classes(z, labels)
    total = float(c.rows.square().sum())
    within = float((c.rows - c.means[c.member]).square().sum())
    return min(1.0, within / total) if total > 0 else None


@_of_labels("nc1_variability", label="NC1, variability", blind="directions without class means", cost="n C d")
def nc1_variability(z: Tensor, labels: Tensor) -> float | None:
    """NC1: spread within classes over that between them, `tr(S_w S_b^+) / C`.

    The pseudo-inverse is cut to the rank of the class means, at most C - 1. With pseudo-labels it measures
    compactness only. Paper: arXiv 2008.08186.

    Returns:
        At least 0: 0 where every class is one point; None with one class and where all class means agree.

    Example:
        >>> z, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(nc1_variability(z, labels), 9)
        0.02
    """
    c = _classes(z, labels)
    if len(c.names) < 2 or not bool(c.centred.any()):
        return None
    _, sigma, right = torch.linalg.svd(c.centred, full_matrices=False)
    rank = min(len(c.names) - 1, int((sigma > sigma[0] * max(c.centred.shape) * _EPS).sum()))
    along = (c.rows - c.means[c.member]) @ right[:rank].T
    return float((along.square().mean(0) / sigma[:rank].square()).sum())


@_of_means("nc2_equinorm", label="NC2, lengths of the class means", high="sqrt(C - 1)", cost="(n + C) d")
def nc2_equinorm(z: Tensor, labels: Tensor) -> float | None:
    """NC2, lengths: variation of the norms of the centred class means.

    Returns:
        In [0, sqrt(C - 1)]: 0 where all class means are equally far from their mean; None with one class and
        where all class means agree.

    Example:
        >>> nc2_equinorm(torch.eye(3), torch.arange(3)) < 1e-12
        True
    """
    norms = _classes(z, labels).centred.norm(dim=1)
    return float(norms.std(correction=0) / norms.mean()) if bool(norms.any()) else None


@_of_means("nc2_equiangular", label="NC2, angles of the class means", high="2", cost="n d + C^2 d")
def nc2_equiangular(z: Tensor, labels: Tensor) -> float | None:
    """NC2, angles: `mean_{c != c'} |cos(mu_c - mu, mu_c' - mu) + 1 / (C - 1)|`.

    Returns:
        In [0, 2]: 0 for a simplex; None with one class and where a class mean is the mean of all.

    Example:
        >>> nc2_equiangular(torch.eye(3), torch.arange(3)) < 1e-12
        True
    """
    c = _classes(z, labels)
    classes, norms = len(c.names), c.centred.norm(dim=1, keepdim=True)
    if classes < 2 or not bool(norms.all()):
        return None
    unit = c.centred / norms
    off_simplex = ((unit @ unit.T).clamp(-1, 1) + 1 / (classes - 1)).abs()
    return float((off_simplex.sum() - off_simplex.diagonal().sum()) / (classes * (classes - 1)))


@_of_classifier(
    "nc3_self_duality",
    label="NC3, self-duality",
    high="4",
    blind="the spread within classes",
    cost="(n + C) d",
    invariances=ALL_CHANGES - {"rotation"},
)
def nc3_self_duality(z: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> float | None:
    """NC3: distance of a classifier from the class means, both at unit norm.

    Formula: `|| W / ||W||_F - M / ||M||_F ||_F^2` of a classifier W and the centred class means M.

    Args:
        z: [n, d].
        labels: [n] integers, row numbers of `weight`.
        weight: [K, d], of a linear classifier; only rows of classes that occur are compared.
        bias: [K], not used here; taken so that NC3 and NC4 are called alike.

    Returns:
        In [0, 4]: 0 where classifier and class means are the same up to scale; None where either is zero.

    Example:
        >>> nc3_self_duality(torch.eye(2), torch.arange(2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])) < 1e-12
        True
    """
    c = _classes(z, labels)
    chosen = _classifier(c, weight, bias)[0][c.names]
    scale, size = chosen.norm(), c.centred.norm()
    if not (float(scale) > 0 and float(size) > 0):
        return None
    return float((chosen / scale - c.centred / size).square().sum())


@_of_classifier(
    "nc4_nearest_class",
    label="NC4, nearest class",
    high="1",
    blind="every collapse of the rows: it compares two decisions",
    cost="n C d",
    invariances=frozenset({"permutation", "replication"}),
)
def nc4_nearest_class(z: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> float:
    """NC4: share of rows where classifier and nearest class mean differ.

    Args:
        z: [n, d].
        labels: [n] integers, row numbers of `weight`.
        weight: [K, d], of a linear classifier.
        bias: [K], or None for zeros.

    Returns:
        In [0, 1]: 0 where they always agree.

    Example:
        >>> nc4_nearest_class(torch.eye(2), torch.arange(2), torch.eye(2))
        0.0
    """
    c = _classes(z, labels)
    w, b = _classifier(c, weight, bias)
    decided = (finite_rows(z) @ w.T + b).argmax(1)
    nearest = c.names[squared_distances(c.rows, c.means).argmin(1)]
    return float((decided != nearest).double().mean())


@_of_labels(
    "cdnv",
    label="class-distance normalised variance",
    blind="all but the closest classes, and the directions of the spread",
    cost="n d + C^2 d",
    reference="Galanti et al. 2022, arXiv 2112.15121",
)
def cdnv(z: Tensor, labels: Tensor) -> float | None:
    """Class-distance normalised variance, a mean over pairs of classes.

    Formula: `(Var_c + Var_c') / (2 ||mu_c - mu_c'||^2)`.

    Returns:
        At least 0: 0 where every class is one point; None with one class and where two class means agree.

    Example:
        >>> cdnv(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
        0.01
    """
    c = _classes(z, labels)
    if len(c.names) < 2:
        return None
    squares = (c.rows - c.means[c.member]).square().sum(1)
    variance = torch.zeros_like(c.means[:, 0]).index_add_(0, c.member, squares) / c.counts
    i, j = torch.triu_indices(len(c.names), len(c.names), 1, device=c.means.device)
    distance = squared_distances(c.means, c.means)[i, j]
    if bool((distance <= (len(c.rows) * _EPS) ** 2 * c.means.square().sum()).any()):
        return None
    return float(((variance[i] + variance[j]) / (2 * distance)).mean())


def _classifier(c: _Classes, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The classifier in float64 beside the rows, checked against them."""
    w = finite_rows(weight).to(c.rows)
    b = w.new_zeros(len(w)) if bias is None else finite_rows(bias[:, None])[:, 0].to(w)
    if w.shape[1] != c.rows.shape[1] or b.shape != w.shape[:1]:
        right = f"weights [K, {c.rows.shape[1]}] and biases [K]"
        raise UsageError(f"a classifier has {right} here, not {list(weight.shape)} and {list(b.shape)}")
    if int(c.names[0]) < 0 or int(c.names[-1]) >= len(w):
        raise UsageError(f"labels of a classifier of {len(w)} classes are 0 to {len(w) - 1}")
    return w, b
