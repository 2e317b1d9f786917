"""The state of a run besides its weights: what it begins with, its clocks, and that it comes back."""

from __future__ import annotations

import time

import pytest

from fullrank.training.checkpoint import TrainState


def test_a_run_begins_at_zero_with_the_whole_rate() -> None:
    state = TrainState()
    numbers = {key: value for key, value in vars(state).items() if isinstance(value, int | float)}
    assert numbers.pop("rate_factor") == 1.0
    assert set(numbers.values()) == {0}
    assert state.seconds == dict.fromkeys(("total", "watching", "knn", "saving", "steps", "waiting"), 0.0)
    assert (state.ended, state.best_accuracy, state.probability, state.last) == ("", None, None, None)


def test_a_clock_adds_up_the_time_within() -> None:
    state, begin = TrainState(), time.perf_counter()
    for _ in range(2):
        with state.clock("knn"):
            time.sleep(0.02)
    assert 0.04 <= state.seconds["knn"] <= time.perf_counter() - begin
    assert state.seconds["saving"] == 0.0


def test_a_state_without_a_record_has_no_verdict_and_comes_back() -> None:
    state = TrainState(step=7, epoch=2, ended="finished", rate_factor=0.1, loss_sum=1.5)
    assert state.verdict == {}
    assert state.place == {"epoch": 2, "step": 7}
    assert TrainState.from_dict(state.as_dict()) == state


def test_each_run_has_clocks_of_its_own() -> None:
    first, second = TrainState(), TrainState()
    first.seconds["total"] += 1.0
    assert second.seconds["total"] == pytest.approx(0.0)
