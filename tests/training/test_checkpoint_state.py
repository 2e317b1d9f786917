"""What a checkpoint says of a run: of which kinds it is, and what its clocks add up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from fullrank.training import checkpoint
from fullrank.training.checkpoint import COUNTS, LARGEST_COUNT, SECONDS, TrainState
from fullrank.training.records import EpochRecord

FLOATS = ("loss_sum", "rate_factor")


def read(**values: Any) -> TrainState:
    return TrainState.from_dict({**TrainState().as_dict(), **values})


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number_from_zero_that_a_float_holds(name: str) -> None:
    assert LARGEST_COUNT == 9_007_199_254_740_992
    for good in (0, 1, LARGEST_COUNT - 1):
        assert getattr(read(**{name: good}), name) == good
    for bad in (-1, 1.5, LARGEST_COUNT, "1", None):
        with pytest.raises(ValueError, match=rf"^{name} is {bad!r}$"):
            read(**{name: bad})


@pytest.mark.parametrize("name", FLOATS)
def test_a_sum_and_a_factor_are_finite_numbers(name: str) -> None:
    for good in (0, -2.5, 1e300):
        assert getattr(read(**{name: good}), name) == good
    for bad in (float("inf"), float("nan"), "1", None):
        with pytest.raises(ValueError, match=rf"^{name} is {bad!r}$"):
            read(**{name: bad})


@pytest.mark.parametrize("name", SECONDS)
def test_every_clock_has_a_finite_number(name: str) -> None:
    seconds = TrainState().seconds
    with pytest.raises(ValueError, match=r"^seconds is "):
        read(seconds={**seconds, name: float("nan")})
    with pytest.raises(ValueError, match=r"^seconds is "):
        read(seconds={key: value for key, value in seconds.items() if key != name})
    with pytest.raises(ValueError, match=r"^seconds is \[1.0\]$"):
        read(seconds=[1.0])


def test_a_wrong_value_is_shown_in_sixty_letters() -> None:
    with pytest.raises(ValueError, match=r"^step is '") as caught:
        read(step="9" * 500)
    assert len(str(caught.value)) == len("step is ") + 60


def test_what_is_no_count_may_be_anything_that_a_run_keeps() -> None:
    named = {each.name for each in fields(TrainState)}
    assert {*COUNTS, *FLOATS} < named
    assert named - {*COUNTS, *FLOATS} == {
        "best_accuracy", "untrained_knn", "best_score", "probability", "last", "ended", "rollbacks",
        "skipped", "overflowed", "first_loss", "seconds",
    }  # fmt: skip
    assert read(ended="collapsed", best_score=-3.0, first_loss=None).ended == "collapsed"


def test_clocks_of_runs_that_did_not_tell_what_steps_waited_for_begin_at_zero() -> None:
    found = read(seconds=dict.fromkeys(SECONDS, 2.0)).seconds
    assert found == {"steps": 0.0, "waiting": 0.0, **dict.fromkeys(SECONDS, 2.0)}
    assert read(seconds={**dict.fromkeys(SECONDS, 2.0), "steps": 5.0}).seconds["steps"] == 5.0


def test_a_verdict_is_that_of_the_weights_of_now_or_none() -> None:
    record = EpochRecord(epoch=2, step=8, verdict={"kind": "healthy"})
    state = TrainState(step=8, epoch=2, last=record)
    assert state.verdict == {"kind": "healthy"}
    assert TrainState(step=9, last=record).verdict == {}
    again = TrainState.from_dict(state.as_dict())
    assert again.last == record
    assert again.verdict == state.verdict
    assert TrainState().as_dict()["last"] == {}


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Give the times that the clock tells, one after another."""

    def set_to(times: list[float]) -> None:
        given = iter(times)
        monkeypatch.setattr(time, "perf_counter", lambda: next(given))

    return set_to


def test_waiting_ends_where_a_batch_comes_and_a_step_where_the_next_is_asked_for(
    ticks: Callable[[list[float]], None],
) -> None:
    state = TrainState()
    ticks([0.0, 1.0, 4.0, 9.0, 11.0])  # asked, came, done, came, done
    assert list(state.waiting_for(iter("ab"))) == ["a", "b"]
    assert state.seconds["waiting"] == 1.0 + 5.0
    assert state.seconds["steps"] == 4.0 + 7.0


@pytest.mark.parametrize(("device", "waits"), [(None, 0), ("cpu", 0), ("cuda", 1)])
def test_a_clock_waits_for_what_a_gpu_has_still_to_do(
    monkeypatch: pytest.MonkeyPatch, ticks: Callable[[list[float]], None], device: str | None, waits: int
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    state = TrainState()
    ticks([2.0, 5.0, 6.0, 10.0])
    for _ in range(2):
        with state.clock("saving", None if device is None else torch.device(device)):
            pass
    assert state.seconds["saving"] == 3.0 + 4.0
    assert len(waited) == 2 * waits


def test_the_best_encoder_and_the_clocks_have_the_names_that_readers_know() -> None:
    assert checkpoint.BEST == "best.safetensors"
    assert SECONDS == ("total", "watching", "knn", "saving")
