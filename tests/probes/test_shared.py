"""Probes of rows that processes share: the answers of one process that has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processes import results_of

WORKER = Path(__file__).parent / "shared_worker.py"

WORLDS = [
    pytest.param(2, marks=[pytest.mark.slow, pytest.mark.acceptance]),
    pytest.param(3, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of(WORKER, 1, tmp_path_factory.mktemp("one") / "rendezvous")[0]


@pytest.fixture(scope="module", params=WORLDS)
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(WORKER, request.param, tmp_path_factory.mktemp("several") / "rendezvous")


@pytest.mark.parametrize(
    "probe", ["knn cosine", "knn l2", "sizes cosine", "sizes l2", "linear", "linear sizes"]
)
def test_accuracies_of_processes_are_those_of_one(
    one: dict[str, Any], several: list[dict[str, Any]], probe: str
) -> None:
    assert all(each[probe] == one[probe] for each in several)


def test_a_classifier_of_shared_rows_has_the_weights_of_one(
    one: dict[str, Any], several: list[dict[str, Any]]
) -> None:
    for each in several:
        for own, other in zip(each["weights"], one["weights"], strict=True):
            assert own == pytest.approx(other, rel=1e-6, abs=1e-8)


def test_clusters_of_shared_rows_are_those_of_one(one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    inertia, agreement = one["clusters"]
    for each in several:
        assert each["clusters"][0] == pytest.approx(inertia, rel=1e-10)
        assert each["clusters"][1] == agreement


def test_labels_that_one_process_has_serve_all_and_none_anywhere_are_refused_by_all(
    one: dict[str, Any], several: list[dict[str, Any]]
) -> None:
    assert len({each["labels of one"] for each in several}) == 1 and several[0]["labels of one"] >= 2
    assert all("has a label" in each["error"] for each in [one, *several])
