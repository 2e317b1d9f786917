"""Watching costs little: evaluations are as frequent as 5 % of the time allow, and resuming keeps to it."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fullrank.training import loop, run, watching
from fullrank.training.checkpoint import TrainState
from fullrank.training.config import TrainConfig
from fullrank.training.watching import SHARE, SHORT, is_due, next_watch

SMALL: dict[str, Any] = {
    "limit": 96, "batch_size": 32, "backbone": "resnet8-w16", "accelerator": "cpu", "watch_images": 64,
    "options": {"proj_hidden_dim": 32, "proj_output_dim": 32, "pred_hidden_dim": 16},
}  # fmt: skip


def simulated(config: TrainConfig, of_epoch: float, of_evaluation: float) -> tuple[list[int], float]:
    """Epochs that are evaluated, and the share of the time that this takes."""
    state, elapsed, watched = TrainState(), 0.0, []
    for epoch in range(config.epochs + 1):
        state.epoch = epoch
        elapsed += of_epoch * (epoch > 0)
        if epoch == 0 or is_due(config, state):
            if epoch < config.epochs:
                state.next_watch = next_watch(config, state, elapsed)
            state.evaluations += 1
            state.seconds["watching"] += of_evaluation
            elapsed += of_evaluation
            watched.append(epoch)
    return watched, state.seconds["watching"] / elapsed


@example(epochs=3, of_epoch=1.0, of_evaluation=5.0)  # the last evaluation passes the twenty seconds
@given(
    epochs=st.integers(2, 300), of_epoch=st.floats(0.01, 60), of_evaluation=st.floats(0.001, 30)
)  # whatever a machine, a network and images may take
def test_at_most_a_twentieth_of_a_long_run_but_for_the_first_and_the_last(
    epochs: int, of_epoch: float, of_evaluation: float
) -> None:
    watched, share = simulated(TrainConfig(epochs=epochs), of_epoch, of_evaluation)
    assert watched[0] == 0 and watched[-1] == epochs
    every = epochs * (of_epoch + of_evaluation) + of_evaluation
    if every <= SHORT:
        assert watched == list(range(epochs + 1))
    elif len(watched) > 3 and len(watched) * of_evaluation / share > SHORT:  # as it came out
        # the untrained network, the first epoch and the last are always looked at
        assert share <= SHARE + 1e-9
        gaps = [after - before for before, after in itertools.pairwise(watched[1:])]
        assert max(gaps) <= 3 * math.ceil(epochs / (len(watched) - 2)), "spread over the run"


def test_cheap_evaluations_come_after_every_epoch() -> None:
    assert simulated(TrainConfig(epochs=50), 10.0, 0.1)[0] == list(range(51))


@pytest.mark.parametrize(
    "settings", [{"watch_every": 1}, {"on_collapse": "stop"}, {"on_collapse": "rollback"}]
)
def test_what_was_asked_for_stays_whatever_it_costs(settings: dict[str, Any]) -> None:
    assert simulated(TrainConfig(epochs=20, **settings), 10.0, 30.0)[0] == list(range(21))


def test_encoders_that_are_kept_are_judged() -> None:
    watched, _ = simulated(TrainConfig(epochs=40, keep_every=10), 1.0, 1.0)
    assert {10, 20, 30, 40} <= set(watched) and len(watched) < 12


def records(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows if row["event"] == "epoch"]


def test_the_choice_stands_in_the_records_and_a_resumed_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_third(config: TrainConfig, state: TrainState, elapsed: float) -> int:
        return state.epoch + 3

    monkeypatch.setattr("fullrank.training.epoch_end.next_watch", every_third)
    config = TrainConfig(epochs=7, **SMALL)
    run.train(config, tmp_path / "whole")
    whole = records(tmp_path / "whole")
    assert [(row["epoch"], row.get("next_watch")) for row in whole] == [(0, 3), (3, 6), (6, 9), (7, None)]

    class KilledError(Exception):
        pass

    def kill(record: Any) -> None:
        if record.event == "epoch" and record.epoch == 3:
            monkeypatch.setattr(loop.Loop, "train_epoch", die)

    def die(self: Any) -> None:
        raise KilledError

    train_epoch = loop.Loop.train_epoch
    with pytest.raises(KilledError):
        run.train(config, tmp_path / "killed", [kill])
    monkeypatch.setattr(loop.Loop, "train_epoch", train_epoch)
    seen: list[int] = []

    def then(config: TrainConfig, state: TrainState, elapsed: float) -> int:
        seen.append(state.epoch)
        return every_third(config, state, elapsed)

    monkeypatch.setattr("fullrank.training.epoch_end.next_watch", then)
    run.resume(tmp_path / "killed")
    assert records(tmp_path / "killed") == whole and seen == [6]


@pytest.mark.slow
def test_a_real_run_stays_within_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SHORT", 0.0)
    outcome = run.train(TrainConfig(epochs=40, **SMALL | {"watch_images": 512}), tmp_path / "run")
    watched = [row["epoch"] for row in records(tmp_path / "run")]
    assert watched[0] == 0 and watched[-1] == 40 and len(watched) < 41
    always = run.train(
        TrainConfig(epochs=8, watch_every=1, **SMALL | {"watch_images": 512}), tmp_path / "all"
    )
    assert outcome.seconds["share_watching"] < always.seconds["share_watching"]
