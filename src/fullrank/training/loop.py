"""The loop: views, loss, step, and a look at the representation after every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor
from fullrank.errors import DataError, FullrankError, UsageError
from fullrank.images.decoding import fit
from fullrank.images.prefetch import prefetch
from fullrank.images.sources import Data, Source
from fullrank.methods import StepInfo
from fullrank.training.checkpoint import TrainState
from fullrank.training.compiling import new_step
from fullrank.training.config import TrainConfig
from fullrank.training.epoch_end import EpochEvaluator
from fullrank.training.online_probe import OnlineProbe, classes_of
from fullrank.training.optim import set_learning_rates
from fullrank.training.records import Listener, RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup, generator_of, launch_fabric, prepare, setup
from fullrank.views.views import save_sheet

__all__ = ["Listener", "Outcome", "resume", "train"]

ROLLBACK_RATE = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        path: the run directory.
        reason: `finished`, or `collapsed` where training was stopped for that.
        record: the last epoch record: loss, panels, knn, verdict.
        seconds: total, watching, knn, saving.
    """

    path: Path
    reason: str
    record: Mapping[str, Any]
    seconds: Mapping[str, float]


def train(
    config: TrainConfig, out: Path, listeners: Sequence[Listener] = (), data: Data | None = None
) -> Outcome:
    """Trains from the start into a new run directory; `data` is the run's, where it is open already.

    Raises:
        UsageError: anything about the input that cannot work, before anything is written.
        FullrankError: the loss stopped being finite.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists already: take another --out, or continue it with `fullrank resume {out}`"
        )
    fabric = launch_fabric(config)
    config, data = prepare(config, fabric, data)
    s = setup(config, data, fabric)
    run = RunDir.create(out, config) if fabric.is_global_zero else RunDir(out)
    fabric.barrier()
    return Loop(s, run, listeners).run()


def resume(path: Path, listeners: Sequence[Listener] = ()) -> Outcome:
    """Continues a run from its last checkpoint, exactly; one that has ended is left as it is.

    Raises:
        UsageError: there is no run, or its data is not where it was.
    """
    run = RunDir.open(path)
    fabric = launch_fabric(run.config())
    config, data = prepare(run.config(), fabric)
    loop = Loop(setup(config, data, fabric), run, listeners)
    loop.restore()
    return loop.run()


class Loop:
    """One run. Everything random is drawn from (seed, epoch, step): no random state is to be restored."""

    def __init__(self, s: Setup, run: RunDir, listeners: Sequence[Listener]) -> None:
        self.s, self.run_dir = s, run
        self.config, self.fabric = s.config, s.fabric
        self.journal = RecordWriter(self.fabric, run, listeners)
        self.levels = CollapseMonitor()  # of training batches
        self.probe = _online_probe(s)
        self.looking = EpochEvaluator(s, run, self.probe, self.journal)
        self.progress = TrainState()
        self.total_steps = self.config.epochs * s.steps_per_epoch
        self.mark: Callable[[str], None] = _unwatched  # told what each part of a step was, by `profile`

    def run(self) -> Outcome:
        """Trains to the end, from wherever the run stands."""
        progress, notes = self.progress, [*self.s.data.notes, *self.looking.evaluation.notes]
        self.journal.tell(
            {
                "event": "start",
                "config": self.config.as_dict(),
                "step": progress.step,
                "total_steps": self.total_steps,
                "steps_per_epoch": self.s.steps_per_epoch,
                "notes": notes,
                "out": str(self.run_dir.path),
            }
        )
        try:
            return self._outcome() if progress.ended else self._end(self._trained())
        finally:
            self.looking.close(progress)

    def _trained(self) -> str:
        """All epochs that are left; why there are no more."""
        progress, config = self.progress, self.config
        if not progress.last:
            self._save_views()
            self.looking.look(progress, loss=None)
            self.looking.save(progress)
        self.s.method.train()
        while progress.epoch < config.epochs:
            self.train_epoch()
            progress.epoch += 1
            if progress.epoch % config.watch_every == 0 or progress.epoch == config.epochs:
                total = torch.as_tensor(progress.loss_sum, dtype=torch.float64)
                self.looking.look(progress, self._mean(total) / progress.loss_count)
            progress.loss_sum, progress.loss_count = 0.0, 0
            if self._collapsed() and not self._rolled_back():
                return "collapsed"
            self.looking.save(progress)
        return "finished"

    def train_epoch(self) -> None:
        """The steps of the epoch in progress, from wherever it stands."""
        s, config, progress = self.s, self.config, self.progress
        done = progress.step - progress.epoch * s.steps_per_epoch
        batches = s.batches.epoch(progress.epoch, start_step=done * config.accumulate)
        if self.fabric.device.type == "cuda":
            batches = prefetch(batches, self.fabric.device)
        images_since, clock = 0, time.perf_counter()
        for index, (indices, images) in batches:
            if index >= s.steps_per_epoch * config.accumulate:
                break  # what does not fill a step with --accumulate
            self.mark("data")
            first, last = index % config.accumulate == 0, (index + 1) % config.accumulate == 0
            if first:
                lr = set_learning_rates(s.optimizer, config, progress.step, s.steps_per_epoch)
                lr *= progress.rate_factor
                for group in s.optimizer.param_groups:
                    group["lr"] *= progress.rate_factor
                torch.manual_seed(_mixed(config.seed, progress.step, self.fabric.global_rank))
                if config.compile != "none":
                    new_step()
                s.method.before_step(StepInfo(progress.step, self.total_steps, s.steps_per_epoch))
            views = self._views(images, progress.epoch, index)
            self.mark("views")
            with self.fabric.no_backward_sync(s.wrapped, enabled=not last):
                step = s.wrapped(views)
                self.mark("forward")
                self.fabric.backward(step.loss / config.accumulate)
            self.mark("backward")
            if self.probe:
                self.probe.add_gradient(step.taps["backbone"], indices, 1.0 / config.accumulate)
            self.mark("probe")
            progress.loss_sum = progress.loss_sum + step.loss.detach().double()  # stays on the device
            progress.loss_count += 1
            images_since += config.batch_size
            if not last:
                continue
            s.method.after_backward()
            if config.clip_grad:
                self.fabric.clip_gradients(  # what is not finite is said where the loss is logged: no waiting
                    s.wrapped, s.optimizer, max_norm=config.clip_grad, error_if_nonfinite=False
                )
            if self.probe:
                self.probe.before_step()
            s.optimizer.step()
            if self.probe:
                self.probe.step(progress.step, s.steps_per_epoch)
            s.optimizer.zero_grad(set_to_none=True)
            self.mark("optimiser")
            s.method.after_step(progress.step / self.total_steps)
            self.mark("method")
            progress.step += 1
            if progress.step % config.level_every == 0 or progress.step == 1:
                loss = self._mean(step.loss)
                rate = images_since / (time.perf_counter() - clock)
                self._log_step(loss, lr, step.taps, step.terms, rate)
                images_since, clock = 0, time.perf_counter()
            self.mark("logging")
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                self.looking.save(progress)

    def _views(self, images: Tensor | list[Tensor], epoch: int, index: int) -> list[Tensor]:
        views, config, fabric = self.s.views, self.config, self.fabric
        n = config.batch_size // fabric.world_size
        # drawn for the global batch, of which this process takes its rows
        draws = views.draws(config.batch_size, generator_of(config.seed, 0, epoch, index))
        draws = draws.rows(slice(fabric.global_rank * n, (fabric.global_rank + 1) * n))
        made = views.make(images, draws)
        if config.channels_last:
            made = [view.contiguous(memory_format=torch.channels_last) for view in made]
        return made

    def _log_step(
        self, loss: float, lr: float, taps: Mapping[str, Tensor], terms: Mapping[str, Tensor], rate: float
    ) -> None:
        progress = self.progress
        if not math.isfinite(loss):
            raise FullrankError(
                f"the loss is {loss} at step {progress.step}: lower --lr, or clip with --clip-grad; "
                f"the last checkpoint in {self.run_dir.path} is from before"
            )
        with progress.clock("watching"):
            level = self.levels.step(taps)
        self.looking.settle(progress, wait=False)
        self.journal.write(
            {
                "event": "step",
                "epoch": progress.epoch,
                "step": progress.step,
                "loss": loss,
                "terms": {name: float(value.detach()) for name, value in terms.items()},
                "lr": lr,
                "level": level,
                "time": {"elapsed": self.journal.elapsed(), "images_per_second": rate},
            }
        )

    def _rolled_back(self) -> bool:
        """Goes back to the last healthy checkpoint at a tenth of the rate; False where it has or cannot."""
        wanted = self.config.on_collapse == "rollback" and self.progress.rate_factor == 1.0
        if not wanted or not self.looking.checkpoints.restore_healthy(self.progress):
            return False
        progress = self.progress
        progress.rate_factor, progress.collapsed_in_a_row = ROLLBACK_RATE, 0
        place = {"epoch": progress.epoch, "step": progress.step}
        self.journal.write({"event": "rollback", **place, "rate_factor": progress.rate_factor})
        return True

    def _collapsed(self) -> bool:
        stop = self.config.on_collapse != "warn"
        return stop and self.progress.collapsed_in_a_row >= self.config.patience

    def _end(self, reason: str) -> Outcome:
        progress = self.progress
        self.looking.settle(progress)
        progress.ended, progress.seconds["total"] = reason, self.journal.elapsed()
        ended = {"event": "end", "reason": reason, "epoch": progress.epoch, "step": progress.step}
        self.journal.write({**ended, "time": self._outcome().seconds})
        self.looking.save(progress)
        if reason == "collapsed" and self.fabric.is_global_zero:
            self.looking.checkpoints.save_healthy_encoder()
        return self._outcome()

    def _outcome(self) -> Outcome:
        seconds = dict(self.progress.seconds)
        seconds["share_watching"] = seconds["watching"] / max(seconds["total"], 1e-9)
        return Outcome(self.run_dir.path, self.progress.ended, self.progress.last, seconds)

    def restore(self) -> None:
        """Takes up the last checkpoint."""
        self.progress = self.looking.checkpoints.restore()
        self.journal.started -= self.progress.seconds["total"]

    def _save_views(self) -> None:
        if not self.fabric.is_global_zero:
            return
        views, loaded = self.s.views, _some_images(self.s.data.train, 8)
        # no larger than needed: the views must look as in training, where crops are cut from the whole image
        size = min(max(min(min(image.shape[1:]) for image in loaded), views.image_size), 4 * views.image_size)
        images = torch.stack([fit(image, size, size) for image in loaded])
        params = views.sample(len(images), size, size, generator_of(self.config.seed, 3))
        save_sheet(self.run_dir.path / "figures" / "views.png", images, views, params)

    # small things

    def _mean(self, value: Tensor) -> float:
        value = value.detach().double()
        if self.fabric.world_size > 1:
            value = self.fabric.all_reduce(value.to(self.fabric.device), reduce_op="mean")  # type: ignore[assignment]
        return float(value)


def _unwatched(_: str) -> None:
    """Nobody asked where the time goes."""


def _online_probe(s: Setup) -> OnlineProbe | None:
    """The classifier beside the method; None where it is not wanted or no image has a label."""
    classes = classes_of(s.data.train)
    if s.config.probe == "off" or not classes:
        return None
    labels = torch.from_numpy(s.data.train.labels)
    return OnlineProbe(s.backbone.feature_dim, classes, labels, s.config, s.fabric, s.optimizer)


def _some_images(source: Source, most: int) -> list[Tensor]:
    """The first images that can be decoded."""
    found: list[Tensor] = []
    for i in range(len(source)):
        with suppress(DataError):
            found.append(source.load(i))
        if len(found) == most:
            break
    return found


def _mixed(*key: int) -> int:
    return generator_of(*key, 4).initial_seed()
