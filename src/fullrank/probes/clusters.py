"""Clusters of a representation: by codes, k-means, or a published script."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.kmeans import kmeans
from fullrank.collapse.moments import all_finite, check_rows
from fullrank.errors import UsageError
from fullrank.probes.agreement import Agreement, cluster_agreement
from fullrank.probes.labelled import labelled_rows, two_classes


@dataclass(frozen=True)
class ClusterResult:
    """Clusters held against classes, and where the clusters are from.

    Attributes:
        origin: "codes", "k-means" or "legacy argmax of features".
        agreement: with the classes.
        inertia: of k-means, a mean over rows; else None.
        converged: whether k-means did; else None.
    """

    origin: str
    agreement: Agreement
    inertia: float | None = None
    converged: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, on one level."""
        plain = asdict(self)
        return {"origin": self.origin, **plain.pop("agreement"), **plain}


def by_first_choice(scores: Tensor, labels: Tensor) -> ClusterResult:
    """Every row belongs to its highest code, prototype or cluster score.

    Args:
        scores: [n, K], logits or probabilities; of equal ones the first is taken.
        labels: integers [n]; below 0 means unlabelled, which is left out.

    Raises:
        UsageError: fewer than two codes, values that are not finite, no labelled row, or one class.

    Example:
        >>> by_first_choice(torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 1])).agreement.over_clustered
        True
    """
    check_rows(scores)
    if scores.shape[1] < 2 or not all_finite(scores):
        raise UsageError(f"scores over clusters are finite and of two at least, not {list(scores.shape)}")
    return ClusterResult("codes", cluster_agreement(scores.detach().argmax(1), labels, scores.shape[1]))


def by_legacy_argmax(features: Tensor, labels: Tensor) -> ClusterResult:
    """CPLearn's script: the largest *feature* of a row is its "cluster".

    Columns of a projection are no clusters: a rotation of the features, which changes nothing that a linear
    head sees, changes this. For comparing with published numbers only.

    Args and errors are those of `by_first_choice`.

    Example:
        >>> by_legacy_argmax(torch.eye(2), torch.tensor([0, 1])).origin
        'legacy argmax of features'
    """
    return replace(by_first_choice(features, labels), origin="legacy argmax of features")


def by_kmeans(
    features: Tensor,
    labels: Tensor,
    clusters: int | None = None,
    *,
    unit: bool = True,
    seed: int = 0,
    restarts: int = 3,
) -> ClusterResult:
    """k-means of all rows; the agreement is of those with a label.

    Args:
        features: [n, d].
        labels: integers [n]; below 0 means unlabelled.
        clusters: k; None takes as many as there are classes.
        unit: whether rows are first brought to unit length, as cosine similarity sees them.
        seed: of the starts.
        restarts: the least inertia of so many wins.

    Raises:
        UsageError: more clusters than rows, values that are not finite, no labelled row, or one class.

    Example:
        >>> rows = 5 * torch.eye(2).repeat(20, 1) + torch.rand(40, 2)
        >>> by_kmeans(rows, torch.arange(2).repeat(20)).agreement.accuracy
        1.0
    """
    known = labelled_rows(features, labels)[1]
    two_classes(known)
    k = len(torch.unique(known)) if clusters is None else clusters
    rows = torch.nn.functional.normalize(features.detach().float(), dim=1) if unit else features
    found = kmeans(rows, k, seed=seed, restarts=restarts)
    return ClusterResult(
        "k-means", cluster_agreement(found.nearest, labels, k), found.inertia / len(rows), found.converged
    )
