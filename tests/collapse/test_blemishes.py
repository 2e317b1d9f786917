"""What is told beside a verdict: each fact with its count, of how many, and its sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from collapse.verdicts_of import randn, verdict_of
from fullrank.collapse.blemishes import Blemish, RowFacts, blemishes

PLAIN = RowFacts(n=1000, distinct=1000, most_copies=1)


def only(facts: RowFacts, d: int = 16, clustered: float = 0.0) -> Blemish:
    (found,) = blemishes(facts, d=d, possible=d, narrowest=None, clustered=clustered)
    return found


@pytest.mark.parametrize(
    ("odd", "value", "of", "says"),
    [
        ({"distinct": 600}, 400, 1000, "400 of 1,000 rows are copies of others"),
        (
            {"distinct": 600, "most_copies": 3},
            400,
            1000,
            "400 of 1,000 rows are copies of others; the commonest occurs 3 times",
        ),
        ({"distinct": 600, "most_copies": 2}, 400, 1000, "400 of 1,000 rows are copies of others"),
        (
            {"outliers": 1, "farthest": 12.0},
            1,
            1000,
            "1 row lies up to 12 times as far out as the median row; left out here",
        ),
        ({"outliers": 2}, 2, 1000, "2 rows lie away from the one point of all others; left out here"),
        (
            {"off_plane": 1},
            1,
            1000,
            "1 row lies off the few directions of all others; left out here, and ranks are of a sample",
        ),
        (
            {"off_plane": 2},
            2,
            1000,
            "about 2 rows lie off the few directions of all others; left out here, and ranks are of a sample",
        ),
        ({"dead": 4}, 4, 16, "4 of 16 dimensions are constant"),
        ({"twins": 8}, 8, 16, "8 of 16 dimensions repeat another one"),
        ({"one_sided": 8}, 8, 16, "8 of 16 dimensions never change sign"),
    ],
)
def test_a_fact_is_told_with_its_count_and_of_how_many(
    odd: dict[str, float], value: float, of: float, says: str
) -> None:
    found = only(replace(PLAIN, **odd))  # type: ignore[arg-type]
    assert (found.value, found.of, found.says) == (value, of, says)


def test_rows_in_tight_clusters_are_counted() -> None:
    found = only(PLAIN, clustered=0.4)
    assert (found.name, found.value, found.of) == ("clustered rows", 400, 1000)
    assert found.says == "40% of the rows lie in tight clusters"


def test_dimensions_that_vary_are_what_one_sided_ones_are_counted_of() -> None:
    names = [b.name for b in blemishes(replace(PLAIN, dead=8, one_sided=4), 16, 16, None)]
    assert names == ["dead dimensions", "one-sided"]
    assert [b.name for b in blemishes(replace(PLAIN, dead=8, one_sided=3), 16, 16, None)] == [names[0]]


def test_rows_without_oddities_have_no_blemish() -> None:
    assert blemishes(PLAIN, d=16, possible=16, narrowest=None) == ()


def test_dead_dimensions_of_rows_are_counted() -> None:
    rows = torch.cat([randn(500, 12), torch.ones(500, 3)], 1)
    (found,) = (b for b in verdict_of(rows).blemishes if b.name == "dead dimensions")
    assert (found.value, found.of) == (3, 15)
