"""Panels beside training: the records, checkpoints and verdicts of panels between epochs, later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from fullrank.collapse import CollapseMonitor, Report
from fullrank.collapse.verdict import Verdict
from fullrank.errors import UsageError
from fullrank.report.run.reading import read_run
from fullrank.training import epoch_end
from fullrank.training.config import TrainConfig
from fullrank.training.epoch_end import check_panels
from fullrank.training.run import resume, train
from training.test_loop import Interrupted, records, stop_at

SETTINGS: dict[str, Any] = {
    "limit": 128, "batch_size": 32, "epochs": 4, "backbone": "resnet8-w16", "views": "shapes",
    "level_every": 1, "accelerator": "cpu", "watch_images": 48, "knn_bank": 64, "diagnostics_every": 2,
    "lr": 0.1, "options": {"proj_output_dim": 16, "pred_hidden_dim": 8},
}  # fmt: skip


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, **changes})


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    """Without times and the file's length, in which times are written, and without `panels`."""
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
    for part, key in (("progress", "seconds"), ("monitor", "seconds")):
        state[part].pop(key)
    state.pop("metrics_size")
    state["config"].pop("panels")
    return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "changes",
    [{}, {"checkpoint_every": 3}, {"watch_every": 2}, {"keep_every": 1}],
    ids=["every epoch", "checkpoints within epochs", "every other epoch", "kept encoders"],
)
def test_a_run_leaves_the_same_whether_panels_come_beside_or_between(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    runs = [tmp_path / panels for panels in ("between", "beside")]
    for run in runs:
        train(config(panels=run.name, **changes), run)
    assert records(runs[1]) == records(runs[0])
    for name in ("last", "healthy"):
        there = [(run / "checkpoints" / f"{name}.pt").exists() for run in runs]
        assert there[0] == there[1]
        if there[0]:
            assert same(*(checkpoint(run, name) for run in runs))
    files = [sorted(str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()) for run in runs]
    assert files[0] == files[1]
    headers = [safe_open(run / "encoder.safetensors", "pt").metadata() for run in runs]  # type: ignore[no-untyped-call]
    assert headers[0] == headers[1]


@pytest.mark.parametrize("panels", ["between", "beside"])
def test_phases_go_by_the_accuracy_before_training_where_k_nn_is_measured(
    panels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained: list[float | None] = []

    def noted(verdict: Verdict, *_: Any, **known: Any) -> Verdict:
        untrained.append(known["untrained"])
        assert known["images"] in (48, None)
        return verdict

    monkeypatch.setattr(epoch_end, "with_phase", noted)
    train(config(panels=panels, knn_every=2), tmp_path / "run")
    first = read_run(tmp_path / "run").epochs[0]
    start = first.accuracy("knn")
    assert (first.epoch, start is not None) == (0, True)
    assert untrained == [None, None, start, None, start]
    assert checkpoint(tmp_path / "run")["progress"]["untrained_knn"] == start


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (6, 9))])
def test_a_run_cut_anywhere_resumes_to_the_same_end(step: int, tmp_path: Path) -> None:
    train(config(panels="between"), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config(panels="beside"), tmp_path / "cut", [stop_at(step)])
    resume(tmp_path / "cut")
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    assert same(checkpoint(tmp_path / "cut"), checkpoint(tmp_path / "whole"))


def before_trained_panels(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    close = CollapseMonitor.close

    def slow(self: CollapseMonitor, trained: bool = True) -> Report:
        if trained:
            do()
        return close(self, trained)

    monkeypatch.setattr(CollapseMonitor, "close", slow)


def test_training_goes_on_while_a_panel_is_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, steps = threading.Event(), 128 // 32

    def wait() -> None:
        assert event.wait(60), "training waits for the panel"

    before_trained_panels(monkeypatch, wait)
    from fullrank.training.loop import Loop

    class Watched(Loop):
        def make_views(self, *args: Any) -> list[torch.Tensor]:
            if self.state.step == 2 * steps - 1:  # the second epoch's last step has begun
                event.set()
            return super().make_views(*args)

    monkeypatch.setattr("fullrank.training.run.Loop", Watched)
    train(config(panels="beside", epochs=2), tmp_path / "run")
    events = [(r["event"], r["step"]) for r in records(tmp_path / "run")]
    assert events.index(("epoch", steps)) < events.index(("step", steps + 1))


def test_what_goes_wrong_beside_is_raised_and_no_step_record_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail() -> None:
        raise UsageError("rows are not finite")

    before_trained_panels(monkeypatch, fail)
    with pytest.raises(UsageError, match="rows are not finite"):
        train(config(panels="beside"), tmp_path / "run")
    steps = [r["step"] for r in records(tmp_path / "run") if r["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4


@pytest.mark.parametrize(
    ("changes", "processes", "says"),
    [
        (
            {"strategy": "fsdp"},
            2,
            "of which each process of --strategy fsdp has a part: take --panels between",
        ),
        ({"strategy": "fsdp"}, 1, ""),
        ({"strategy": "ddp"}, 2, ""),
        ({"early_stop": 2}, 1, "works where no panel decides: take --panels between"),
    ],
)
def test_panels_beside_are_refused_where_weights_are_in_parts_or_panels_decide(
    changes: dict[str, Any], processes: int, says: str
) -> None:
    wanted = config(panels="beside", **changes)
    with pytest.raises(UsageError, match=says) if says else nullcontext():
        check_panels(wanted, processes)
    check_panels(replace(wanted, panels="auto"), processes)
