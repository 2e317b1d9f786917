"""Verdicts of several layer outputs: the one that differs is named."""

from __future__ import annotations

import pytest

from fullrank.collapse.taps import with_differing_tap
from fullrank.collapse.verdict import Kind, Verdict


def marked(*kinds: Kind) -> list[int]:
    verdicts = {str(k): Verdict(kind, str(k), "") for k, kind in enumerate(kinds)}
    found = with_differing_tap(verdicts)
    assert list(found) == list(verdicts)
    name = "unlike other taps"
    return [int(tap) for tap, verdict in found.items() if any(b.name == name for b in verdict.blemishes)]


@pytest.mark.parametrize("others", [1, 2, 5])
@pytest.mark.parametrize("place", [0, -1])
def test_the_only_collapsed_layer_output_is_named(others: int, place: int) -> None:
    kinds: list[Kind] = ["healthy"] * others
    kinds.insert(0 if place == 0 else others, "dimensional")
    assert marked(*kinds) == [0 if place == 0 else others]


def test_the_only_healthy_one_of_three_is_named() -> None:
    assert marked("cluster", "healthy", "dimensional") == [1]


def test_two_of_each_are_no_exception() -> None:
    assert marked("cluster", "cluster", "healthy", "healthy") == []


def test_all_alike_is_no_exception() -> None:
    assert marked("healthy", "healthy") == []
    assert marked("complete", "complete", "complete") == []


def test_what_is_not_decidable_does_not_count() -> None:
    assert marked("not decidable", "complete") == []
    assert marked("not decidable", "complete", "healthy") == [1]
