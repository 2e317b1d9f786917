"""k nearest neighbours equal brute force, however they are chunked."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.probes import knn_predict, nearest


@pytest.mark.parametrize("query_chunk", [1, 7, 100])
@pytest.mark.parametrize("bank_chunk", [3, 50, 1000])
def test_chunks_change_nothing(query_chunk: int, bank_chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(40, 6, generator=generator), torch.randn(90, 6, generator=generator)
    expected, rows = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).topk(5, dim=1)
    ours, found = nearest(queries, bank, 5, query_chunk=query_chunk, bank_chunk=bank_chunk)
    torch.testing.assert_close(ours, expected)
    assert torch.equal(found, rows)


def test_separate_clusters_are_named_without_error() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(5) * 10
    labels = torch.arange(5).repeat(20)
    bank = centres[labels] + torch.randn(100, 5, generator=generator)
    queries = centres[labels] + torch.randn(100, 5, generator=generator)
    assert torch.equal(knn_predict(queries, bank, labels, k=10), labels)


def test_a_near_neighbour_outweighs_many_far_ones() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert knn_predict(torch.tensor([[1.0, 0.2]]), bank, torch.tensor([3, 1, 1]), k=3).item() == 3


def test_a_small_bank_votes_as_a_whole() -> None:
    assert knn_predict(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), k=20).tolist() == [0, 1]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="between 1 and 3"):
        nearest(torch.eye(3), torch.eye(3), 4)
    with pytest.raises(UsageError, match="2 dimensions, the bank has 3"):
        nearest(torch.eye(2), torch.eye(3), 1)
