"""Clusters of rows by codes or k-means, and their agreement with classes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.kmeans import kmeans
from fullrank.collapse.moments import all_finite, check_rows
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.probes.labelled import two_classes
from fullrank.probes.shared import labelled_part


@dataclass(frozen=True)
class Agreement:
    """Clusters held against classes.

    Attributes:
        nmi: normalised mutual information, arithmetic mean (scikit-learn's default), in [0, 1]. Grows with
            the number of clusters, by chance alone.
        ami: the same less what chance gives, at most 1, about 0 for chance.
        ari: adjusted Rand index, likewise.
        accuracy: share of rows that are right when each cluster names a class and no two the same, matched at
            best (Hungarian method); None where there are not as many clusters as classes.
        purity: share of rows that are of their cluster's most frequent class. Grows with the number of
            clusters: 1 where each row has its own.
        clusters: that there could be.
        used: that hold a row.
        classes: that occur.
        perplexity: exp of the entropy of the clusters' sizes, in [1, used]: how many are in use.
        entropy: that entropy over the log of the number of clusters, in [0, 1]; 0 where one holds all.
        over_clustered: there are more clusters than classes, so that NMI and purity flatter.
        rows: that were compared.
    """

    nmi: float
    ami: float
    ari: float
    accuracy: float | None
    purity: float
    clusters: int
    used: int
    classes: int
    perplexity: float
    entropy: float
    over_clustered: bool
    rows: int


def cluster_agreement(assigned: Tensor, labels: Tensor, clusters: int | None = None) -> Agreement:
    """Compare clusters with classes.

    Args:
        assigned: cluster numbers, integers [n], not negative.
        labels: integers [n]; below 0 means unlabelled, which is left out.
        clusters: that there could be; None takes the largest number and those below it.

    Raises:
        UsageError: not one integer a row on either side, no labelled row, one class, or a cluster number
            outside [0, clusters).

    Example:
        >>> found = cluster_agreement(torch.tensor([1, 1, 0, 0, 2, 2]), torch.tensor([5, 5, 7, 7, 9, 7]))
        >>> round(found.accuracy, 3), round(found.purity, 3), found.over_clustered
        (0.833, 0.833, False)
    """
    for name, numbers in (("clusters", assigned), ("labels", labels)):
        if numbers.ndim != 1 or numbers.is_floating_point() or numbers.shape != labels.shape:
            raise UsageError(f"{name} are one integer a row, [{len(labels)}], not {list(numbers.shape)}")
    assigned, labels = assigned.detach().cpu().long(), labels.detach().cpu().long()
    known = labels >= 0
    if not bool(known.any()):
        raise UsageError(f"none of the {len(labels)} rows has a label: clusters are held against classes")
    assigned, labels = assigned[known], labels[known]
    two_classes(labels, "labelled rows")
    clusters = int(assigned.max()) + 1 if clusters is None else clusters
    if int(assigned.min()) < 0 or int(assigned.max()) >= clusters:
        raise UsageError(f"clusters are numbered from 0 to {clusters - 1}, not up to {int(assigned.max())}")

    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import cluster

    pair = labels.numpy(), assigned.numpy()
    table = cluster.contingency_matrix(*pair, sparse=True)
    classes, used = table.shape
    accuracy = None
    if clusters == classes:
        counts = table.toarray()
        matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
        accuracy = float(matched) / len(labels)
    sizes = torch.bincount(assigned).double() / len(assigned)
    entropy = float(-torch.xlogy(sizes, sizes).sum())
    return Agreement(
        nmi=float(cluster.normalized_mutual_info_score(*pair)),
        ami=float(cluster.adjusted_mutual_info_score(*pair)),
        ari=float(cluster.adjusted_rand_score(*pair)),
        accuracy=accuracy,
        purity=float(table.max(axis=0).sum()) / len(labels),
        clusters=clusters,
        used=used,
        classes=classes,
        perplexity=math.exp(entropy),
        entropy=max(0.0, entropy) / math.log(clusters) if clusters > 1 else 0.0,
        over_clustered=clusters > classes,
        rows=len(labels),
    )


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
    peers: Peers | None = None,
) -> ClusterResult:
    """k-means of all rows; the agreement is of those with a label.

    Args:
        features: [n, d].
        labels: integers [n]; below 0 means unlabelled.
        clusters: k; None takes as many as there are classes.
        unit: whether rows are first brought to unit length, as cosine similarity sees them.
        seed: of the starts.
        restarts: the least inertia of so many wins.
        peers: processes that each hold a part of the rows; None: this one holds all.

    Raises:
        UsageError: more clusters than rows, values that are not finite, no labelled row, or one class.

    Example:
        >>> rows = 5 * torch.eye(2).repeat(20, 1) + torch.rand(40, 2)
        >>> by_kmeans(rows, torch.arange(2).repeat(20)).agreement.accuracy
        1.0
    """
    peers = peers or Peers(alone=True)
    known = labelled_part(features, labels, "features", peers).all_labels
    two_classes(known)
    k = len(torch.unique(known)) if clusters is None else clusters
    rows = torch.nn.functional.normalize(features.detach().float(), dim=1) if unit else features
    found = kmeans(rows, k, seed=seed, restarts=restarts, peers=peers)
    nearest, labels = peers.gather_rows(found.nearest), peers.gather_rows(labels)
    agreement = cluster_agreement(nearest, labels, k)
    return ClusterResult("k-means", agreement, found.inertia / len(nearest), found.converged)
