"""Checkpoints of a run, and the encoder that it leaves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor
from fullrank.networks.lora import merge_lora
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.records import EpochRecord
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup


@dataclass
class TrainState:
    """State of a run besides weights, optimiser and monitor.

    `loss_sum` is of the `loss_count` batches of this epoch so far, and stays on the device until it is read.
    Of the `panels` of the trained network, the last `collapsed_in_a_row`, from step `collapsed_since` on, say
    that it has collapsed, and not in passing; the last one, whose record is `last`, with `probability`.
    `best_accuracy` is the best accuracy of k-NN or probe; `ended` says why the run is over; `rate_factor`
    multiplies the learning rate, below 1 after a rollback. Of `evaluations` so far, the next is due after
    epoch `next_watch`, and the last with a k-NN was after `knn_epoch`. `images` is how many the run trains
    on, 0 in checkpoints that do not tell.
    """

    step: int = 0
    epoch: int = 0
    loss_sum: float | Tensor = 0.0
    loss_count: int = 0
    collapsed_in_a_row: int = 0
    collapsed_since: int = 0
    panels: int = 0
    best_accuracy: float | None = None
    probability: float | None = None
    last: EpochRecord | None = None
    ended: str = ""
    images: int = 0
    evaluations: int = 0
    next_watch: int = 0
    knn_epoch: int = 0
    rate_factor: float = 1.0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"total": 0.0, "watching": 0.0, "knn": 0.0, "saving": 0.0}
    )

    @contextmanager
    def clock(self, what: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time within to `seconds[what]`, once `device` is idle."""
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    @property
    def place(self) -> dict[str, int]:
        """Epochs and steps done, as records have them."""
        return {"epoch": self.epoch, "step": self.step}

    @property
    def verdict(self) -> Mapping[str, Any]:
        """Verdict on the weights as they are now; empty where there is none."""
        return self.last.verdict if self.last and self.last.step == self.step else {}

    def as_dict(self) -> dict[str, Any]:
        """State as a checkpoint holds it."""
        return {**vars(self), "last": self.last.as_dict() if self.last else {}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_dict` gave."""
        last = values["last"]
        return cls(**{**values, "last": EpochRecord.from_dict(last) if last else None})


class Checkpoints:
    """Checkpoints of a run; written by the first process."""

    def __init__(
        self, s: Setup, run: RunDir, monitor: CollapseMonitor, probe: OnlineProbe | None = None
    ) -> None:
        self.s, self.run, self.monitor, self.probe = s, run, monitor, probe

    def weights(self) -> dict[str, Any]:
        """Tensors that training changes, of networks and optimisers, not copied."""
        return {
            "method": self.s.method.state_dict(),
            "optimizer": self.s.optimizer.state_dict(),
            "precision": self.s.fabric.strategy.precision.state_dict(),
            "probe": self.probe.state_dict() if self.probe else {},
        }

    def write(self, weights: Mapping[str, Any], state: TrainState, metrics_size: int) -> None:
        """Write `last.pt` and the encoder, and `healthy.pt` too where the verdict says so.

        `metrics_size` is how many bytes of the records belong to `state`.
        """
        monitor = self.monitor.state_dict()
        rest = {"monitor": monitor, "progress": state.as_dict(), "metrics_size": metrics_size}
        self.run.save_checkpoint({**weights, **rest})
        if state.verdict.get("kind") == "healthy":
            _keep(self.run.checkpoint_path(), self.run.checkpoint_path("healthy"))
        self._save_encoder(weights, state)
        every = self.s.config.keep_every
        if every and state.verdict and state.epoch % every == 0:
            self._save_encoder(weights, state, f"encoders/epoch_{state.epoch:04d}.safetensors")

    def restore(self) -> TrainState:
        """Take up the last checkpoint, if any, and drop the records after it."""
        found = self.run.load_checkpoint()
        if self.s.fabric.is_global_zero:
            self.run.truncate_metrics(found["metrics_size"] if found else 0)
        return TrainState() if found is None else self._load(found)

    def restore_healthy(self, state: TrainState) -> bool:
        """Take up the last healthy checkpoint; False where there is none.

        Records and time are not taken back: what happened stays on record.
        """
        found = self.run.load_checkpoint("healthy")
        if found is None:
            return False
        healthy = self._load(found)
        state.epoch, state.step, state.last = healthy.epoch, healthy.step, healthy.last
        return True

    def _load(self, found: Mapping[str, Any]) -> TrainState:
        self.s.method.load_state_dict(found["method"])
        self.s.optimizer.load_state_dict(found["optimizer"])
        self.s.fabric.strategy.precision.load_state_dict(found["precision"])
        self.monitor.load_state_dict(found["monitor"])
        if self.probe and found.get("probe"):  # runs from before it have none
            self.probe.load_state_dict(found["probe"])
        return TrainState.from_dict(found["progress"])

    def save_healthy_encoder(self) -> None:
        """Keep the encoder of a collapsed run's last healthy checkpoint, where it has one."""
        healthy = self.run.load_checkpoint("healthy")
        if healthy is not None:
            self._save_encoder(healthy, TrainState.from_dict(healthy["progress"]))

    def _save_encoder(
        self, weights: Mapping[str, Any], state: TrainState, name: str = "encoder.safetensors"
    ) -> None:
        s, prefix = self.s, "backbone."
        method: Mapping[str, Tensor] = weights["method"]
        backbone = merge_lora({k.removeprefix(prefix): w for k, w in method.items() if k.startswith(prefix)})
        header = {
            "backbone": s.backbone.name,
            "stem": s.backbone.stem,
            "feature_dim": s.backbone.feature_dim,
            "image_size": s.config.image_size,
            "mean": list(s.views.mean),
            "std": list(s.views.std),
            "method": s.config.method,
            "data": s.data.name,
            **state.place,
            "verdict": state.verdict,
        }
        self.run.save_encoder(backbone, header, name)


def _keep(source: Path, target: Path) -> None:
    """Link `target` to what `source` is now, which is only ever replaced."""
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
