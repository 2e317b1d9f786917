"""Score of encoders from label-free measures: what is expected of each, and how sure that is."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.collapse.label_free import LABEL_FREE, label_free_measures
from fullrank.collapse.label_free_score import (
    TRANSFORMS,
    Relation,
    Unexplained,
    Weights,
    expected_points,
    read_weights,
    score_encoders,
    transformed,
)
from fullrank.errors import UsageError

RELATIONS: tuple[Relation, ...] = get_args(Relation)
PLAIN = Weights(
    {r: {"view_retrieval": 10.0} for r in RELATIONS}, dict.fromkeys(RELATIONS, Unexplained(1.0, 0.1))
)


def of(retrieval: float) -> dict[str, float]:
    """Measures of an encoder whose views are found again so often."""
    return dict.fromkeys(LABEL_FREE, 0.5) | {"view_retrieval": retrieval}


def test_a_panel_is_scored_by_measures_that_every_panel_has() -> None:
    assert set(read_weights().of["panel"]) <= set(TRANSFORMS) - {"lidar", "alpha_req"}


@pytest.mark.parametrize("relation", RELATIONS)
def test_more_of_a_measure_is_never_worse(relation: Relation) -> None:
    weights = read_weights().of[relation]
    assert weights and set(weights) <= set(LABEL_FREE) and min(weights.values()) >= 0


@pytest.mark.parametrize("relation", RELATIONS)
def test_what_is_left_unexplained_has_a_size_and_an_interval_around_it(relation: Relation) -> None:
    left = read_weights().unexplained[relation]
    assert min(left.noise, left.drift) >= 0 and left.noise + left.drift > 0 and left.spread > 0
    assert left.low < 0 < left.high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.sampled_from(RELATIONS))
@settings(deadline=None, max_examples=20)
def test_what_is_expected_lies_in_its_interval_and_the_pick_has_none(
    shares: list[float], relation: Relation
) -> None:
    score = score_encoders([of(share) for share in shares], relation)
    assert all(
        low <= points <= high for low, points, high in zip(score.low, score.points, score.high, strict=True)
    )
    assert score.low[score.pick] == score.high[score.pick] == 0


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1.0, 1e9, -1.0])
def test_no_value_of_a_measure_gives_a_score_that_is_not_finite(name: str, value: float) -> None:
    assert math.isfinite(transformed(name, value))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(RELATIONS))
@settings(deadline=None, max_examples=50)
def test_the_pick_is_the_best_expected_and_probabilities_add_up(
    shares: list[float], relation: Relation
) -> None:
    score = score_encoders([of(share) for share in shares], relation, weights=PLAIN)
    expected = [expected_points(of(share), PLAIN, relation) for share in shares]
    assert expected[score.pick] == max(expected)
    assert max(score.points) == score.points[score.pick] == 0
    assert sum(score.best) == pytest.approx(1)
    assert 0 <= score.close <= 1


def test_one_encoder_is_surely_the_best() -> None:
    score = score_encoders([of(0.3)], weights=PLAIN)
    assert (score.pick, score.best, score.close) == (0, (1.0,), 1.0)


def test_two_that_read_the_same_are_as_likely_the_best() -> None:
    assert score_encoders([of(0.3), of(0.3)], weights=PLAIN).best == pytest.approx((0.5, 0.5), abs=0.03)


def test_the_farther_the_others_are_behind_the_surer_is_the_pick() -> None:
    close = [score_encoders([of(0.5), of(share)], weights=PLAIN).close for share in (0.5, 0.4, 0.3, 0.1)]
    assert close == sorted(close)
    assert close[-1] > 0.99


def test_more_points_count_as_close_more_often() -> None:
    close = [score_encoders([of(0.5)] * 5, within=within, weights=PLAIN).close for within in (0.1, 1, 3)]
    assert close == sorted(close)
    assert close[0] < close[-1]


def test_encoders_that_map_all_images_to_one_point_come_last() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(60, 1, 8, generator=generator)
    views = image + 0.5 * torch.randn(60, 4, 8, generator=generator)
    measures = [label_free_measures(z) for z in (torch.ones(60, 4, 8), views)]
    assert all(score_encoders(measures, relation).pick == 1 for relation in RELATIONS)


def test_the_same_encoders_score_the_same_every_time() -> None:
    assert score_encoders([of(0.2), of(0.21)]) == score_encoders([of(0.2), of(0.21)])


def test_no_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="no encoder to score"):
        score_encoders([])
