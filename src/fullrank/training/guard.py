"""Guard of a run's weights and checkpoints against numbers that are not finite.

Losses, layer outputs and gradients of every step are checked (`fullrank.training.finite`), and `on_nan`
decides what is done. On a CPU a step with such a number is never applied. On a GPU nothing waits for the step
in progress: what the forward pass gave is read before the optimiser's step, when the device has the backward
pass still to do, so that a bad forward pass is never applied either. The gradients are read a step later, and
before every checkpoint at the latest: a gradient that alone went wrong has then reached the weights, and stop
and rollback go back to the last checkpoint. `--on-nan skip` waits for the gradients of every step, as a
gradient scaler does. Those of fp16 are left to the scaler, and the steps that it leaves out are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from lightning_fabric.wrappers import _unwrap_objects
from torch import Tensor

from fullrank.errors import BadRowsError, NotFiniteError
from fullrank.methods import Step
from fullrank.networks.finite import first_not_finite
from fullrank.training import records
from fullrank.training.checkpoint import TrainState
from fullrank.training.epoch_end import EpochEvaluator
from fullrank.training.finite import SentSums, gradient_sums, output_sums
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.records import RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup
from fullrank.training.sharding import gathered
from fullrank.training.trouble import LOWER, TOO_HIGH, HeldBatch, Trouble, Wrong, diagnose, save_batch

MOST_SKIPPED = 10  # steps in a row
MOST_OVERFLOWED = 24  # in a row: the scaler halves its scale of 65,536 each time
MOST_ROLLBACKS = 3
ROLLBACK_RATE = 0.1
MakeViews = Callable[[Tensor | list[Tensor], int], list[Tensor]]


@dataclass
class _Late:
    """Gradients of an earlier step that are on their way, and its batch without views."""

    step: int
    sums: SentSums
    batch: HeldBatch


class NumberGuard:
    """Check the numbers of every step and act on those that are not finite.

    Args:
        s: the set-up of the run.
        run: its directory.
        writer: of its records.
        evaluator: with its checkpoints.
        probe: the online probe, if any.
        make_views: images and the batch's number in the epoch to the views, again.
    """

    def __init__(
        self,
        s: Setup,
        run: RunDir,
        writer: RecordWriter,
        evaluator: EpochEvaluator,
        probe: OnlineProbe | None,
        make_views: MakeViews,
    ) -> None:
        self.s, self.run, self.writer, self.evaluator, self.probe = s, run, writer, evaluator, probe
        self.make_views = make_views
        self.waits = s.fabric.device.type == "cpu" or s.config.on_nan == "skip"
        self._batches: list[tuple[HeldBatch, SentSums]] = []  # of the step in progress
        self._late: _Late | None = None
        self._buffers: list[Tensor] = []
        self._skipped, self._overflowed = 0, 0  # in a row
        self._applied = False
        self._scaler = getattr(s.fabric.strategy.precision, "scaler", None)
        self._parameters = dict(s.method.named_parameters())
        if probe:
            self._parameters |= {f"probe.{name}": p for name, p in probe.linear.named_parameters()}
        _unwrap_objects(s.optimizer).register_step_post_hook(self._note_step)

    def begin(self) -> None:
        """Begin a step; to leave it out later, its buffers (BatchNorm) are copied."""
        self._batches.clear()
        if self.s.config.on_nan == "skip":
            buffers = list(self.s.method.buffers())
            if not self._buffers:
                self._buffers = [torch.empty_like(buffer) for buffer in buffers]
            _copy(self._buffers, buffers)

    def see(self, batch: HeldBatch, step: Step) -> None:
        """Take in the loss and the layer outputs of a batch of the step."""
        self._batches.append((batch, SentSums(output_sums(step), self.s.fabric.world_size)))

    def allows(self, state: TrainState) -> bool:
        """Whether the step is applied; False where it is left out.

        Called when all gradients are there, before the optimiser.

        Raises:
            NotFiniteError: a number is not finite, and `on_nan` is not skip, or too many steps were left out.
        """
        self._check_late(state)
        for batch, sums in self._batches:
            bad, here = sums.found()
            if bad:
                return self._act(state, Wrong("output", here, state.step + 1), batch)
        batch = self._batches[-1][0]
        if self._scaler is None and (gradients := gradient_sums(self._parameters)):
            # equal on all processes, unless each has a part of them
            sent = SentSums(gradients, self.s.fabric.world_size if self.s.sharded else 1)
            if not self.waits:
                self._late = _Late(state.step + 1, sent, replace(batch, views=()))
            else:
                bad, here = sent.found()
                if bad:
                    return self._act(state, Wrong("gradient", here, state.step + 1), batch)
        self._skipped, self._applied = 0, False
        return True

    def count_overflow(self, state: TrainState) -> None:
        """Count the step where fp16's scaler has left it out; called after the optimiser.

        Raises:
            NotFiniteError: so many in a row that no scale helps.
        """
        if self._scaler is None:
            return
        self._overflowed = 0 if self._applied else self._overflowed + 1
        state.overflowed += not self._applied
        if self._overflowed >= MOST_OVERFLOWED:
            raise NotFiniteError(
                f"step {state.step + 1}: gradients exceeded fp16 in {self._overflowed} steps in a row, at "
                f"every scale: take --precision bf16 or fp32, or lower --lr"
            )

    def flush(self, state: TrainState) -> None:
        """Wait for what is on its way, and check the weights, before they are kept.

        Raises:
            NotFiniteError: they, or a number before, are not finite.
        """
        self._check_late(state)
        weights = dict(self.s.method.state_dict())
        if self.probe:
            weights |= {f"probe.{name}": p for name, p in self.probe.linear.state_dict().items()}
        name = first_not_finite(weights)
        if self._first_process(bool(name)) is not None:
            found = f"after it {name or 'a weight'} is not finite; likely cause: {TOO_HIGH}: {LOWER}"
            raise self._failure(state, state.step, f"step {state.step}: {found}")

    def end_epoch(self, state: TrainState) -> None:
        """Check what `flush` checks, and that the epoch has had a step.

        Raises:
            NotFiniteError: see `flush`; or all of them were left out.
        """
        self.flush(state)
        if not state.loss_count:
            raise self._failure(
                state, state.step, f"step {state.step}: every step of epoch {state.epoch + 1} was left out"
            )

    def roll_back(self, error: NotFiniteError | BadRowsError, state: TrainState) -> None:
        """Go back to the last checkpoint, a few times, each at a tenth of the rate.

        Raises:
            NotFiniteError: `error`, where `on_nan` is not rollback, or it has not helped; of held-out images
                whose embedding cannot be measured one that says so.
        """
        if isinstance(error, BadRowsError):
            found = f"step {state.step}: after it held-out images cannot be embedded ({error})"
            error = self._failure(state, state.step, f"{found}; likely cause: {TOO_HIGH}: {LOWER}")
        if self.s.config.on_nan != "rollback" or state.rollbacks >= MOST_ROLLBACKS:
            raise error
        self.evaluator.flush(state)
        self.s.fabric.barrier()
        factor, rollbacks, seconds = ROLLBACK_RATE * state.rate_factor, state.rollbacks + 1, state.seconds
        kept = self.evaluator.checkpoints.restore(self.run.checkpoints.newest())
        if kept.last is None:  # there was none, and no weights to go back to
            raise error
        for each in fields(kept):
            setattr(state, each.name, getattr(kept, each.name))
        state.rate_factor, state.rollbacks, state.seconds = factor, rollbacks, seconds
        self._late, self._overflowed = None, 0
        self._drop_gradients()
        self.writer.write(records.RollbackRecord(**state.place, rate_factor=factor, why=str(error)))
        self.evaluator.save(state)  # with the lower rate, for a run that is resumed

    def _act(self, state: TrainState, wrong: Wrong, batch: HeldBatch) -> bool:
        """Leave the step out, or raise what is to be said of it."""
        leaves_out = self.s.config.on_nan == "skip" and self._skipped < MOST_SKIPPED
        found = str(self._trouble(state, wrong, batch))
        if not leaves_out:
            more = f"; {self._skipped} steps before it were left out" if self._skipped else ""
            raise self._failure(state, wrong.step, found + more)
        self._record(state, "skip", wrong.step, found)
        _copy(list(self.s.method.buffers()), self._buffers)
        self._drop_gradients()
        self._skipped += 1
        state.skipped += 1
        return False

    def _check_late(self, state: TrainState) -> None:
        """Raise NotFiniteError where gradients of the step before were not finite."""
        late, self._late = self._late, None
        if late is None:
            return
        bad, here = late.sums.found()
        if bad:
            batch = replace(late.batch, views=self.make_views(late.batch.images, late.batch.index))
            found = str(self._trouble(state, Wrong("gradient", here, late.step), batch))
            raise self._failure(state, late.step, found)

    def _trouble(self, state: TrainState, wrong: Wrong, batch: HeldBatch) -> Trouble:
        """Diagnose a step; of several processes the first that has the number decides."""
        process = self._first_process(bool(wrong.numbers))
        with gathered(self.s.method):
            trouble = Trouble(wrong, diagnose(self.s, batch, wrong))
        if process is None or process == self.s.fabric.global_rank:
            self.run.require_in_place()
            trouble = replace(trouble, kept=save_batch(self.run.path, self.s, batch, state.epoch, trouble))
        return self.s.fabric.broadcast(trouble, src=process or 0)

    def _first_process(self, bad: bool) -> int | None:
        """The first process with a bad number; None without any. All of them call it."""
        fabric = self.s.fabric
        if fabric.world_size == 1:
            return 0 if bad else None
        first = torch.tensor(fabric.global_rank if bad else fabric.world_size, device=fabric.device)
        torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        return int(first) if int(first) < fabric.world_size else None

    def _failure(self, state: TrainState, step: int, found: str) -> NotFiniteError:
        """Record what was found, and make an error of it that says how the run can go on."""
        self._record(state, self.s.config.on_nan, step, found)
        return NotFiniteError(
            f"{found}; the last checkpoint is from before, and `fullrank resume {self.run.path}` goes on "
            f"from it, with another setting by --override, as lr=0.01, clip_grad=1 or on_nan=skip"
        )

    def _record(self, state: TrainState, action: str, step: int, found: str) -> None:
        self.writer.write(records.NotFiniteRecord(epoch=state.epoch, step=step, action=action, found=found))

    def _drop_gradients(self) -> None:
        self.s.optimizer.zero_grad(set_to_none=True)
        if self.probe and self.probe.optimizer:
            self.probe.optimizer.zero_grad(set_to_none=True)

    def _note_step(self, *_: object) -> None:
        self._applied = True


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors into others, in few kernels."""
    if targets:
        torch._foreach_copy_(targets, sources)
