"""Checkpoints of a run, and the encoder that it leaves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from fullrank.atomic import write_atomically
from fullrank.collapse import CollapseMonitor
from fullrank.errors import NotFiniteError, UsageError
from fullrank.networks.finite import first_not_finite
from fullrank.networks.lora import merge_lora
from fullrank.networks.sharded import whole_tensor
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.checkpoint_shards import write_shards
from fullrank.training.contract import check_images
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.optim import load_buffers
from fullrank.training.record_files import size_without_end, truncate_records
from fullrank.training.records import EpochRecord
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup
from fullrank.training.sharding import load_method, placed_buffers

T = TypeVar("T")


@dataclass
class TrainState:
    """State of a run besides weights, optimiser and monitor.

    `loss_sum` is of the `loss_count` batches of this epoch so far, and stays on the device until it is read.
    Of the `panels` of the trained network, the last `collapsed_in_a_row`, from step `collapsed_since` on, say
    that it has collapsed, and not in passing; the last one, whose record is `last`, with `probability`.
    `best_accuracy` is the best accuracy of k-NN or probe, `untrained_knn` that of k-NN before the first step;
    `ended` says why the run is over; `rate_factor` multiplies the learning rate, below 1 after a rollback,
    `rollbacks` of which were for numbers that were not finite; `skipped` steps were left out for such
    numbers, and `overflowed` ones by fp16's scaler. The first step that was logged had `first_loss`. The best
    label-free score of a trained panel was `best_score`, after epoch `best_epoch`, and the last `since_best`
    panels had none better. Of `evaluations` so far, the next is due after epoch `next_watch`, and the last
    with a k-NN was after `knn_epoch`. `images` is how many the run trains on, 0 in checkpoints that do not
    tell.
    """

    step: int = 0
    epoch: int = 0
    loss_sum: float | Tensor = 0.0
    loss_count: int = 0
    collapsed_in_a_row: int = 0
    collapsed_since: int = 0
    panels: int = 0
    best_accuracy: float | None = None
    untrained_knn: float | None = None
    best_score: float | None = None
    best_epoch: int = 0
    since_best: int = 0
    probability: float | None = None
    last: EpochRecord | None = None
    ended: str = ""
    images: int = 0
    evaluations: int = 0
    next_watch: int = 0
    knn_epoch: int = 0
    rate_factor: float = 1.0
    rollbacks: int = 0
    skipped: int = 0
    overflowed: int = 0
    first_loss: float | None = None
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("total", "watching", "knn", "saving", "steps", "waiting"), 0.0)
    )

    @contextmanager
    def clock(self, what: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time within to `seconds[what]`, once `device` is idle."""
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def waiting_for(self, batches: Iterator[T]) -> Iterator[T]:
        """Hand batches on; add what they and their steps take to `seconds`.

        Under "waiting" is the time until each came, under "steps" that and what was done with it.

        Example:
            >>> state = TrainState()
            >>> list(state.waiting_for(iter([3, 5]))), state.seconds["steps"] >= state.seconds["waiting"] > 0
            ([3, 5], True)
        """
        asked = time.perf_counter()
        for batch in batches:
            came = time.perf_counter()
            self.seconds["waiting"] += came - asked
            yield batch
            now = time.perf_counter()
            self.seconds["steps"] += now - asked
            asked = now

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
        """Read what `as_dict` gave.

        Raises:
            ValueError: a value of another kind than it wrote.
        """
        last = values["last"]
        state = cls(**{**values, "last": EpochRecord.from_dict(last) if last else None})
        if isinstance(state.seconds, dict):  # runs from before did not tell what their steps waited for
            state.seconds = {"steps": 0.0, "waiting": 0.0, **state.seconds}
        wrong = next((name for name, value in vars(state).items() if not _is_kept(name, value)), "")
        if wrong:
            raise ValueError(f"{wrong} is {getattr(state, wrong)!r:.60}")
        return state


COUNTS = (
    *("step", "epoch", "loss_count", "collapsed_in_a_row", "collapsed_since", "panels", "images"),
    *("evaluations", "next_watch", "knn_epoch", "best_epoch", "since_best"),
)
BEST = "best.safetensors"  # the encoder of the best label-free score, with early_stop
SECONDS = ("total", "watching", "knn", "saving")
LARGEST_COUNT = 2**53  # beyond it numbers are no longer exact


def _is_kept(name: str, value: Any) -> bool:
    """Whether a value of a checkpoint is of the kind that a run keeps under this name."""
    if name in COUNTS:
        return isinstance(value, int) and 0 <= value < LARGEST_COUNT
    if name in ("loss_sum", "rate_factor"):
        return isinstance(value, int | float) and math.isfinite(value)
    if name == "seconds":
        return isinstance(value, Mapping) and all(_is_kept("loss_sum", value.get(key)) for key in SECONDS)
    return True


class Checkpoints:
    """Checkpoints of a run; written by the first process."""

    def __init__(
        self, s: Setup, run: RunDir, monitor: CollapseMonitor, probe: OnlineProbe | None = None
    ) -> None:
        self.s, self.run, self.monitor, self.probe = s, run, monitor, probe

    def weights(self, step: int) -> dict[str, Any]:
        """Tensors that training changes, of networks and optimisers, not copied.

        Where they are sharded all processes call it and write their parts, as of that step; the first one
        gets what is left, and under `encoder` the backbone, whole.
        """
        found = {
            "method": self.s.method.state_dict(),
            "optimizer": self.s.optimizer.state_dict(),
            "precision": self.s.fabric.strategy.precision.state_dict(),
            "probe": self.probe.state_dict() if self.probe else {},
        }
        if not self.s.sharded:
            return found
        backbone = {key: w for key, w in found["method"].items() if key.startswith("backbone.")}
        encoder = {key: whole_tensor(w, self.s.fabric.is_global_zero) for key, w in backbone.items()}
        return {**write_shards(self.run.checkpoints.folder, found, step), "encoder": encoder}

    def write(self, weights: Mapping[str, Any], state: TrainState, metrics_size: int) -> None:
        """Write `last.pt`, and what follows from it.

        `metrics_size` is how many bytes of the records belong to `state`.

        Raises:
            NotFiniteError: the weights are not finite; the checkpoints stay as they are.
        """
        rest = {
            "monitor": self.monitor.state_dict(),
            "progress": state.as_dict(),
            "metrics_size": metrics_size,
            "config": self.s.config.as_dict(),
            "processes": self.s.fabric.world_size,
            "data": dict(self.s.data.fingerprint),
        }
        kept = {key: value for key, value in weights.items() if key != "encoder"}
        self.run.checkpoints.write({**kept, **rest}, self.s.config.keep_checkpoints)
        self._write_side_files(weights, state)

    def _write_side_files(self, weights: Mapping[str, Any], state: TrainState) -> None:
        """Write what follows from `last.pt`: `healthy.pt` and encoders.

        A run that ended collapsed leaves the encoder of its last healthy checkpoint, where it has one, and
        with `early_stop` one that ended otherwise that of its best score.
        """
        if state.verdict.get("kind") == "healthy":
            self.run.checkpoints.keep_healthy()
        healthy = self._last_healthy() if state.ended == "collapsed" else None
        best, is_best = self.run.path / BEST, bool(state.verdict) and state.best_epoch == state.epoch
        if self.s.config.early_stop and is_best:
            self._save_encoder(weights, state, BEST)
        if healthy is not None:
            self._save_encoder(healthy, TrainState.from_dict(healthy["progress"]))
        elif self.s.config.early_stop and state.ended and not is_best and best.is_file():
            write_atomically(self.run.path / "encoder.safetensors", best.read_bytes())
        else:
            self._save_encoder(weights, state)
        every = self.s.config.keep_every
        if every and state.verdict and state.epoch % every == 0:
            self._save_encoder(weights, state, f"encoders/epoch_{state.epoch:04d}.safetensors")

    def restore(self, found: LoadedCheckpoint | None, images: int = 0) -> TrainState:
        """Take up a checkpoint, drop later records, and write its side files again.

        Args:
            found: the checkpoint; None begins.
            images: that there are to train on; 0: as many as before.

        Raises:
            UsageError: it does not fit the networks of the configuration, or there are other images.
        """
        first = self.s.fabric.is_global_zero
        if found is None:
            if first:
                truncate_records(self.run.metrics_path, 0)
            return TrainState()
        try:
            state, size = self._load(found.state), int(found.state["metrics_size"])
            if size < 0:
                raise ValueError(f"metrics_size is {size}")
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            why = " ".join(str(error).split())[:200]
            raise UsageError(f"{found.path} does not fit the run's config.yaml: {why}") from error
        if name := first_not_finite(found.state["method"]):
            raise NotFiniteError(f"{found.path}: {name} is not finite: take another checkpoint in its place")
        waits = not self.s.config.early_stop or state.since_best < self.s.config.early_stop
        longer = state.ended == "finished" or (state.ended == "stopped early" and waits)
        if longer and state.epoch < self.s.config.epochs:  # than it was to be
            state.ended, size = "", size_without_end(self.run.metrics_path, size)
        if images and not state.ended:
            check_images(state.images, images, found.state.get("data"), self.s.data.fingerprint)
        if first:
            truncate_records(self.run.metrics_path, size)
            if found.path.name != "last.pt":
                self.run.checkpoints.promote(found.path)
            self._write_side_files(found.state, state)
        return state

    def _last_healthy(self) -> dict[str, Any] | None:
        """The last sound checkpoint that was judged healthy; None without one."""
        for found in self.run.checkpoints.every(first="healthy"):
            if TrainState.from_dict(found.state["progress"]).verdict.get("kind") == "healthy":
                return found.state
        return None

    def restore_healthy(self, state: TrainState) -> bool:
        """Take up the last healthy checkpoint; False where there is none.

        Records and time are not taken back: what happened stays on record.
        """
        found = self._last_healthy()
        if found is None:
            return False
        healthy = self._load(found)
        state.epoch, state.step, state.last = healthy.epoch, healthy.step, healthy.last
        return True

    def restore_kept(self, name: str, state: TrainState) -> None:
        """Take up a checkpoint that was kept; records and time stay as they are.

        Raises:
            DamagedCheckpointError: it is not what was written.
        """
        kept = self._load(self.run.checkpoints.load(name).state)
        state.epoch, state.step, state.last = kept.epoch, kept.step, kept.last

    def _load(self, found: Mapping[str, Any]) -> TrainState:
        load_method(self.s.method, found["method"])
        load_buffers(self.s.optimizer, placed_buffers(self.s.optimizer, found["optimizer"]))
        self.s.fabric.strategy.precision.load_state_dict(found["precision"])
        self.monitor.load_state_dict(found["monitor"])
        if self.probe and found.get("probe"):  # runs from before it have none
            self.probe.load_state_dict(found["probe"])
        return TrainState.from_dict(found["progress"])

    def _save_encoder(
        self, weights: Mapping[str, Any], state: TrainState, name: str = "encoder.safetensors"
    ) -> None:
        s, prefix = self.s, "backbone."
        method: Mapping[str, Tensor] = weights.get("encoder", weights["method"])
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
            **({"init": s.config.init} if s.config.init else {}),
            **state.place,
            "verdict": state.verdict,
        }
        self.run.save_encoder(backbone, header, name)
