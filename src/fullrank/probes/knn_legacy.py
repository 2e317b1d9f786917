"""k nearest neighbours as two published code bases judge by them.

Both look at the rows that they report on: Li's scan chooses k by them, solo-learn's counts the classes in
them. `knn_probe` does neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.probes.knn import counted_votes
from fullrank.probes.labelled import labelled_rows, two_classes
from fullrank.probes.neighbours import Metric, nearest

STORED, LARGEST = 128, 255  # neighbours that Li's scan keeps, and the largest k that it reports


@dataclass(frozen=True)
class LegacyScan:
    """Result of Li's scan.

    Attributes:
        accuracy: top-1 for k = 1 to 255; from 128 on all are the same, for 128 neighbours are kept.
        best_k: the first k with the best accuracy, chosen on the rows that it is reported for: optimistic.
        best_accuracy: at this k.
        same_set: whether the bank was judged by itself, each row's nearest neighbour left out.
    """

    accuracy: tuple[float, ...]
    best_k: int
    best_accuracy: float
    same_set: bool


def li_knn_scan(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    metric: Metric = "l2",
    *,
    same_set: bool = False,
) -> LegacyScan:
    """Li's scan: majority votes for k = 1 to 255, the best k on the queries.

    As Li, Efros and Pathak's code does it (arXiv 2209.15007, `compute_nn.py`). Of equally frequent classes
    the lowest number wins. 128 neighbours, or as many as the bank has rows.

    Args:
        queries, query_labels, bank, bank_labels: see `knn_scan`.
        metric: "l2", its default, or "cosine".
        same_set: queries and bank are the same rows; the nearest neighbour, taken to be the row itself, is
            left out, so that 127 remain.

    Raises:
        UsageError: no label on either side, one class only, values that are not finite, or one row against
            itself.

    Example:
        >>> rows, labels = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 1])
        >>> scan = li_knn_scan(rows, labels, rows, labels, same_set=True)
        >>> scan.best_k, scan.best_accuracy, len(scan.accuracy)
        (1, 1.0, 255)
    """
    bank, bank_labels = labelled_rows(bank, bank_labels, "bank rows")
    queries, query_labels = labelled_rows(queries, query_labels, "queries")
    classes = two_classes(torch.cat([bank_labels, query_labels]), "labelled rows")
    if same_set and len(bank) < 2:
        raise UsageError("one row has no neighbour but itself")
    _, rows = nearest(queries, bank, min(STORED, len(bank)), metric)
    labels = bank_labels[rows[:, 1:] if same_set else rows]
    weights = torch.ones_like(labels, dtype=torch.int32)
    right = [
        float((votes.argmax(1) == query_labels).double().mean())
        for votes in counted_votes(labels, weights, range(1, labels.shape[1] + 1), classes)
    ]
    accuracy = tuple(right + right[-1:] * (LARGEST - len(right)))
    best = max(accuracy)
    return LegacyScan(accuracy, accuracy.index(best) + 1, best, same_set)


def solo_knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    metric: Metric = "l2",
) -> Tensor:
    """solo-learn's sums of weights [m, classes].

    Args:
        queries, bank, bank_labels: see `knn_scan`.
        classes: C, above every label.
        k: neighbours, or the whole bank where it is smaller.
        temperature: of cosine weights.
        metric: "l2", its default, or "cosine".

    Returns:
        In double precision: exp(1 / 0.01) exceeds single.

    Raises:
        UsageError: a bank without labels, or one with a label of `classes` or more.

    Example:
        >>> solo_knn_scores(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), 2, k=1, metric="cosine").log()
        tensor([[14.2857,    -inf],
                [   -inf, 14.2857]], dtype=torch.float64)
    """
    bank, bank_labels = labelled_rows(bank, bank_labels, "bank rows")
    if int(bank_labels.max()) >= classes:
        raise UsageError(
            f"labels lie below the number of classes, {classes}; one is {int(bank_labels.max())}"
        )
    k = min(k, len(bank))
    values, rows = nearest(queries, bank, k, metric)
    values = values.double()
    weights = (values / temperature).exp() if metric == "cosine" else 1 / (values + 1e-5)
    (scores,) = counted_votes(bank_labels[rows], weights, [k], classes)
    return scores


def solo_knn(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    metric: Metric = "l2",
) -> tuple[float, float]:
    """Top-1 and top-5 as solo-learn's weighted k-NN reports them, as shares.

    Its "top-5" is the first min(5, k, C) classes, C the number of different labels of the queries, and
    classes without a vote fill the places: with five of each it is 1 whatever the features.

    Args:
        queries, query_labels, bank, bank_labels: see `knn_scan`; labels are 0 to C - 1.
        k, temperature, metric: see `solo_knn_scores`.

    Raises:
        UsageError: no label on either side, one class only, a label of C or more, or values that are not
            finite.

    Example:
        >>> solo_knn(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.tensor([0, 1]), k=1)
        (1.0, 1.0)
    """
    queries, query_labels = labelled_rows(queries, query_labels, "queries")
    two_classes(query_labels, "queries")
    classes = len(torch.unique(query_labels))
    scores = solo_knn_scores(queries, bank, bank_labels, classes, k, temperature, metric)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, : min(5, k, classes)]
    hits = order == query_labels[:, None]
    return float(hits[:, 0].double().mean()), float(hits.any(1).double().mean())
