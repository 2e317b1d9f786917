"""Rows of a probe of which each process holds a part, in the order of ranks.

Labels are a number a row, so every process has those of all; rows stay where they are. What a probe needs of
them comes by sums, or one part at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.probes.labelled import labelled_rows
from fullrank.probes.neighbours import Backend, Metric, nearest


class LabelledPart(NamedTuple):
    """Labelled rows of this process among those of all.

    Attributes:
        rows: [b, d], its own.
        labels: int64 [b].
        all_labels: int64 [n], of all processes.
        first: place of its first row among the n.
    """

    rows: Tensor
    labels: Tensor
    all_labels: Tensor
    first: int

    def own(self, places: Tensor) -> Tensor:
        """Sorted places among all rows that are this process's, among its own."""
        places = places.to(self.rows.device) - self.first
        return places[(places >= 0) & (places < len(self.rows))]


def labelled_part(features: Tensor, labels: Tensor, what: str, peers: Peers) -> LabelledPart:
    """The labelled ones among this process's rows, and the labels of all.

    Raises:
        UsageError: as `labelled_rows`, in every process.

    Example:
        >>> part = labelled_part(torch.eye(3), torch.tensor([1, -1, 0]), "rows", Peers(alone=True))
        >>> part.labels.tolist(), part.all_labels.tolist(), part.first
        ([1, 0], [1, 0], 0)
    """
    if peers.size == 1:
        rows, known = labelled_rows(features, labels, what)
        return LabelledPart(rows, known, known, 0)
    error, some = "", bool((labels >= 0).any())
    try:
        rows, known = labelled_rows(features, labels, what) if some else (features[:0], labels[:0].long())
    except UsageError as caught:
        error = str(caught)
    answers = peers.tell([error, int(some)])
    if errors := [each for each, _ in answers if each]:
        raise UsageError(errors[0])
    if not any(there for _, there in answers):
        raise UsageError(f"none of the {what} has a label: this probe needs labels")
    counts = peers.gather(torch.tensor(len(rows))).tolist()
    known = known.to(rows.device)
    return LabelledPart(rows, known, peers.gather_rows(known), sum(counts[: peers.rank]))


def nearest_of_all(
    queries: Tensor, bank: Tensor, k: int, metric: Metric, backend: Backend, peers: Peers
) -> tuple[Tensor, Tensor]:
    """The k nearest rows of all processes' bank to each of this process's queries.

    The parts of the bank visit all processes one after the other, so a process holds two of them at a time.

    Args:
        queries: [m, d], this process's.
        bank: [b, d], likewise.
        k: neighbours, at most as many as all rows of the bank.
        metric: see `nearest`.
        backend: see `nearest`.
        peers: the processes.

    Returns:
        Similarities or distances [m, k], and places int64 [m, k] among the rows of all by rank.
    """
    if peers.size == 1:
        return nearest(queries, bank, k, metric, backend=backend)
    counts = peers.gather(torch.tensor(len(bank))).tolist()
    values, places = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long)
    places, offset = places.to(queries.device), 0
    for rank, count in enumerate(counts):
        visiting = bank if rank == peers.rank else bank.new_empty(count, bank.shape[1])
        visiting = peers.from_rank(visiting, rank) if count else visiting
        if count and len(queries):
            found, rows = nearest(queries, visiting, min(k, count), metric, backend=backend)
            both = torch.cat([values, found.to(values)], dim=1)
            order = both.argsort(dim=1, descending=metric == "cosine", stable=True)[:, :k]
            values = both.gather(1, order)
            places = torch.cat([places, rows + offset], dim=1).gather(1, order)
        offset += count
    if not len(queries):
        values, places = queries.new_empty(0, k), places.new_empty(0, k)
    return values, places
