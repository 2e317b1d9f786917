"""The loop: views, loss, step, and a look at the representation after every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor, Report
from fullrank.data.decoding import fit
from fullrank.data.sending import sent_ahead
from fullrank.data.sources import Source
from fullrank.data.views import save_sheet
from fullrank.errors import DataError, FullrankError, UsageError
from fullrank.methods import When
from fullrank.training.checkpoint import Checkpoints, Progress
from fullrank.training.compiling import new_step
from fullrank.training.config import TrainConfig
from fullrank.training.evaluation import Evaluation
from fullrank.training.online_probe import OnlineProbe, classes_of
from fullrank.training.optim import set_learning_rates
from fullrank.training.rundir import RunDir
from fullrank.training.setup import Setup, generator_of, launch_fabric, prepare, setup

__all__ = ["Listener", "Outcome", "resume", "train"]

ROLLBACK_RATE = 0.1

Listener = Callable[[Mapping[str, Any]], None]
"""Called on the first process with a `start` record, then with every record of `metrics.jsonl`."""


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


def train(config: TrainConfig, out: Path, listeners: Sequence[Listener] = ()) -> Outcome:
    """Trains from the start into a new run directory.

    Raises:
        UsageError: anything about the input that cannot work, before anything is written.
        FullrankError: the loss stopped being finite.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists already: take another --out, or continue it with `fullrank resume {out}`"
        )
    fabric = launch_fabric(config)
    config, data = prepare(config, fabric)
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
        self.s, self.run_dir, self.listeners = s, run, listeners
        self.config, self.fabric = s.config, s.fabric
        self.monitor = CollapseMonitor(study_every=s.config.study_every)
        self.evaluation = Evaluation(s, self.monitor)
        self.probe = _online_probe(s)
        self.checkpoints = Checkpoints(s, run, self.monitor, self.probe)
        self.progress = Progress()
        self.total_steps = self.config.epochs * s.steps_per_epoch
        self.started = time.perf_counter()
        self.mark: Callable[[str], None] = _unwatched  # told what each part of a step was, by `profile`

    def run(self) -> Outcome:
        """Trains to the end, from wherever the run stands."""
        progress, config = self.progress, self.config
        self._tell(
            {
                "event": "start",
                "config": config.as_dict(),
                "step": progress.step,
                "total_steps": self.total_steps,
                "steps_per_epoch": self.s.steps_per_epoch,
                "notes": [*self.s.data.notes, *self.evaluation.notes],
                "out": str(self.run_dir.path),
            }
        )
        if progress.ended:
            return self._outcome()
        if not progress.last:
            self._save_views()
            self._look(trained=False)
            self._save()
        self.s.method.train()
        while progress.epoch < config.epochs:
            self.train_epoch()
            progress.epoch += 1
            last = progress.epoch == config.epochs
            if progress.epoch % config.watch_every == 0 or last:
                self._look(trained=True)
            progress.loss_sum, progress.loss_count = 0.0, 0
            if self._collapsed() and not self._rolled_back():
                return self._end("collapsed")
            self._save()
        return self._end("finished")

    def train_epoch(self) -> None:
        """The steps of the epoch in progress, from wherever it stands."""
        s, config, progress = self.s, self.config, self.progress
        done = progress.step - progress.epoch * s.steps_per_epoch
        batches = s.batches.epoch(progress.epoch, start_step=done * config.accumulate)
        if self.fabric.device.type == "cuda":
            batches = sent_ahead(batches, self.fabric.device)
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
                s.method.before_step(When(progress.step, self.total_steps, s.steps_per_epoch))
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
                self.fabric.clip_gradients(s.wrapped, s.optimizer, max_norm=config.clip_grad)
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
                self._save()

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
        with self._clock("watching"):
            level = self.monitor.step(taps)
        self._emit(
            {
                "event": "step",
                "epoch": progress.epoch,
                "step": progress.step,
                "loss": loss,
                "terms": {name: float(value.detach()) for name, value in terms.items()},
                "lr": lr,
                "level": level,
                "time": {"elapsed": self._elapsed(), "images_per_second": rate},
            }
        )

    def _look(self, trained: bool) -> None:
        """The panel, k-NN and verdict of this epoch, as one record."""
        progress = self.progress
        loss = (
            self._mean(torch.as_tensor(progress.loss_sum, dtype=torch.float64)) / progress.loss_count
            if trained
            else None
        )
        if loss is not None and not math.isfinite(loss):
            raise FullrankError(f"the loss was not finite in epoch {progress.epoch}: lower --lr")
        with self._clock("watching"):
            report = self.evaluation.panel(trained)
        with self._clock("knn"):
            every = self.config.knn_every
            wanted = bool(every) and (progress.epoch % every == 0 or progress.epoch == self.config.epochs)
            worth = self.evaluation.worth(self.probe if trained else None, knn=wanted)
        record: dict[str, Any] = {
            "event": "epoch",
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": loss,
            **report.as_dict(),
            "knn": worth.get("knn"),
            "probe": worth.get("probe"),
        }
        progress.last = record
        collapsed = report.verdict.collapsed
        progress.collapsed_in_a_row = progress.collapsed_in_a_row + 1 if collapsed else 0
        if self.fabric.is_global_zero:
            self.run_dir.write_spectra(progress.epoch, _spectra(report))
        self._emit({**record, "time": {"elapsed": self._elapsed(), **progress.seconds}})

    def _rolled_back(self) -> bool:
        """Goes back to the last healthy checkpoint at a tenth of the rate; False where it has or cannot."""
        wanted = self.config.on_collapse == "rollback" and self.progress.rate_factor == 1.0
        if not wanted or not self.checkpoints.restore_healthy(self.progress):
            return False
        progress = self.progress
        progress.rate_factor, progress.collapsed_in_a_row = ROLLBACK_RATE, 0
        place = {"epoch": progress.epoch, "step": progress.step}
        self._emit({"event": "rollback", **place, "rate_factor": progress.rate_factor})
        return True

    def _collapsed(self) -> bool:
        stop = self.config.on_collapse != "warn"
        return stop and self.progress.collapsed_in_a_row >= self.config.patience

    def _end(self, reason: str) -> Outcome:
        progress = self.progress
        progress.ended, progress.seconds["total"] = reason, self._elapsed()
        ended = {"event": "end", "reason": reason, "epoch": progress.epoch, "step": progress.step}
        self._emit({**ended, "time": self._outcome().seconds})
        self._save()
        if reason == "collapsed" and self.fabric.is_global_zero:
            self.checkpoints.save_healthy_encoder()
        return self._outcome()

    def _outcome(self) -> Outcome:
        seconds = dict(self.progress.seconds)
        seconds["share_watching"] = seconds["watching"] / max(seconds["total"], 1e-9)
        return Outcome(self.run_dir.path, self.progress.ended, self.progress.last, seconds)

    def restore(self) -> None:
        """Takes up the last checkpoint."""
        self.progress = self.checkpoints.restore()
        self.started = time.perf_counter() - self.progress.seconds["total"]

    def _save(self) -> None:
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            with self._clock("saving"):
                self.progress.seconds["total"] = self._elapsed()
                self.checkpoints.save(self.progress)

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

    def _emit(self, record: Mapping[str, Any]) -> None:
        if self.fabric.is_global_zero:
            self.run_dir.append(record)
        self._tell(record)

    def _tell(self, record: Mapping[str, Any]) -> None:
        if self.fabric.is_global_zero:
            for listener in self.listeners:
                listener(record)

    def _mean(self, value: Tensor) -> float:
        value = value.detach().double()
        if self.fabric.world_size > 1:
            value = self.fabric.all_reduce(value.to(self.fabric.device), reduce_op="mean")  # type: ignore[assignment]
        return float(value)

    def _elapsed(self) -> float:
        return time.perf_counter() - self.started

    @contextmanager
    def _clock(self, what: str) -> Iterator[None]:
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()  # what was queued before is not this clock's time
        start = time.perf_counter()
        yield
        self.progress.seconds[what] += time.perf_counter() - start


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


def _spectra(report: Report) -> dict[str, Any]:
    spectra = {
        f"{tap}.{kind}": values
        for tap, panel in report.panels.items()
        for kind, values in panel.spectra.items()
    }
    return spectra | (report.study.spectra if report.study else {})


def _mixed(*key: int) -> int:
    return generator_of(*key, 4).initial_seed()
