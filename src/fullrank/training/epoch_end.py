"""The end of an epoch: a look at the representation, its record, and the checkpoint.

On a CPU that comes between epochs. A GPU would wait for it, so there the held-out images are embedded, the
weights copied, and the rest is worked out in a thread beside the next epoch: the same records, in the same
order, and the same checkpoints, a little later.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import FullrankError, UsageError
from fullrank.training.checkpoint import Checkpoints, TrainState
from fullrank.training.held_out import HeldOutEvaluator
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.records import RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup

__all__ = ["EpochEvaluator"]


@dataclass
class _Look:
    """A panel on its way, and what waits for it.

    Attributes:
        report: the panel.
        place: the head of its record: epoch, step, loss.
        worth: the end of it: k-NN and online probe.
        state: what its checkpoint holds, copied as the epoch ended.
        progress: where the run stood then; None until a checkpoint is asked for.
    """

    report: Future[Report]
    place: dict[str, Any]
    worth: dict[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)
    progress: TrainState | None = None


class EpochEvaluator:
    """Looks, and saves what was looked at.

    Args:
        s: the run.
        run: where spectra and checkpoints go.
        probe: the classifier beside the method, if there is one.
        journal: where records go.

    Raises:
        UsageError: `--panels beside` with several processes.
    """

    def __init__(self, s: Setup, run: RunDir, probe: OnlineProbe | None, journal: RecordWriter) -> None:
        self.s, self.run, self.probe, self.journal = s, run, probe, journal
        monitor = CollapseMonitor(diagnostics_every=s.config.diagnostics_every)
        self.evaluation = HeldOutEvaluator(s, monitor)
        self.checkpoints = Checkpoints(s, run, monitor, probe)
        self._thread = _thread(s)
        self._look: _Look | None = None
        self._writing: Future[None] | None = None

    def look(self, progress: TrainState, loss: float | None) -> None:
        """The panel, k-NN and verdict of the epoch that has ended, as one record.

        Args:
            progress: where the run stands; its last record is this one once it is settled.
            loss: mean of the epoch; None before the first, where the network is untrained.

        Raises:
            FullrankError: the loss is not finite.
        """
        self.settle(progress)
        if loss is not None and not math.isfinite(loss):
            raise FullrankError(f"the loss was not finite in epoch {progress.epoch}: lower --lr")
        trained, config = loss is not None, self.s.config
        report: Future[Report] = Future()
        with self._clock(progress, "watching"):
            if self._thread:
                report = self._thread.submit(self.evaluation.panel_later(trained))
            else:
                report.set_result(self.evaluation.panel(trained))
        with self._clock(progress, "knn"):
            every = config.knn_every
            wanted = bool(every) and (progress.epoch % every == 0 or progress.epoch == config.epochs)
            worth = self.evaluation.worth(self.probe if trained else None, knn=wanted)
        place = {"event": "epoch", "epoch": progress.epoch, "step": progress.step, "loss": loss}
        self._look = _Look(report, place, {"knn": worth.get("knn"), "probe": worth.get("probe")})
        self.journal.hold()
        if not self._thread:
            self.settle(progress)

    def settle(self, progress: TrainState, wait: bool = True) -> None:
        """Takes in the panel that is being worked out: its record, those that waited for it, its checkpoint.

        Args:
            progress: where the run stands by now.
            wait: for a panel that is not there yet.
        """
        look = self._look
        if look is None or not (wait or look.report.done()):
            return
        self._look = None
        try:
            with progress.clock("watching"):
                report = look.report.result()
        except BaseException:
            self.journal.release(None)
            raise
        record = {**look.place, **report.as_dict(), **look.worth}
        for then in (progress, look.progress) if look.progress else (progress,):
            then.last = record
            then.collapsed_in_a_row = then.collapsed_in_a_row + 1 if report.verdict.collapsed else 0
        if self.journal.first:
            self.run.write_spectra(record["epoch"], _spectra(report))
        time = {"elapsed": self.journal.elapsed(), **progress.seconds}
        size = self.journal.release({**record, "time": time})
        if look.progress and self._thread:
            self._written()
            self._writing = self._thread.submit(self.checkpoints.write, look.state, look.progress, size)

    def save(self, progress: TrainState) -> None:
        """A checkpoint of the run as it stands, on the first process; after a look, once that is settled."""
        self.s.fabric.barrier()
        if not self.journal.first:
            return
        if self._look and self._look.place["step"] != progress.step:
            self.settle(progress)
        with progress.clock("saving"):
            progress.seconds["total"] = self.journal.elapsed()
            progress.loss_sum = float(progress.loss_sum)
            if self._look:
                self._look.state = copy.deepcopy(self.checkpoints.state())
                self._look.progress = replace(progress, seconds=dict(progress.seconds))
            else:
                self._written()
                self.checkpoints.write(self.checkpoints.state(), progress, self.run.metrics_size())

    def close(self, progress: TrainState) -> None:
        """Whatever ended the run, its last epoch is kept."""
        self.settle(progress)
        self._written()
        if self._thread:
            self._thread.shutdown()

    def _written(self) -> None:
        """Waits for the checkpoint that is being written; raises what went wrong with it."""
        if self._writing:
            self._writing.result()
            self._writing = None

    @contextmanager
    def _clock(self, progress: TrainState, what: str) -> Iterator[None]:
        if self.s.fabric.device.type == "cuda":
            torch.cuda.synchronize()  # what was queued before is not this clock's time
        with progress.clock(what):
            yield


def _thread(s: Setup) -> ThreadPoolExecutor | None:
    """Where panels are worked out beside training; None where they come between epochs."""
    possible = s.fabric.world_size == 1 and s.config.on_collapse == "warn"
    if s.config.panels == "beside" and not possible:
        raise UsageError("--panels beside works in one process: take --panels between, or --devices 1")
    wanted = s.config.panels == "beside" or (s.config.panels == "auto" and s.fabric.device.type != "cpu")
    if not (possible and wanted):
        return None
    return ThreadPoolExecutor(1, "panels", torch.set_num_threads, (torch.get_num_threads(),))


def _spectra(report: Report) -> dict[str, Any]:
    spectra = {
        f"{tap}.{kind}": values
        for tap, panel in report.panels.items()
        for kind, values in panel.spectra.items()
    }
    return spectra | (report.diagnostics.spectra if report.diagnostics else {})
