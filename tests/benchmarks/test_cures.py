"""What the results of benchmarks/cures come to, and that docs and product say the same."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fullrank.collapse.treatments import PROOFS, TREATMENTS

HERE = Path(__file__).parents[2] / "benchmarks" / "cures"
SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    sys.path.insert(0, str(HERE))
    try:
        yield importlib.import_module("table")
    finally:
        sys.path.remove(str(HERE))
        for name in ("run", "summary", "table"):
            sys.modules.pop(name, None)


def rows(
    failure: str, arm: str, kinds: list[str], knn: list[float], data: str = "shapes"
) -> list[dict[str, Any]]:
    own = {"failure": failure, "data": data, "arm": arm, "probability": 0.5, "rank": 4.0, "seconds": 1.0}
    return [
        {**own, "seed": seed, "kind": kind, "healthy": kind == "healthy", "knn": top1}
        for seed, kind, top1 in zip(SEEDS, kinds, knn, strict=True)
    ]


def results_of(benchmark: Any, *found: list[dict[str, Any]]) -> Any:
    every = benchmark.cases(benchmark.read_grid())
    flat = [row for part in found for row in part]
    return [r for r in benchmark.read_cases(every, flat, SEEDS) if r.untreated is not None]


COLLAPSED = rows("no stop-gradient", "untreated", ["complete"] * 3, [0.2, 0.3, 0.2])


@pytest.mark.parametrize(
    ("kinds", "knn", "cured"),
    [
        (["healthy"] * 3, [0.3, 0.4, 0.3], True),
        (["healthy", "healthy", "complete"], [0.3, 0.4, 0.3], False),
        (["healthy"] * 3, [0.3, 0.29, 0.3], False),
    ],
)
def test_cured_is_healthy_and_above_the_untreated_arm_in_every_seed(
    benchmark: Any, kinds: list[str], knn: list[float], cured: bool
) -> None:
    (result,) = results_of(benchmark, COLLAPSED, rows("no stop-gradient", "stop-gradient", kinds, knn))
    assert (result.cures == ["stop-gradient"]) is cured


def test_a_failure_that_did_not_collapse_proves_nothing(benchmark: Any) -> None:
    calm = rows("no stop-gradient", "untreated", ["healthy", "healthy", "complete"], [0.2] * 3)
    found = results_of(benchmark, calm, rows("no stop-gradient", "stop-gradient", ["healthy"] * 3, [0.3] * 3))
    assert not found[0].induced and benchmark.proofs(found) == {}


def test_a_treatment_is_proven_by_other_failures_than_the_one_left_out(benchmark: Any) -> None:
    other = rows("nothing holds it", "untreated", ["complete"] * 3, [0.2] * 3)
    treated = rows("nothing holds it", "stop-gradient", ["healthy"] * 3, [0.5] * 3)
    found = results_of(benchmark, COLLAPSED, other, treated)
    assert benchmark.proofs(found)["stop-gradient"].cured == 1
    assert benchmark.proofs(found, without=["nothing holds it"]) == {}


def test_an_arm_of_which_a_seed_is_missing_counts_for_nothing(benchmark: Any) -> None:
    half = rows("no stop-gradient", "stop-gradient", ["healthy"] * 3, [0.5] * 3)[:2]
    found = results_of(benchmark, COLLAPSED, half)
    assert benchmark.proofs(found) == {} and benchmark.score(found)["cases"] == 0


GRID = {"most": 1, "most_where_uncured": 3}


def due(benchmark: Any, *found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    grid = benchmark.read_grid() | GRID
    case = next(c for c in benchmark.cases(grid) if (c.failure, c.data) == ("no stop-gradient", "shapes"))
    jobs = sys.modules["run"].due(case, [row for part in found for row in part], grid)
    return [(job.arm, job.seed) for job in jobs]


def arm_rows(arm: str, knn: float, kind: str = "healthy", seeds: int = 3) -> list[dict[str, Any]]:
    return rows("no stop-gradient", arm, [kind] * 3, [knn] * 3)[:seeds]


def test_the_untreated_arm_is_run_first_and_then_the_first_treatment_with_every_seed(benchmark: Any) -> None:
    assert due(benchmark) == [("untreated", seed) for seed in SEEDS]
    assert due(benchmark, COLLAPSED) == [("stop-gradient", seed) for seed in SEEDS]


def test_a_case_that_the_first_treatments_cured_is_not_treated_further(benchmark: Any) -> None:
    assert due(benchmark, COLLAPSED, arm_rows("stop-gradient", 0.9)) == []


def test_where_none_cured_further_treatments_are_tried_seed_by_seed_while_they_can_cure(
    benchmark: Any,
) -> None:
    failed, further = arm_rows("stop-gradient", 0.1), "a tenth of the rate"
    assert due(benchmark, COLLAPSED, failed) == [(further, 0)]
    assert due(benchmark, COLLAPSED, failed, arm_rows(further, 0.9, seeds=1)) == [(further, 1)]
    assert due(benchmark, COLLAPSED, failed, arm_rows(further, 0.9)) == []
    (after,) = due(benchmark, COLLAPSED, failed, arm_rows(further, 0.1, seeds=1))
    assert after[0] != further and after[1] == 0


def test_a_treatment_that_failed_with_its_first_seed_has_not_cured(benchmark: Any) -> None:
    found = results_of(benchmark, COLLAPSED, arm_rows("stop-gradient", 0.9, "complete", seeds=1))
    assert benchmark.proofs(found)["stop-gradient"][:2] == (0, 1)
    assert benchmark.score(found)["cases"] == 1


def test_proofs_and_page_are_those_of_the_results(benchmark: Any) -> None:
    grid, found = benchmark.read_grid(), json.loads(benchmark.RESULTS.read_text())
    results = benchmark.read_cases(benchmark.cases(grid), found, grid["seeds"])
    assert benchmark.proofs(results) == PROOFS
    assert benchmark.page(results, found, grid) == benchmark.PAGE.read_text(encoding="utf-8")
    assert PROOFS.keys() <= TREATMENTS.keys()
