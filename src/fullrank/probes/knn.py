"""k nearest neighbours: accuracy of a frozen representation, untrained.

Votes for every k and every temperature come from one search. k and the temperature are hyper-parameters: they
are chosen on rows of the bank that are held out, never on the rows that are judged (`knn_probe`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.probes.labelled import labelled_rows, split_held_out, two_classes
from fullrank.probes.neighbours import Backend, Metric, nearest
from fullrank.probes.shared import labelled_part, nearest_of_all
from fullrank.progress import report_progress

Vote: TypeAlias = Literal["similarity", "distance", "majority"]
KS = (1, 2, 5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.05, 0.07, 0.1, 0.2, 0.5)
QUERIES = 4096  # whose votes are counted at a time


@dataclass(frozen=True)
class KnnRow:
    """The accuracy of one way to vote.

    Attributes:
        k: neighbours.
        vote: "similarity" weighs a vote by exp(cosine / temperature), "distance" by 1 / (distance + 1e-5),
            "majority" not at all.
        temperature: of "similarity", else None.
        top1: share of queries whose class has the most votes; of equal ones the class with the lowest number.
        top5: share whose class is among the five with the most votes, and has one.
    """

    k: int
    vote: Vote
    temperature: float | None
    top1: float
    top5: float


@dataclass(frozen=True)
class KnnResult:
    """Accuracy with k and the temperature chosen on held-out bank rows.

    Attributes:
        best: the accuracy on the queries, of what was chosen.
        held_out: the accuracy of the same on the held-out rows, which it was chosen for.
        table: every way on the queries, for a curve, never to choose from.
        metric: "cosine" or "l2".
        classes: that occur in the bank.
        bank: rows in it.
        queries: rows that were judged.
        chosen_on: rows that were held out of the bank to choose by.
    """

    best: KnnRow
    held_out: KnnRow
    table: tuple[KnnRow, ...]
    metric: Metric
    classes: int
    bank: int
    queries: int
    chosen_on: int


def knn_probe(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    ks: Sequence[int] | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    votes: Sequence[Vote] | None = None,
    metric: Metric = "cosine",
    held_out: float = 0.1,
    seed: int = 0,
    backend: Backend = "auto",
    peers: Peers | None = None,
) -> KnnResult:
    """Choose k and the vote on held-out bank rows; judge on the queries.

    Of equally good ways the one with the fewest neighbours is taken, then the first.

    Args:
        queries, query_labels, bank, bank_labels, ks, temperatures, votes: see `knn_scan`.
        metric: "cosine" or "l2".
        held_out: share of the bank, of every class, in (0, 1).
        seed: of the draw.
        backend: see `nearest`.
        peers: processes that each hold a part of queries and bank; None: this one holds all.

    Raises:
        UsageError: as `knn_scan`, and a bank too small to hold rows out.

    Example:
        >>> centres = 5 * torch.eye(3).repeat(40, 1)
        >>> bank = centres + torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
        >>> labels = torch.arange(3).repeat(40)
        >>> result = knn_probe(5 * torch.eye(3), torch.arange(3), bank, labels)
        >>> result.best.k, result.best.top1, result.chosen_on
        (1, 1.0, 12)
    """
    peers = peers or Peers(alone=True)
    part = labelled_part(bank, bank_labels, "bank rows", peers)
    bank, bank_labels = part.rows, part.labels
    kept, out = split_held_out(part.all_labels, held_out, seed)
    keep, held = part.own(kept), part.own(out)
    ks = _fitting(ks, len(kept))
    scan = partial(
        knn_scan, ks=ks, temperatures=temperatures, votes=votes, metric=metric, backend=backend, peers=peers
    )
    tried = scan(bank[held], bank_labels[held], bank[keep], bank_labels[keep])
    chosen = max(range(len(tried)), key=lambda i: (tried[i].top1, -tried[i].k))
    table = scan(queries, query_labels, bank, bank_labels)
    return KnnResult(
        best=table[chosen],
        held_out=tried[chosen],
        table=table,
        metric=metric,
        classes=len(torch.unique(part.all_labels)),
        bank=len(part.all_labels),
        queries=int(peers.sums(int((query_labels >= 0).sum()))[0]),
        chosen_on=len(out),
    )


def knn_scan(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    ks: Sequence[int] | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    votes: Sequence[Vote] | None = None,
    metric: Metric = "cosine",
    backend: Backend = "auto",
    peers: Peers | None = None,
) -> tuple[KnnRow, ...]:
    """The accuracy of many ways to vote, from one search for neighbours.

    Args:
        queries: features [m, d].
        query_labels: integers [m]; below 0 means unlabelled, which is left out.
        bank: features [n, d], on the same device.
        bank_labels: integers [n], likewise.
        ks: numbers of neighbours; None is those of `KS` that the bank has rows for.
        temperatures: of the vote "similarity", positive.
        votes: None is majority, and similarity for cosine or distance for l2.
        metric: "cosine" or "l2".
        backend: see `nearest`.
        peers: processes that each hold a part of queries and bank; None: this one holds all.

    Returns:
        A row for every vote, temperature and k, in this order, k ascending.

    Raises:
        UsageError: no label on either side, one class only, values that are not finite, k outside [1, n], a
            temperature that is not positive, or a vote that does not go with the metric.

    Example:
        >>> bank, labels = torch.eye(2), torch.tensor([0, 1])
        >>> for row in knn_scan(torch.tensor([[1.0, 0.2]]), labels[:1], bank, labels, temperatures=[0.1]):
        ...     print(row.vote, row.k, row.top1)
        majority 1 1.0
        majority 2 1.0
        similarity 1 1.0
        similarity 2 1.0
    """
    peers = peers or Peers(alone=True)
    bank, _, bank_labels, _ = labelled_part(bank, bank_labels, "bank rows", peers)
    queries, query_labels, all_queries, _ = labelled_part(queries, query_labels, "queries", peers)
    classes = two_classes(torch.cat([bank_labels, all_queries]), "labelled rows")
    ks = _fitting(ks, len(bank_labels))
    ways = [KnnRow(0, vote, t, 0.0, 0.0) for vote, t in _ways(votes, temperatures, metric)]
    values, rows = nearest_of_all(queries, bank, max(ks), metric, backend, peers)
    right = torch.zeros(len(ways), len(ks), 2, dtype=torch.long)
    parts = (torch.split(part, QUERIES) for part in (values, rows, query_labels))
    for number, (value, row, label) in enumerate(zip(*parts, strict=True)):
        report_progress("counting votes", number * QUERIES, len(query_labels))
        for w, way in enumerate(ways):
            weights = vote_weights(value, way.vote, way.temperature)
            for i, counted in enumerate(counted_votes(bank_labels[row], weights, ks, classes)):
                right[w, i] += _hits(counted, label).cpu()
    right, m = peers.reduce(right), len(all_queries)
    return tuple(
        replace(way, k=k, top1=int(right[w, i, 0]) / m, top5=int(right[w, i, 1]) / m)
        for w, way in enumerate(ways)
        for i, k in enumerate(ks)
    )


def vote_weights(values: Tensor, vote: Vote, temperature: float | None) -> Tensor:
    """Weights [m, K] of the neighbours, from similarities or distances.

    Those of "similarity" are relative to the nearest neighbour's: exp(1 / 0.01) exceeds single precision.
    """
    if vote == "majority":
        return torch.ones_like(values)
    if vote == "distance":
        return 1 / (values + 1e-5)
    if temperature is None or not temperature > 0:
        raise UsageError(f"a temperature is above 0, not {temperature}")
    return ((values - values[:, :1]) / temperature).exp()


def counted_votes(labels: Tensor, weights: Tensor, ks: Sequence[int], classes: int) -> Iterator[Tensor]:
    """Votes [m, classes] of the first k neighbours for every k of `ks`."""
    votes, seen = weights.new_zeros(len(labels), classes), 0
    for k in ks:
        votes.scatter_add_(1, labels[:, seen:k], weights[:, seen:k])
        seen = k
        yield votes


def knn_predict(
    queries: Tensor, bank: Tensor, bank_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Labels by a weighted vote of the k nearest bank rows.

    The weighting is that of Wu et al. (1805.01978), section 3.4, which DINO and solo-learn share.

    Args:
        queries, bank, bank_labels: see `knn_scan`.
        k: neighbours; where the bank is smaller, all of it votes.
        temperature: of the weights, positive.

    Returns:
        Predicted labels int64 [m].

    Raises:
        UsageError: no label in the bank, values that are not finite, k below 1, or widths that differ.

    Example:
        >>> bank, labels = torch.eye(3), torch.tensor([4, 5, 6])
        >>> knn_predict(torch.tensor([[0.1, 0.9, 0.0]]), bank, labels, k=1)
        tensor([5])
    """
    bank, bank_labels = labelled_rows(bank, bank_labels, "bank rows")
    k = min(k, len(bank))
    similarity, rows = nearest(queries, bank, k)
    return _voted(similarity, rows, bank_labels, temperature)


def knn_leave_one_out(rows: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Labels of rows by the vote of their nearest others.

    Every row is a query among all others, so that few labelled images tell as much as they can.

    Args:
        rows: [n, d], n >= 2.
        labels: int64 [n], all of them known.
        k, temperature: see `knn_predict`; where there are fewer others, all of them vote.

    Returns:
        Predicted labels int64 [n].

    Raises:
        UsageError: fewer than two rows, not one known label a row, or what `knn_predict` refuses.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> knn_leave_one_out(rows, torch.tensor([4, 4, 7, 7]), k=1)
        tensor([4, 4, 7, 7])
    """
    known, labels = labelled_rows(rows, labels, "rows")
    if len(known) < len(rows):
        missing = len(rows) - len(known)
        raise UsageError(f"{missing} of {len(rows)} rows have no label (they are below 0): leave these out")
    rows = known
    if len(rows) < 2:
        raise UsageError(f"a row has no other among {len(rows)}: there must be at least two")
    if k < 1:
        raise UsageError(f"k is 1 or more, not {k}")
    k = min(k, len(rows) - 1)
    similarity, near = nearest(rows, rows, k + 1)
    own = near == torch.arange(len(rows), device=near.device)[:, None]
    own[~own.any(1), -1] = True  # more equal rows than neighbours: the last of them stands for the row
    similarity, near = (found[~own].view(len(rows), k) for found in (similarity, near))
    return _voted(similarity, near, labels, temperature)


def _voted(similarity: Tensor, near: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Labels [m] by a weighted vote of all neighbours [m, k]."""
    weights = vote_weights(similarity, "similarity", temperature)
    classes, places = labels.unique(return_inverse=True)  # class numbers may be large
    (votes,) = counted_votes(places[near], weights, [near.shape[1]], len(classes))
    named: Tensor = classes[votes.argmax(dim=1)]
    return named


def _hits(votes: Tensor, labels: Tensor) -> Tensor:
    """Rows whose own class is first, and among the first five: [2]."""
    own = votes.gather(1, labels[:, None])
    lower = torch.arange(votes.shape[1], device=votes.device) < labels[:, None]
    ahead = ((votes > own) | (lower & (votes == own))).sum(1)
    return torch.stack([((ahead < most) & (own[:, 0] > 0)).sum() for most in (1, 5)])


def _fitting(ks: Sequence[int] | None, rows: int) -> list[int]:
    fitting = sorted({k for k in KS if k <= rows} if ks is None else set(ks))
    if not fitting or not 1 <= fitting[0] <= fitting[-1] <= rows:
        raise UsageError(f"k lies between 1 and the {rows} rows of the bank, not {list(ks or [])}")
    return fitting


def _ways(
    votes: Sequence[Vote] | None, temperatures: Sequence[float], metric: Metric
) -> list[tuple[Vote, float | None]]:
    weighted: Vote = "similarity" if metric == "cosine" else "distance"
    votes = votes or ("majority", weighted)
    if unknown := [vote for vote in votes if vote not in ("majority", weighted)]:
        raise UsageError(f"votes by {metric} are majority or {weighted}, not {unknown[0]}")
    if "similarity" in votes and (not temperatures or min(temperatures) <= 0):
        raise UsageError(f"temperatures are positive, not {list(temperatures)}")
    return [(vote, t) for vote in votes for t in (temperatures if vote == "similarity" else (None,))]
