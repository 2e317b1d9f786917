"""Which files a checkpoint leaves beside it, and what a run of made parts takes up from one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fullrank.errors import NotFiniteError, UsageError
from fullrank.training import checkpoint
from fullrank.training.checkpoint import BEST, Checkpoints, TrainState
from fullrank.training.checkpoint_files import CheckpointFiles
from fullrank.training.records import EpochRecord

KINDS = ("healthy", "dimensional", "not decidable")


class Parts:
    """Something with a state."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class Run:
    """A run directory that writes down which encoders it was given."""

    def __init__(self, path: Path) -> None:
        self.path, self.metrics_path = path, path / "metrics.jsonl"
        self.checkpoints = CheckpointFiles(path)
        self.saved: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.metrics_path.write_text("")

    def save_encoder(self, weights: Any, header: Any, name: str = "encoder.safetensors") -> None:
        self.saved[name] = ({key: float(value.sum()) for key, value in weights.items()}, dict(header))


def made(path: Path, weight: float = 1.0, probe: bool = False, **settings: Any) -> Checkpoints:
    """Checkpoints of a network of a backbone and a head, all weights alike."""
    method = nn.ModuleDict({"backbone": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 1, bias=False)})
    for parameter in method.parameters():
        nn.init.constant_(parameter, weight)
    options = {"keep_checkpoints": 3, "early_stop": 0, "keep_every": 0, "epochs": 10, "image_size": 32,
               "method": "simsiam", "init": "", **settings}  # fmt: skip
    config = SimpleNamespace(**options, as_dict=lambda: {"epochs": options["epochs"]})
    setup = SimpleNamespace(
        method=method,
        optimizer=torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9),
        fabric=SimpleNamespace(
            strategy=SimpleNamespace(precision=Parts(scale=2.0)), is_global_zero=True, world_size=4
        ),
        sharded=False,
        config=config,
        data=SimpleNamespace(fingerprint={}, name="shapes"),
        backbone=SimpleNamespace(name="resnet8", stem="small", feature_dim=2),
        views=SimpleNamespace(mean=(0.5, 0.25), std=(0.1,)),
    )
    return Checkpoints(setup, Run(path), Parts(history=[]), Parts(lr=3.0) if probe else None)  # type: ignore[arg-type]


def judged(kind: str, epoch: int = 2, step: int = 8, **more: Any) -> TrainState:
    record = EpochRecord(epoch=epoch, step=step, verdict={"kind": kind})
    return TrainState(step=step, epoch=epoch, last=record, **more)


def write(held: Checkpoints, state: TrainState, size: int = 0) -> None:
    held.write(held.weights(state.step), state, size)


def saved(held: Checkpoints) -> dict[str, float]:
    """File of an encoder to the weight that it has."""
    run: Any = held.run
    return {name: weights["weight"] / 4 for name, (weights, _) in run.saved.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_checkpoint_is_kept_and_no_other(tmp_path: Path, kind: str) -> None:
    held = made(tmp_path)
    write(held, judged(kind))
    assert (tmp_path / "healthy.pt").is_file() == (kind == "healthy")
    assert saved(held) == {"encoder.safetensors": 1.0}


def test_a_checkpoint_has_all_that_a_run_goes_on_from(tmp_path: Path) -> None:
    held = made(tmp_path, probe=True)
    write(held, judged("healthy"), size=17)
    found = held.run.checkpoints.load("last").state
    assert list(found) == ["method", "optimizer", "precision", "probe", "monitor", "progress", "metrics_size",
                           "config", "processes", "data"]  # fmt: skip
    assert (found["metrics_size"], found["processes"], found["probe"]) == (17, 4, {"lr": 3.0})
    assert (found["precision"], found["monitor"], found["config"]) == (
        {"scale": 2.0},
        {"history": []},
        {"epochs": 10},
    )
    assert made(tmp_path).weights(0)["probe"] == {}


def test_as_many_are_kept_as_the_configuration_says(tmp_path: Path) -> None:
    held = made(tmp_path, keep_checkpoints=2)
    for step in range(4):
        write(held, TrainState(step=step))
    assert {path.name for path in tmp_path.glob("last*.pt")} == {"last.pt", "last-1.pt"}


def test_the_encoder_is_the_backbone_with_a_header_that_describes_it(tmp_path: Path) -> None:
    held = made(tmp_path, init="before.safetensors")
    write(held, judged("healthy", epoch=3, step=9))
    run: Any = held.run
    weights, header = run.saved["encoder.safetensors"]
    assert weights == {"weight": 4.0}
    assert header == {
        "backbone": "resnet8", "stem": "small", "feature_dim": 2, "image_size": 32, "mean": [0.5, 0.25],
        "std": [0.1], "method": "simsiam", "data": "shapes", "init": "before.safetensors",
        "epoch": 3, "step": 9, "verdict": {"kind": "healthy"},
    }  # fmt: skip
    bare = made(tmp_path)
    write(bare, TrainState())
    assert "init" not in bare.run.saved["encoder.safetensors"][1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("every", "epoch", "kind", "kept"), [
    (0, 4, "healthy", False), (2, 4, "healthy", True), (2, 3, "healthy", False), (2, 4, "", False),
    (3, 3, "dimensional", True),
])  # fmt: skip
def test_an_encoder_is_kept_every_so_many_judged_epochs(
    tmp_path: Path, every: int, epoch: int, kind: str, kept: bool
) -> None:
    held = made(tmp_path, keep_every=every)
    write(held, judged(kind, epoch=epoch) if kind else TrainState(epoch=epoch))
    assert (f"encoders/epoch_{epoch:04d}.safetensors" in saved(held)) == kept


@pytest.mark.parametrize("ended", ["", "finished", "collapsed"])
def test_a_run_that_ended_collapsed_leaves_the_encoder_of_its_last_healthy_checkpoint(
    tmp_path: Path, ended: str
) -> None:
    write(made(tmp_path, weight=5.0), judged("healthy", epoch=1, step=4))
    held = made(tmp_path, weight=1.0)
    write(held, judged("dimensional", ended=ended))
    run: Any = held.run
    assert saved(held) == {"encoder.safetensors": 5.0 if ended == "collapsed" else 1.0}
    assert run.saved["encoder.safetensors"][1]["epoch"] == (1 if ended == "collapsed" else 2)


def test_a_run_that_was_never_healthy_leaves_its_last_encoder(tmp_path: Path) -> None:
    held = made(tmp_path, weight=2.0)
    write(held, judged("complete", ended="collapsed"))
    assert saved(held) == {"encoder.safetensors": 2.0}


@pytest.mark.parametrize("early_stop", [0, 3])
@pytest.mark.parametrize("best_epoch", [1, 2])
@pytest.mark.parametrize("ended", ["", "finished"])
@pytest.mark.parametrize("known", [False, True])
def test_with_early_stop_the_best_encoder_is_kept_and_left_at_the_end(
    tmp_path: Path, early_stop: int, best_epoch: int, ended: str, known: bool
) -> None:
    if known:
        (tmp_path / BEST).write_bytes(b"the best")
    held = made(tmp_path, early_stop=early_stop)
    write(held, judged("healthy", epoch=2, best_epoch=best_epoch, ended=ended))
    is_best = bool(early_stop) and best_epoch == 2
    copied = bool(early_stop) and bool(ended) and best_epoch != 2 and known
    assert (BEST in saved(held)) == is_best
    assert ("encoder.safetensors" in saved(held)) == (not copied)
    assert (tmp_path / "encoder.safetensors").is_file() == copied
    if copied:
        assert (tmp_path / "encoder.safetensors").read_bytes() == b"the best"


def test_weights_that_were_not_judged_are_the_best_of_no_epoch(tmp_path: Path) -> None:
    held = made(tmp_path, early_stop=3)
    write(held, TrainState(epoch=0, best_epoch=0))
    assert BEST not in saved(held)


def test_a_run_begins_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    held = made(tmp_path)
    held.run.metrics_path.write_text("from before\n")
    assert held.restore(None) == TrainState()
    assert held.run.metrics_path.read_text() == ""


def test_a_process_that_is_not_the_first_leaves_the_files(tmp_path: Path) -> None:
    held = made(tmp_path)
    write(held, TrainState(step=3), size=5)
    held.run.metrics_path.write_text("0123456789\n")
    other = made(tmp_path)
    other.run.metrics_path.write_text("0123456789\n")
    other.s.fabric.is_global_zero = False  # type: ignore[misc]
    assert other.restore(None) == TrainState()
    assert other.restore(other.run.checkpoints.newest()).step == 3
    assert other.run.metrics_path.read_text() == "0123456789\n"
    assert saved(other) == {}


def test_all_is_taken_up_from_a_checkpoint_but_the_settings_of_the_optimiser(tmp_path: Path) -> None:
    first = made(tmp_path, weight=5.0, probe=True)
    first.s.fabric.strategy.precision.load_state_dict({"scale": 8.0})
    first.monitor.load_state_dict({"history": [1]})
    assert first.probe is not None
    first.probe.load_state_dict({"lr": 7.0})
    write(first, judged("healthy", images=40), size=6)
    held = made(tmp_path, weight=1.0, probe=True)
    held.run.metrics_path.write_text("{...}\n{...}\n")
    for group in held.s.optimizer.param_groups:
        group["lr"] = 0.125
    state = held.restore(held.run.checkpoints.newest(), images=40)
    assert state == judged("healthy", images=40)
    assert float(next(held.s.method.parameters()).sum()) == 20.0
    assert held.s.fabric.strategy.precision.state_dict() == {"scale": 8.0}
    assert held.monitor.state_dict() == {"history": [1]}
    assert held.probe is not None
    assert held.probe.state_dict() == {"lr": 7.0}
    assert [group["lr"] for group in held.s.optimizer.param_groups] == [0.125]
    assert held.run.metrics_path.read_text() == "{...}\n"
    assert saved(held) == {"encoder.safetensors": 5.0}
    without = made(tmp_path)
    assert without.restore(without.run.checkpoints.newest()).step == 8


def test_a_probe_that_a_checkpoint_does_not_have_begins(tmp_path: Path) -> None:
    write(made(tmp_path), TrainState(step=1))
    held = made(tmp_path, probe=True)
    held.restore(held.run.checkpoints.newest())
    assert held.probe is not None
    assert held.probe.state_dict() == {"lr": 3.0}


def test_other_images_are_refused_unless_the_run_is_over_or_no_number_is_known(tmp_path: Path) -> None:
    write(made(tmp_path), TrainState(step=1, images=40))
    held = made(tmp_path)
    with pytest.raises(UsageError, match="began with 40 training images, and there are 41"):
        held.restore(held.run.checkpoints.newest(), images=41)
    assert held.restore(held.run.checkpoints.newest(), images=0).images == 40
    write(made(tmp_path), TrainState(step=1, images=40, ended="collapsed"))
    assert held.restore(held.run.checkpoints.newest(), images=41).ended == "collapsed"


@pytest.mark.parametrize(("ended", "since", "early_stop", "epoch", "goes_on"), [
    ("finished", 0, 0, 9, True), ("finished", 0, 0, 10, False), ("collapsed", 0, 0, 9, False),
    ("stopped early", 2, 0, 9, True), ("stopped early", 2, 3, 9, True), ("stopped early", 3, 3, 9, False),
    ("stopped early", 2, 3, 10, False), ("finished", 5, 3, 9, True),
])  # fmt: skip
def test_a_run_that_is_to_be_longer_than_it_was_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str, since: int, early_stop: int, epoch: int,
    goes_on: bool,
) -> None:  # fmt: skip
    write(made(tmp_path), TrainState(step=1, epoch=epoch, since_best=since, ended=ended), size=5)
    held = made(tmp_path, early_stop=early_stop)
    sizes: list[int] = []
    monkeypatch.setattr(checkpoint, "size_without_end", lambda path, size: size - 2)
    monkeypatch.setattr(checkpoint, "truncate_records", lambda path, size: sizes.append(size))
    assert held.restore(held.run.checkpoints.newest()).ended == ("" if goes_on else ended)
    assert sizes == [3 if goes_on else 5]


@pytest.mark.parametrize(("key", "value", "says"), [
    ("metrics_size", -1, "metrics_size is -1"), ("metrics_size", "x", "invalid literal"),
    ("progress", {}, "'last'"), ("monitor", None, ""), ("method", {}, "Missing key"),
    ("optimizer", {}, "'state'"),
])  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line_that_names_it(
    tmp_path: Path, key: str, value: Any, says: str
) -> None:
    held = made(tmp_path)
    write(held, TrainState(step=1))
    found = held.run.checkpoints.newest()
    assert found is not None
    found.state[key] = value
    with pytest.raises(UsageError, match=r"last.pt does not fit the run's config.yaml: ") as caught:
        held.restore(found)
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert len(line.partition("config.yaml: ")[2]) <= 200


def test_weights_that_are_not_finite_are_taken_up_from_no_checkpoint(tmp_path: Path) -> None:
    held = made(tmp_path)
    write(held, TrainState(step=1))
    found = held.run.checkpoints.newest()
    assert found is not None
    found.state["method"]["head.weight"][0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"last.pt: head.weight is not finite: take another checkpoint"):
        held.restore(found)


def test_a_checkpoint_before_the_last_takes_its_place(tmp_path: Path) -> None:
    held = made(tmp_path)
    for step in (1, 2):
        write(held, TrainState(step=step))
    (tmp_path / "last.pt").write_bytes(b"damaged")
    assert held.restore(held.run.checkpoints.newest()).step == 1
    assert held.run.checkpoints.load("last").state["progress"]["step"] == 1
    assert (tmp_path / "damaged-last.pt").is_file()


def test_a_rollback_takes_up_the_last_healthy_weights_and_keeps_what_happened(tmp_path: Path) -> None:
    write(made(tmp_path, weight=5.0), judged("healthy", epoch=1, step=4))
    held = made(tmp_path, weight=1.0)
    write(held, judged("complete", epoch=2, step=8))
    state = judged("complete", epoch=2, step=8, rollbacks=1, panels=2)
    assert held.restore_healthy(state)
    assert (state.epoch, state.step, state.rollbacks, state.panels) == (1, 4, 1, 2)
    assert state.verdict == {"kind": "healthy"}
    assert float(next(held.s.method.parameters()).sum()) == 20.0


def test_there_is_no_rollback_without_a_healthy_checkpoint(tmp_path: Path) -> None:
    held = made(tmp_path)
    write(held, judged("complete"))
    state = judged("complete")
    assert not held.restore_healthy(state)
    assert state == judged("complete")


def test_a_checkpoint_that_was_kept_is_taken_up_by_its_name(tmp_path: Path) -> None:
    first = made(tmp_path, weight=5.0)
    write(first, judged("healthy", epoch=1, step=4))
    first.run.checkpoints.keep("chosen")
    held = made(tmp_path, weight=1.0)
    state = TrainState(epoch=7, step=70, panels=3)
    held.restore_kept("chosen", state)
    assert (state.epoch, state.step, state.panels, state.verdict) == (1, 4, 3, {"kind": "healthy"})
    assert float(next(held.s.method.parameters()).sum()) == 20.0
