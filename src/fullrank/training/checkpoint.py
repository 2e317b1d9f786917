"""What a run must remember to go on exactly, and the encoder that it leaves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fullrank.collapse import CollapseMonitor
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup

__all__ = ["Checkpoints", "TrainState"]


@dataclass
class TrainState:
    """Where a run stands: all that a checkpoint holds besides weights, optimiser and monitor.

    Attributes:
        step: optimiser steps done.
        epoch: epochs done.
        loss_sum: of this epoch's batches so far; stays on the device until somebody reads it.
        loss_count: how many batches those are.
        collapsed_in_a_row: panels that said so, up to the last one.
        last: the last epoch record.
        ended: why the run is over, or "".
        rate_factor: on the learning rate; below 1 after a rollback.
        seconds: total, watching, knn, saving.
    """

    step: int = 0
    epoch: int = 0
    loss_sum: float | Tensor = 0.0
    loss_count: int = 0
    collapsed_in_a_row: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    ended: str = ""
    rate_factor: float = 1.0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"total": 0.0, "watching": 0.0, "knn": 0.0, "saving": 0.0}
    )

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Adds the time spent within to `seconds[what]`."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    @property
    def judged(self) -> bool:
        """Whether the last verdict is about the weights as they are now."""
        return self.last.get("step") == self.step


class Checkpoints:
    """Saves and restores a run; used on the first process only, but for `restore`.

    Args:
        s: the run's networks and optimiser.
        run: its directory.
        monitor: its memory of earlier panels.
        probe: the classifier beside the method, if there is one.
    """

    def __init__(
        self, s: Setup, run: RunDir, monitor: CollapseMonitor, probe: OnlineProbe | None = None
    ) -> None:
        self.s, self.run, self.monitor, self.probe = s, run, monitor, probe

    def state(self) -> dict[str, Any]:
        """What training changes, as it is now: the networks' and optimisers' own tensors, not copies."""
        return {
            "method": self.s.method.state_dict(),
            "optimizer": self.s.optimizer.state_dict(),
            "precision": self.s.fabric.strategy.precision.state_dict(),
            "probe": self.probe.state_dict() if self.probe else {},
        }

    def write(self, state: Mapping[str, Any], progress: TrainState, metrics_size: int) -> None:
        """Writes `last.pt`, makes it `healthy.pt` too where it is judged so, and writes the encoder.

        Args:
            state: from `state`, or a copy of it.
            progress: where the run stood then.
            metrics_size: bytes of the records that belong to it.
        """
        rest = {
            "monitor": self.monitor.state_dict(),
            "progress": asdict(progress),
            "metrics_size": metrics_size,
        }
        self.run.save_checkpoint({**state, **rest})
        if progress.judged and progress.last["verdict"]["kind"] == "healthy":
            _keep(self.run.checkpoint_path(), self.run.checkpoint_path("healthy"))
        weights = _backbone(state)
        self._save_encoder(weights, progress)
        every = self.s.config.keep_every
        if every and progress.judged and progress.epoch % every == 0:
            self._save_encoder(weights, progress, f"encoders/epoch_{progress.epoch:04d}.safetensors")

    def restore(self) -> TrainState:
        """Takes up the last checkpoint and drops the records after it; a run without one starts anew."""
        state = self.run.load_checkpoint()
        if self.s.fabric.is_global_zero:
            self.run.truncate_metrics(state["metrics_size"] if state else 0)
        if state is None:
            return TrainState()
        self._load(state)
        return TrainState(**state["progress"])

    def restore_healthy(self, progress: TrainState) -> bool:
        """Networks, optimiser, monitor and place of the last healthy checkpoint; False where there is none.

        Records and time are not taken back: what happened stays on record.
        """
        state = self.run.load_checkpoint("healthy")
        if state is None:
            return False
        self._load(state)
        healthy = TrainState(**state["progress"])
        progress.epoch, progress.step, progress.last = healthy.epoch, healthy.step, healthy.last
        return True

    def _load(self, state: Mapping[str, Any]) -> None:
        self.s.method.load_state_dict(state["method"])
        self.s.optimizer.load_state_dict(state["optimizer"])
        self.s.fabric.strategy.precision.load_state_dict(state["precision"])
        self.monitor.load_state_dict(state["monitor"])
        if self.probe and state.get("probe"):  # runs from before it have none
            self.probe.load_state_dict(state["probe"])

    def save_healthy_encoder(self) -> bool:
        """Where a collapsed run was healthy once, that is the encoder worth keeping; False where never."""
        healthy = self.run.load_checkpoint("healthy")
        if healthy is None:
            return False
        self._save_encoder(_backbone(healthy), TrainState(**healthy["progress"]))
        return True

    def _save_encoder(
        self, weights: Mapping[str, Tensor], progress: TrainState, name: str = "encoder.safetensors"
    ) -> None:
        s = self.s
        header = {
            "backbone": s.backbone.name,
            "stem": s.backbone.stem,
            "feature_dim": s.backbone.feature_dim,
            "image_size": s.config.image_size,
            "mean": list(s.views.mean),
            "std": list(s.views.std),
            "method": s.config.method,
            "data": s.data.name,
            "epoch": progress.epoch,
            "step": progress.step,
            "verdict": progress.last["verdict"] if progress.judged else {},
        }
        self.run.save_encoder(weights, header, name)


def _backbone(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the backbone among those of the method."""
    prefix = "backbone."
    own = state["method"].items()
    return {name.removeprefix(prefix): tensor for name, tensor in own if name.startswith(prefix)}


def _keep(source: Path, target: Path) -> None:
    """Makes `target` what `source` is now; a link will do, for `source` is only ever replaced."""
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
