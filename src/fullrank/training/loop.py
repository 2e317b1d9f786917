"""Training loop: views, loss, backward pass, step, evaluation of every epoch."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor
from fullrank.errors import BadRowsError, NotFiniteError
from fullrank.images.loader import Batch, prefetch
from fullrank.images.skipped import LIST, add_skipped
from fullrank.methods import Step, StepInfo
from fullrank.training import records
from fullrank.training.checkpoint import TrainState
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.epoch_end import EpochEvaluator
from fullrank.training.first_views import save_first_views
from fullrank.training.guard import ROLLBACK_RATE, NumberGuard
from fullrank.training.online_probe import OnlineProbe, classes_of
from fullrank.training.optim import set_learning_rates
from fullrank.training.records import EpochRecord, Listener, RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup, generator_of
from fullrank.training.signals import StoppedError, StopRequest, stop_on_signals
from fullrank.training.thawing import Thawing
from fullrank.training.trouble import HeldBatch
from fullrank.training.watching import is_due


@dataclass(frozen=True)
class Outcome:
    """End of a run: finished, collapsed, stopped early or paused; and where."""

    path: Path
    reason: str
    record: EpochRecord
    seconds: Mapping[str, float]


Until: TypeAlias = int | Callable[[], int]
"""Epochs after which a run pauses, 0 for none; a function is asked after every epoch."""


class Loop:
    """Training loop of one run, to its end or `until` so many epochs are done.

    Everything random is drawn from (seed, epoch, step): no random state is to be restored. The pieces of a
    step are methods of their own, for `profile` to time from outside.
    """

    def __init__(self, s: Setup, run: RunDir, listeners: Sequence[Listener]) -> None:
        self.s, self.run_dir = s, run
        self.until: Until = 0
        self.config, self.fabric = s.config, s.fabric
        self.writer = RecordWriter(self.fabric, run, listeners)
        self.levels = CollapseMonitor()  # of training batches
        self.probe: OnlineProbe | None = None
        if s.config.probe != "off" and (classes := classes_of(s.data.train)):
            labels = torch.from_numpy(s.data.train.labels)
            width = s.backbone.feature_dim
            self.probe = OnlineProbe(width, classes, labels, s.config, s.fabric, s.optimizer)
        self.evaluator = EpochEvaluator(s, run, self.probe, self.writer)
        self.guard = NumberGuard(s, run, self.writer, self.evaluator, self.probe, self.make_views)
        self.thawing = Thawing(s.method, s.config, s.fabric.world_size)
        self.state = TrainState(images=len(s.data.train))
        self.total_steps = self.config.epochs * s.steps_per_epoch
        self.stop = StopRequest()
        self._notes: list[str] = []  # on where it goes on
        self._saved = time.monotonic()  # when the last checkpoint was written
        self._skipped = 0  # files that are listed in the run directory
        self._images, self._logged = 0, 0.0  # images since the last step record, and when that was written

    def run(self) -> Outcome:
        """Train to the end, from wherever the run stands."""
        state = self.state
        notes = [*self._notes, *self.s.data.notes, *self.s.notes, *self.evaluator.held_out.notes]
        if self.s.data.skipped:
            self._list_skipped()
            notes.append(f"all that is left out, and why: {self.run_dir.path / LIST}")
        self.writer.notify(
            records.StartRecord(
                **state.place,
                config=self.config.as_dict(),
                total_steps=self.total_steps,
                steps_per_epoch=self.s.steps_per_epoch,
                notes=notes,
                out=str(self.run_dir.path),
            )
        )
        if state.last and not state.ended and state.epoch >= self.config.epochs:
            self.writer.notify(state.last)  # nothing is left but the end: what was judged is told again
        try:
            with stop_on_signals() as self.stop:
                reason = state.ended or self._train_epochs()
                return self._outcome() if reason in (state.ended, "paused") else self._end(reason)
        finally:
            self.s.batches.close()
            self.evaluator.close(state)
            self._list_skipped()

    def _train_epochs(self) -> str:
        """Train all epochs that are left and return why there are no more."""
        state, config = self.state, self.config
        if state.last is None:
            if self.fabric.is_global_zero:
                save_first_views(self.s, self.run_dir.path)
            self.evaluator.evaluate(state, loss=None)
            self.after_panel()
            self._save()
        self.s.method.train()
        while not self.is_over():
            until = self.until() if callable(self.until) else self.until
            if 0 < until <= state.epoch:
                self.evaluator.flush(state)
                return "paused"
            try:
                self.train_epoch()
                self.guard.end_epoch(state)
                state.epoch += 1
                if is_due(config, state):
                    total = torch.as_tensor(state.loss_sum, dtype=torch.float64)
                    self.evaluator.evaluate(state, self._mean(total) / state.loss_count)
                    self.after_panel()
            except (NotFiniteError, BadRowsError) as error:
                self.guard.roll_back(error, state)
                continue
            state.loss_sum, state.loss_count = 0.0, 0
            self._list_skipped()
            if self._collapsed() and not self._rolled_back():
                return "collapsed"
            if config.early_stop and state.since_best >= config.early_stop:
                return "stopped early"
            self._save()
        return "finished"

    def is_over(self) -> bool:
        """Whether no epoch is left to train."""
        return self.state.epoch >= self.config.epochs

    def after_panel(self) -> None:
        """Do what else follows from a panel, before the checkpoint; here nothing."""

    def _list_skipped(self) -> None:
        """List the files that are not read, where more were met."""
        skipped = self.s.data.skipped
        if len(skipped) > self._skipped:
            add_skipped(self.run_dir.path, skipped)
            self._skipped = len(skipped)

    def train_epoch(self) -> None:
        """Run the steps of the epoch in progress, from wherever it stands."""
        s, config, state = self.s, self.config, self.state
        self._images, self._logged = 0, self.writer.elapsed()
        self.thawing.begin_epoch(state.epoch)
        for index, (indices, images) in self.batches():
            begins, ends = index % config.accumulate == 0, (index + 1) % config.accumulate == 0
            if begins:
                lr, loss_sum = self.begin_step(), torch.zeros((), dtype=torch.float64)
            views = self.make_views(images, index)
            with self.fabric.no_backward_sync(s.wrapped, enabled=not ends):
                step = self.forward(views)
                self.guard.see(HeldBatch(index, indices, images, views), step)
                self.backward(step.loss / config.accumulate)
            self.backward_probe(step, indices)
            loss_sum = loss_sum + step.loss.detach().double()  # stays on the device
            self._images += config.batch_size
            if not ends:
                continue
            if applied := self.optimise():
                self.end_step()
                state.loss_sum = state.loss_sum + loss_sum
                state.loss_count += config.accumulate
            state.step += 1
            if applied:
                self.log(step, lr)
            self._checkpoint_or_stop()

    def batches(self) -> Iterator[Batch]:
        """Batches of the epoch in progress that are left, without those that fill no step."""
        s, state, accumulate = self.s, self.state, self.config.accumulate
        done = state.step - state.epoch * s.steps_per_epoch
        batches = s.batches.epoch(state.epoch, start_step=done * accumulate)
        if self.fabric.device.type == "cuda":
            batches = prefetch(batches, self.fabric.device)
        for index, batch in state.waiting_for(batches):
            if index >= s.steps_per_epoch * accumulate:
                return
            yield index, batch

    def begin_step(self) -> float:
        """Prepare optimiser, random numbers and method; return the learning rate."""
        s, config, state = self.s, self.config, self.state
        lr = set_learning_rates(s.optimizer, config, state.step, s.steps_per_epoch, state.rate_factor)
        generator = generator_of(config.seed, state.step, self.fabric.global_rank, 4)
        torch.manual_seed(generator.initial_seed())
        if config.compile != "none":
            torch.compiler.cudagraph_mark_step_begin()  # a CUDA graph may overwrite the last step's outputs
        self.guard.begin()
        s.method.before_step(StepInfo(state.step, self.total_steps, s.steps_per_epoch))
        return lr

    def make_views(self, images: Tensor | list[Tensor], index: int) -> list[Tensor]:
        """Make this process's views, with its rows of the global batch's numbers."""
        views, config, fabric = self.s.views, self.config, self.fabric
        n = config.batch_size // fabric.world_size
        generator = generator_of(config.seed, 0, self.state.epoch, index)
        numbers = views.random_numbers(config.batch_size, generator)
        made = views.make(images, numbers.rows(slice(fabric.global_rank * n, (fabric.global_rank + 1) * n)))
        if self.s.channels_last:
            made = [view.contiguous(memory_format=torch.channels_last) for view in made]
        return made

    def forward(self, views: list[Tensor]) -> Step:
        """Compute the loss of a batch, its terms and layer outputs (taps)."""
        step: Step = self.s.wrapped(views)
        return step

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a batch."""
        self.fabric.backward(loss)

    def backward_probe(self, step: Step, indices: Tensor) -> None:
        """Add the gradient of the online probe."""
        if self.probe:
            self.probe.add_gradient(step.taps["backbone"], indices, 1.0 / self.config.accumulate)

    def optimise(self) -> bool:
        """Step the optimisers of method and probe; False where the step is left out."""
        s, config = self.s, self.config
        s.average_gradients()
        s.method.after_backward()
        if self.probe:
            self.probe.before_step()
        if not self.guard.allows(self.state):
            return False
        if config.clip_grad:
            s.clip_gradients()
        s.optimizer.step()
        self.guard.count_overflow(self.state)
        if self.probe:
            self.probe.step(self.state.step, s.steps_per_epoch)
        s.optimizer.zero_grad(set_to_none=True)
        return True

    def end_step(self) -> None:
        """Let the method update what is not trained by gradient, as a momentum target."""
        self.s.method.after_step(self.s.method.info)

    def log(self, step: Step, lr: float) -> None:
        """Write a step record where one is due."""
        state = self.state
        if state.step % self.config.level_every != 0 and state.step != 1:
            return
        loss = self._mean(step.loss)
        rate = self._images / (self.writer.elapsed() - self._logged)
        state.first_loss = loss if state.first_loss is None else state.first_loss
        with state.clock("watching"):
            level = self.levels.step(step.taps)
        self.evaluator.finish(state, wait=False)
        record = records.StepRecord(
            **state.place,
            loss=loss,
            terms={name: float(value.detach()) for name, value in step.terms.items()},
            lr=lr,
            level=level,
            skipped=state.skipped or None,
            overflowed=state.overflowed or None,
            time={"elapsed": self.writer.elapsed(), "images_per_second": rate},
        )
        self.writer.write(record)
        self._images, self._logged = 0, self.writer.elapsed()

    def _checkpoint_or_stop(self) -> None:
        """Checkpoint where one is due; raise StoppedError where a signal asks for the end."""
        state, config, received = self.state, self.config, self.stop.received
        unsaved = time.monotonic() - self._saved
        late = bool(config.checkpoint_minutes) and unsaved > 60 * config.checkpoint_minutes
        if self.fabric.world_size > 1:
            late, received = self._agreed(late, received)
        if late or received or (config.checkpoint_every and state.step % config.checkpoint_every == 0):
            self.guard.flush(state)
            self._save()
        if received is not None:
            self.evaluator.finish(state)
            raise StoppedError(
                f"stopped after step {state.step} of {self.total_steps} by {received.name}; "
                f"`fullrank resume {self.run_dir.path}` continues",
                received,
            )

    def _agreed(self, late: bool, received: signal.Signals | None) -> tuple[bool, signal.Signals | None]:
        """What any process says, at the steps at which they wait for each other anyway."""
        if self.state.step % self.config.level_every:
            return False, None
        own = torch.tensor([int(late), int(received or 0)], device=self.fabric.device)
        late_one, asked = self.fabric.all_reduce(own, reduce_op="max").tolist()  # type: ignore[union-attr]
        return bool(late_one), signal.Signals(asked) if asked else None

    def _save(self) -> None:
        """Write a checkpoint."""
        self.evaluator.save(self.state)
        self._saved = time.monotonic()

    def _collapsed(self) -> bool:
        """Whether the run has been collapsed for as long as `on_collapse` waits."""
        state, config = self.state, self.config
        last = state.last.step if state.last else 0
        waited = last - state.collapsed_since >= config.patience_steps
        return config.on_collapse != "warn" and state.collapsed_in_a_row >= config.patience and waited

    def _rolled_back(self) -> bool:
        """Go back to the last healthy checkpoint, once, at a tenth of the rate."""
        state = self.state
        wanted = self.config.on_collapse == "rollback" and state.rate_factor == 1.0
        if not wanted or not self.evaluator.checkpoints.restore_healthy(state):
            return False
        state.rate_factor, state.collapsed_in_a_row = ROLLBACK_RATE, 0
        self.writer.write(
            records.RollbackRecord(epoch=state.epoch, step=state.step, rate_factor=ROLLBACK_RATE)
        )
        return True

    def _end(self, reason: str) -> Outcome:
        state = self.state
        self.evaluator.finish(state)
        state.ended, state.seconds["total"] = reason, self.writer.elapsed()
        self.writer.write(records.EndRecord(**state.place, reason=reason, time=self._outcome().seconds))
        self.evaluator.save(state)
        return self._outcome()

    def _outcome(self) -> Outcome:
        assert self.state.last is not None  # the untrained network has been evaluated
        seconds = dict(self.state.seconds)
        watching = seconds["watching"] + seconds["knn"]
        seconds["share_watching"] = watching / max(seconds["total"], 1e-9)
        seconds["share_waiting"] = seconds["waiting"] / max(seconds["steps"], 1e-9)
        return Outcome(self.run_dir.path, self.state.ended or "paused", self.state.last, seconds)

    def restore(self, found: LoadedCheckpoint | None) -> None:
        """Take up a checkpoint, or begin where there is none."""
        images = self.state.images
        self.state = self.evaluator.checkpoints.restore(found, images)
        if found is not None and not self.state.ended:
            epochs = f"epoch {self.state.epoch:,} of {self.config.epochs:,}"
            steps = f"step {self.state.step:,} of {self.total_steps:,}"
            self._notes = [*found.passed_over, f"goes on after {epochs}, {steps}, from {found.path}"]
        self.state.images = images
        self.writer.started -= self.state.seconds["total"]

    def _mean(self, value: Tensor) -> float:
        """Mean over processes."""
        value = value.detach().double()
        if self.fabric.world_size > 1:
            value = self.fabric.all_reduce(value.to(self.fabric.device), reduce_op="mean")  # type: ignore[assignment]
        return float(value)
