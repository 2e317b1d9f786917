"""Tensors that processes hand each other: nothing is lost, and one process sees the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from collapse.peers_worker import copied, distances
from processes import results_of

WORKER = Path(__file__).parent / "peers_worker.py"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of(WORKER, 1, tmp_path_factory.mktemp("one") / "rendezvous")[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(WORKER, 3, tmp_path_factory.mktemp("three") / "rendezvous")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
def test_rows_of_unlike_numbers_are_gathered_in_the_order_of_ranks(
    three: list[dict[str, Any]], dtype: str
) -> None:
    assert all(each[f"torch.{dtype}"] for each in three)


def test_no_rows_at_all_can_be_gathered(three: list[dict[str, Any]]) -> None:
    assert [each["none"] for each in three] == [[0, 5]] * 3


def test_the_kth_smallest_of_all_processes_is_found_without_gathering_them(
    three: list[dict[str, Any]],
) -> None:
    wanted = distances().sort().values[[0, 1, 499, 500, 1000]].tolist()
    assert all(each["smallest"] == wanted and each["zeros"] == 0.0 for each in three)


def test_every_process_hears_what_each_says(three: list[dict[str, Any]]) -> None:
    assert three[0]["told"] == three[2]["told"]
    assert [each["words"] for each in three[0]["told"]] == ["", "\u00e4", "\u00e4\u00e4"]


def test_copies_are_counted_over_processes_also_where_hashes_are_thinned_out(
    one: dict[str, Any], three: list[dict[str, Any]]
) -> None:
    rows, distinct, most = one["copies"]
    assert (rows, most) == (6000, 301) and distinct == pytest.approx(5700, rel=0.1)
    assert all(each["copies"] == one["copies"] for each in three)


def test_a_sample_of_places_is_that_of_one_process(one: dict[str, Any], three: list[dict[str, Any]]) -> None:
    count, places, rows = one["sample"]
    assert count == 6000 and rows == copied()[torch.tensor(places)].tolist()
    assert all(each["sample"] == one["sample"] for each in three)


def test_rows_far_from_all_others_are_the_same_whoever_sees_them(
    one: dict[str, Any], three: list[dict[str, Any]]
) -> None:
    assert one["facts"][0] > 30
    for each in three:
        assert each["facts"] == one["facts"] and each["sampled"] == one["sampled"]
        assert each["farthest"] == pytest.approx(one["farthest"], rel=1e-12)
        assert each["values"] == pytest.approx(one["values"], rel=1e-10)
