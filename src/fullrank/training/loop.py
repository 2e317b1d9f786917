"""Training loop: views, loss, backward pass, step, evaluation of every epoch."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from lightning_fabric.wrappers import _unwrap_objects
from torch import Tensor

from fullrank.collapse import CollapseMonitor
from fullrank.errors import FullrankError, UsageError
from fullrank.images.decoding import fit
from fullrank.images.loader import Batch, first_images, prefetch
from fullrank.images.skipped import LIST, add_skipped
from fullrank.images.sources import Data
from fullrank.methods import Step, StepInfo
from fullrank.training import records
from fullrank.training.checkpoint import TrainState
from fullrank.training.config import TrainConfig
from fullrank.training.epoch_end import EpochEvaluator
from fullrank.training.fitting import fitted, naming_remedies
from fullrank.training.networks import InitialWeights
from fullrank.training.online_probe import OnlineProbe, classes_of
from fullrank.training.optim import clip_each, set_learning_rates
from fullrank.training.records import EpochRecord, Listener, RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup, generator_of, launch_fabric, prepare, setup
from fullrank.training.signals import StoppedError, StopRequest, stop_on_signals
from fullrank.training.watching import is_due
from fullrank.views import save_sheet

ROLLBACK_RATE = 0.1
OpenInitial: TypeAlias = Callable[[TrainConfig], InitialWeights | None]
CHANGES_THE_RUN = ("batch_size", "image_size")  # what a run that goes on keeps, whatever memory there is


@dataclass(frozen=True)
class Outcome:
    """End of a run: `finished` or `collapsed`, last record, seconds of its parts."""

    path: Path
    reason: str
    record: EpochRecord
    seconds: Mapping[str, float]


def train(
    config: TrainConfig,
    out: Path,
    listeners: Sequence[Listener] = (),
    data: Data | None = None,
    initial: InitialWeights | None = None,
    named: Collection[str] | None = None,
) -> Outcome:
    """Train from the start into a new run directory.

    Args:
        config: of the run.
        out: the run directory.
        listeners: each is called with every record as it is written.
        data: what `config` names, where it is open already.
        initial: the weights that it names, likewise.
        named: the settings that were asked for; the others may change so that the run fits into memory. None:
            all of them.

    Raises:
        UsageError: anything about the input that cannot work, before anything is written.
        FullrankError: the loss stopped being finite, or memory ran out.
    """
    RunDir.check_free(out)
    fabric = launch_fabric(config)
    config, data = prepare(config, fabric, data, initial)
    config, data = fitted(config, data, fabric, named)
    with naming_remedies(config):
        s = setup(config, data, fabric, initial)
        run = RunDir.create(out, s.config) if fabric.is_global_zero else RunDir(out)
        fabric.barrier()
        with run.written_alone(fabric):
            return Loop(s, run, listeners).run()


def resume(
    path: Path, listeners: Sequence[Listener] = (), open_initial: OpenInitial = lambda _: None
) -> Outcome:
    """Continue a run exactly from its last checkpoint, unless it has ended.

    Where it has none, `open_initial` opens the weights that the run started from.

    Raises:
        UsageError: there is no run, or its data is not where it was.
        BusyError: another process writes into the run.
    """
    run = RunDir.open(path)
    fabric = launch_fabric(run.config())
    config, data = fitted(*prepare(run.config(), fabric), fabric, CHANGES_THE_RUN)
    initial = None if run.checkpoint_path().exists() else open_initial(config)
    with run.written_alone(fabric), naming_remedies(config):
        loop = Loop(setup(config, data, fabric, initial), run, listeners)
        loop.restore()
        return loop.run()


class Loop:
    """Training loop of one run.

    Everything random is drawn from (seed, epoch, step): no random state is to be restored. The pieces of a
    step are methods of their own, for `profile` to time from outside.
    """

    def __init__(self, s: Setup, run: RunDir, listeners: Sequence[Listener]) -> None:
        self.s, self.run_dir = s, run
        self.config, self.fabric = s.config, s.fabric
        self.writer = RecordWriter(self.fabric, run, listeners)
        self.levels = CollapseMonitor()  # of training batches
        self.probe: OnlineProbe | None = None
        if s.config.probe != "off" and (classes := classes_of(s.data.train)):
            labels = torch.from_numpy(s.data.train.labels)
            width = s.backbone.feature_dim
            self.probe = OnlineProbe(width, classes, labels, s.config, s.fabric, s.optimizer)
        self.evaluator = EpochEvaluator(s, run, self.probe, self.writer)
        self.state = TrainState(images=len(s.data.train))
        self.total_steps = self.config.epochs * s.steps_per_epoch
        self.stop = StopRequest()
        self._skipped = 0  # files that are listed in the run directory
        self._images, self._logged = 0, 0.0  # images since the last step record, and when that was written

    def run(self) -> Outcome:
        """Train to the end, from wherever the run stands."""
        state = self.state
        notes = [*self.s.data.notes, *self.s.notes, *self.evaluator.held_out.notes]
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
        try:
            with stop_on_signals() as self.stop:
                return self._outcome() if state.ended else self._end(self._train_epochs())
        finally:
            self.evaluator.close(state)
            self._list_skipped()

    def _train_epochs(self) -> str:
        """Train all epochs that are left and return why there are no more."""
        state, config = self.state, self.config
        if state.last is None:
            self._save_views()
            self.evaluator.evaluate(state, loss=None)
            self.evaluator.save(state)
        self.s.method.train()
        while state.epoch < config.epochs:
            self.train_epoch()
            state.epoch += 1
            if is_due(config, state):
                total = torch.as_tensor(state.loss_sum, dtype=torch.float64)
                self.evaluator.evaluate(state, self._mean(total) / state.loss_count)
            state.loss_sum, state.loss_count = 0.0, 0
            self._list_skipped()
            if self._collapsed() and not self._rolled_back():
                return "collapsed"
            self.evaluator.save(state)
        return "finished"

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
        for index, (indices, images) in self.batches():
            begins, ends = index % config.accumulate == 0, (index + 1) % config.accumulate == 0
            if begins:
                lr = self.begin_step()
            views = self.make_views(images, index)
            with self.fabric.no_backward_sync(s.wrapped, enabled=not ends):
                step = self.forward(views)
                self.backward(step.loss / config.accumulate)
            self.backward_probe(step, indices)
            state.loss_sum = state.loss_sum + step.loss.detach().double()  # stays on the device
            state.loss_count += 1
            self._images += config.batch_size
            if not ends:
                continue
            self.optimise()
            self.end_step()
            state.step += 1
            self.log(step, lr)
            if config.checkpoint_every and state.step % config.checkpoint_every == 0:
                self.evaluator.save(state)
            self._stop_if_asked()

    def batches(self) -> Iterator[Batch]:
        """Batches of the epoch in progress that are left, without those that fill no step."""
        s, state, accumulate = self.s, self.state, self.config.accumulate
        done = state.step - state.epoch * s.steps_per_epoch
        batches = s.batches.epoch(state.epoch, start_step=done * accumulate)
        if self.fabric.device.type == "cuda":
            batches = prefetch(batches, self.fabric.device)
        for index, batch in batches:
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

    def optimise(self) -> None:
        """Step the optimisers of method and probe."""
        s, config = self.s, self.config
        s.method.after_backward()
        if config.clip_grad:
            self._clip_gradients()
        if self.probe:
            self.probe.before_step()
        s.optimizer.step()
        if self.probe:
            self.probe.step(self.state.step, s.steps_per_epoch)
        s.optimizer.zero_grad(set_to_none=True)

    def _clip_gradients(self) -> None:
        s, largest = self.s, self.config.clip_grad
        if self.config.clip_grad_of == "all":
            self.fabric.clip_gradients(  # what is not finite is said where the loss is logged: no waiting
                s.wrapped, s.optimizer, max_norm=largest, error_if_nonfinite=False
            )
            return
        self.fabric.strategy.precision.unscale_gradients(_unwrap_objects(s.optimizer))
        part = s.method if self.config.clip_grad_of == "tensor" else s.method.backbone
        clip_each(part.parameters(), largest)

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
        if not math.isfinite(loss):
            raise FullrankError(
                f"the loss is {loss} at step {state.step}: lower --lr, or clip with --clip-grad; "
                f"the last checkpoint in {self.run_dir.path} is from before"
            )
        with state.clock("watching"):
            level = self.levels.step(step.taps)
        self.evaluator.finish(state, wait=False)
        record = records.StepRecord(
            **state.place,
            loss=loss,
            terms={name: float(value.detach()) for name, value in step.terms.items()},
            lr=lr,
            level=level,
            time={"elapsed": self.writer.elapsed(), "images_per_second": rate},
        )
        self.writer.write(record)
        self._images, self._logged = 0, self.writer.elapsed()

    def _stop_if_asked(self) -> None:
        """Checkpoint and raise StoppedError where a signal has asked any process to end."""
        state, received = self.state, self.stop.received
        if self.fabric.world_size > 1:
            if state.step % self.config.level_every:  # where processes wait for each other anyway
                return
            asked = torch.tensor(int(received or 0), device=self.fabric.device)
            agreed = int(self.fabric.all_reduce(asked, reduce_op="max"))  # type: ignore[arg-type]
            received = signal.Signals(agreed) if agreed else None
        if received is not None:
            self.evaluator.save(state)
            self.evaluator.finish(state)
            raise StoppedError(
                f"stopped after step {state.step} of {self.total_steps} by {received.name}; "
                f"`fullrank resume {self.run_dir.path}` continues",
                received,
            )

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
        self.writer.write(records.RollbackRecord(**state.place, rate_factor=ROLLBACK_RATE))
        return True

    def _end(self, reason: str) -> Outcome:
        state = self.state
        self.evaluator.finish(state)
        state.ended, state.seconds["total"] = reason, self.writer.elapsed()
        self.writer.write(records.EndRecord(**state.place, reason=reason, time=self._outcome().seconds))
        self.evaluator.save(state)
        if reason == "collapsed" and self.fabric.is_global_zero:
            self.evaluator.checkpoints.save_healthy_encoder()
        return self._outcome()

    def _outcome(self) -> Outcome:
        assert self.state.last is not None  # the untrained network has been evaluated
        seconds = dict(self.state.seconds)
        watching = seconds["watching"] + seconds["knn"]
        seconds["share_watching"] = watching / max(seconds["total"], 1e-9)
        return Outcome(self.run_dir.path, self.state.ended, self.state.last, seconds)

    def restore(self) -> None:
        """Take up the last checkpoint."""
        images = self.state.images
        self.state = self.evaluator.checkpoints.restore()
        if not self.state.ended and self.state.images not in (0, images):
            raise UsageError(
                f"the run began with {self.state.images:,} training images, and there are {images:,} now: it "
                "goes on exactly only with those of before"
            )
        self.state.images = images
        self.writer.started -= self.state.seconds["total"]

    def _save_views(self) -> None:
        if not self.fabric.is_global_zero:
            return
        views, loaded = self.s.views, first_images(self.s.data.train, 8)
        # no larger than needed: the views must look as in training, where crops are cut from the whole image
        size = min(max(min(min(image.shape[1:]) for image in loaded), views.image_size), 4 * views.image_size)
        images = torch.stack([fit(image, size, size) for image in loaded])
        params = views.sample(len(images), size, size, generator_of(self.config.seed, 3))
        save_sheet(self.run_dir.path / "figures" / "views.png", images, views, params)

    def _mean(self, value: Tensor) -> float:
        """Mean over processes."""
        value = value.detach().double()
        if self.fabric.world_size > 1:
            value = self.fabric.all_reduce(value.to(self.fabric.device), reduce_op="mean")  # type: ignore[assignment]
        return float(value)
