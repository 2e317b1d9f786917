"""k nearest neighbours equal brute force, and their votes what counting gives."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.probes import knn_leave_one_out, knn_predict, knn_probe, knn_scan, li_knn_scan, nearest


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


@pytest.mark.parametrize("k", [1, 5, 200])
def test_leaving_one_out_is_predicting_each_row_by_a_bank_of_the_others(k: int) -> None:
    rows, labels = clustered(60, seed=3)
    others = [torch.arange(60) != i for i in range(60)]
    expected = [knn_predict(rows[i : i + 1], rows[o], labels[o], k).item() for i, o in enumerate(others)]
    assert knn_leave_one_out(rows, labels, k).tolist() == expected


def test_a_row_is_no_neighbour_of_itself_among_many_equal_ones() -> None:
    labels = torch.tensor([0] * 9 + [1])
    assert knn_leave_one_out(torch.ones(10, 3), labels, k=3).shape == (10,)
    assert knn_leave_one_out(torch.ones(2, 3), torch.tensor([0, 1]), k=3).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "temperature", "match"),
    [
        (torch.tensor([0, -1, 2]), 0.07, "1 of 3 rows have no label"),
        (torch.tensor([0.0, 1.0, 2.0]), 0.07, "one integer a row"),
        (torch.tensor([[0], [1], [2]]), 0.07, "one integer a row"),
        (torch.tensor([0, 1]), 0.07, "one integer a row"),
        (torch.tensor([0, 1, 2, 3]), 0.07, "one integer a row"),
        (torch.tensor([0, 1, 2]), 0.0, "above 0"),
        (torch.tensor([0, 1, 2]), float("nan"), "above 0"),
    ],
)
def test_leaving_one_out_refuses_what_is_no_label_a_row(
    labels: Tensor, temperature: float, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        knn_leave_one_out(torch.eye(3), labels, temperature=temperature)


def test_labels_may_be_any_numbers() -> None:
    rows, labels = clustered(60, seed=4)
    large = labels * 10**15 + 7
    assert torch.equal(knn_leave_one_out(rows, large), knn_leave_one_out(rows, labels) * 10**15 + 7)
    assert torch.equal(knn_predict(rows, rows, large), knn_predict(rows, rows, labels) * 10**15 + 7)


def test_one_row_has_no_other() -> None:
    with pytest.raises(UsageError, match="at least two"):
        knn_leave_one_out(torch.eye(1), torch.tensor([0]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="between 1 and 3"):
        nearest(torch.eye(3), torch.eye(3), 4)
    with pytest.raises(UsageError, match="2 dimensions, the bank has 3"):
        nearest(torch.eye(2), torch.eye(3), 1)


def clustered(n: int, seed: int, spread: float = 1.5, classes: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = 2 * torch.randn(classes, 12, generator=torch.Generator().manual_seed(77))
    return centres[labels] + spread * torch.randn(n, 12, generator=generator), labels


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_scan_equals_scikit_learn_for_every_k(metric: str) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (bank, labels), (queries, asked) = clustered(300, 0, 4.0), clustered(120, 1, 4.0)
    for row in knn_scan(queries, asked, bank, labels, metric=metric, votes=["majority"]):  # type: ignore[arg-type]
        theirs = KNeighborsClassifier(row.k, metric="euclidean" if metric == "l2" else "cosine")
        assert row.top1 == pytest.approx(theirs.fit(bank, labels).score(queries, asked), abs=1e-12)


def test_a_scan_has_a_row_for_every_vote_temperature_and_k() -> None:
    (bank, labels), (queries, asked) = clustered(80, 0), clustered(20, 1)
    table = knn_scan(queries, asked, bank, labels, ks=[20, 3], temperatures=[0.1, 1.0])
    ways = [("majority", None), ("similarity", 0.1), ("similarity", 1.0)]
    assert [(row.vote, row.temperature, row.k) for row in table] == [
        (*way, k) for way in ways for k in (3, 20)
    ]
    default = knn_scan(queries, asked, bank, labels)
    assert {row.k for row in default} == {1, 2, 5, 10, 20, 50}


def test_a_scan_agrees_with_knn_predict() -> None:
    (bank, labels), (queries, asked) = clustered(200, 0, 4.0), clustered(80, 1, 4.0)
    (row,) = knn_scan(queries, asked, bank, labels, ks=[20], temperatures=[0.07], votes=["similarity"])
    right = knn_predict(queries, bank, labels, k=20, temperature=0.07) == asked
    assert row.top1 == pytest.approx(right.double().mean().item())


def test_low_temperatures_do_not_overflow() -> None:
    (bank, labels), (queries, asked) = clustered(200, 0), clustered(80, 1)
    cold = knn_scan(queries, asked, bank, labels, ks=[20], temperatures=[1e-4])
    first = knn_scan(queries, asked, bank, labels, ks=[1], votes=["majority"])[0].top1
    assert cold[-1].top1 == first  # the nearest neighbour alone decides


def test_a_class_without_a_vote_is_not_among_the_first_five() -> None:
    bank, labels = torch.eye(6), torch.arange(6)
    (row,) = knn_scan(torch.eye(6), torch.zeros(6).long(), bank, labels, ks=[1], votes=["majority"])
    assert row.top1 == row.top5 == pytest.approx(1 / 6)


def test_top5_is_the_first_five_of_the_votes() -> None:
    (bank, labels), (queries, asked) = clustered(300, 0, 5.0, 12), clustered(60, 1, 5.0, 12)
    (row,) = knn_scan(queries, asked, bank, labels, ks=[100], temperatures=[0.5], votes=["similarity"])
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    value, found = similarity.topk(100, dim=1)
    votes = torch.zeros(60, 12).scatter_add_(1, labels[found], (value / 0.5).exp())
    hits = votes.topk(5, dim=1).indices == asked[:, None]
    assert row.top5 == pytest.approx(hits.any(1).double().mean().item())
    assert row.top1 == pytest.approx(hits[:, 0].double().mean().item())


def test_k_is_chosen_without_the_queries() -> None:
    """With labels of the queries turned round, the same way is chosen, and the accuracy falls."""
    (bank, labels), (queries, asked) = clustered(400, 0, 3.0), clustered(100, 1, 3.0)
    honest = knn_probe(queries, asked, bank, labels)
    wrong = knn_probe(queries, (asked + 1) % 6, bank, labels)
    assert (honest.best.k, honest.best.vote, honest.held_out) == (
        wrong.best.k,
        wrong.best.vote,
        wrong.held_out,
    )
    assert honest.best.top1 > wrong.best.top1
    assert honest.best in honest.table


def test_unlabelled_rows_neither_vote_nor_count() -> None:
    (bank, labels), (queries, asked) = clustered(200, 0, 3.0), clustered(80, 1, 3.0)
    known, judged = torch.arange(200) % 3 > 0, torch.arange(80) % 2 > 0
    less = knn_scan(queries[judged], asked[judged], bank[known], labels[known])
    marked = knn_scan(queries, asked.where(judged, -1), bank, labels.where(known, -1), ks=[r.k for r in less])
    assert marked == less


def test_results_are_json() -> None:
    (bank, labels), (queries, asked) = clustered(100, 0), clustered(20, 1)
    assert '"chosen_on"' in json.dumps(asdict(knn_probe(queries, asked, bank, labels)))
    assert '"best_k"' in json.dumps(vars(li_knn_scan(queries, asked, bank, labels)))


def test_lis_scan_repeats_beyond_what_is_stored() -> None:
    (bank, labels), (queries, asked) = clustered(300, 0, 4.0), clustered(60, 1, 4.0)
    scan = li_knn_scan(queries, asked, bank, labels, "cosine")
    assert len(scan.accuracy) == 255 and set(scan.accuracy[127:]) == {scan.accuracy[127]}
    rows = knn_scan(queries, asked, bank, labels, ks=[1, 50, 128], votes=["majority"])
    assert [row.top1 for row in rows] == [scan.accuracy[k - 1] for k in (1, 50, 128)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank_labels": torch.full((30,), -1)}, "none of the 30 bank rows has a label"),
        ({"query_labels": torch.full((10,), -1)}, "none of the 10 queries has a label"),
        ({"bank": torch.full((30, 12), torch.nan)}, "30 of 30 bank rows are not finite"),
        ({"bank_labels": torch.zeros(30)}, "one integer a row"),
        ({"ks": [31]}, "between 1 and the 30 rows"),
        ({"temperatures": [0.0]}, "temperatures are positive"),
        ({"votes": ["distance"]}, "majority or similarity"),
        (
            {"bank_labels": torch.ones(30).long(), "query_labels": torch.ones(10).long()},
            "all .* are of class 1",
        ),
    ],
)
def test_what_cannot_be_judged_is_said_in_one_line(change: dict[str, Any], message: str) -> None:
    (bank, labels), (queries, asked) = clustered(30, 0), clustered(10, 1)
    given = {"queries": queries, "query_labels": asked, "bank": bank, "bank_labels": labels, **change}
    with pytest.raises(UsageError, match=message) as caught:
        knn_scan(**given)
    assert "\n" not in str(caught.value)
