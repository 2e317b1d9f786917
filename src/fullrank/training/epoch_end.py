"""End of an epoch: evaluation of held-out images, record and checkpoint.

On a CPU that comes between epochs. A GPU would wait for it, so there the held-out images are embedded, the
weights copied, and the rest is worked out in a thread beside the next epoch: the same records, in the same
order, and the same checkpoints, a little later. Several processes have a group of their own for that, whose
collectives do not meet those of training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fullrank.collapse import CollapseMonitor, Report
from fullrank.collapse.label_free_score import expected_points, read_weights
from fullrank.collapse.metrics.codes import unique_prototypes
from fullrank.collapse.phase import with_phase
from fullrank.errors import UsageError
from fullrank.methods import METHODS
from fullrank.networks.processes import mean_over_processes
from fullrank.training.checkpoint import Checkpoints, TrainState
from fullrank.training.config import TrainConfig
from fullrank.training.finite import absurd_numbers
from fullrank.training.held_out import HeldOutEvaluator
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.records import EpochRecord, RecordWriter
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup
from fullrank.training.watching import is_adaptive, knn_is_due, next_watch

AS_LOADED = "no step of this run taken yet: its backbone is as loaded, its heads are random"


@dataclass
class _Pending:
    """Report that is being worked out, its record and, once asked for, checkpoint."""

    report: Future[Report]
    record: dict[str, Any]
    absurd: list[str]  # a line for each number of no network that learns
    weights: Mapping[str, Any] = field(default_factory=dict)
    state: TrainState | None = None


class EpochEvaluator:
    """Evaluate the held-out images at the end of an epoch and checkpoint."""

    def __init__(self, s: Setup, run: RunDir, probe: OnlineProbe | None, writer: RecordWriter) -> None:
        self.s, self.run, self.probe, self.writer = s, run, probe, writer
        self._thread = _thread(s)
        beside = self._thread is not None and s.fabric.world_size > 1
        group: Any = torch.distributed.new_group(backend="gloo") if beside else None
        monitor = CollapseMonitor(diagnostics_every=s.config.diagnostics_every, group=group)
        monitor.narrowest = s.method.capacities()
        self.held_out = HeldOutEvaluator(s, monitor)
        self.checkpoints = Checkpoints(s, run, monitor, probe)
        self._pending: _Pending | None = None
        self._writing: Future[None] | None = None

    def evaluate(self, state: TrainState, loss: float | None) -> None:
        """Measure panel, k-NN and verdict of the epoch that has ended, as one record.

        The mean loss is None before the first epoch, where the network is untrained. The record is
        `state.last` once it is finished.
        """
        self.finish(state)
        trained, config, device = loss is not None, self.s.config, self.s.fabric.device
        adaptive = is_adaptive(config) and state.epoch < config.epochs
        if adaptive:  # one clock for all processes
            chosen = next_watch(config, state, self.writer.elapsed())
            state.next_watch = int(self.s.fabric.broadcast(chosen))
        state.evaluations += 1
        report: Future[Report] = Future()
        with state.clock("watching", device):
            if self._thread:
                report = self._thread.submit(self.held_out.panel_later(trained))
            else:
                report.set_result(self.held_out.panel(trained))
        with state.clock("knn", device):
            due = knn_is_due(config, state)
            state.knn_epoch = state.epoch if due else state.knn_epoch
            accuracies = self.held_out.accuracies(self.probe if trained else None, knn=due)
        rows = self.s.method.prototype_rows()
        unique = {} if rows is None else {"unique_prototypes": unique_prototypes(rows)}
        coming = {"next_watch": state.next_watch} if adaptive else {}
        absurd = absurd_numbers(self.s.method.named_parameters(), state.first_loss, loss) if trained else []
        record = {**state.place, "loss": loss, **accuracies, **unique, **coming}
        self._pending = _Pending(report, record, absurd)
        self.writer.hold()
        if not self._thread:
            self.finish(state)

    def finish(self, state: TrainState, wait: bool = True) -> None:
        """Write the pending report's record, those that waited for it, and its checkpoint.

        Without `wait`, only if the report is there already.
        """
        pending = self._pending
        if pending is None or not (wait or pending.report.done()):
            return
        self._pending = None
        try:
            with state.clock("watching"):
                report = pending.report.result()
        except BaseException:
            self.writer.release(None)
            raise
        accuracy = _accuracy(pending.record)
        report = self._with_phase(report, pending.record, state)
        report = replace(report, warnings=(*pending.absurd, *report.warnings))
        score = label_free_score(report)
        record = EpochRecord.from_dict({**report.as_dict(), "score": score, **pending.record})
        for each in (state, pending.state) if pending.state else (state,):
            each.last = record
            _count(each, report, record, accuracy)
        if self.writer.first:
            self.run.write_spectra(record.epoch, _spectra(report))
        size = self.writer.release(replace(record, time={"elapsed": self.writer.elapsed(), **state.seconds}))
        if pending.state and self._thread:
            self._finish_writing()
            self._writing = self._thread.submit(self.checkpoints.write, pending.weights, pending.state, size)

    def _with_phase(self, report: Report, record: Mapping[str, Any], state: TrainState) -> Report:
        """The report with the phase of its verdict, from what the run was before."""
        epoch = record["epoch"]
        verdict = with_phase(
            report.verdict,
            state.panels + 1,
            epoch / self.s.config.epochs,
            METHODS[self.s.config.method].dip,
            accuracy=_accuracy(record),
            best_accuracy=state.best_accuracy,
            before=state.probability,
            # a probe's accuracy does not compare
            untrained=state.untrained_knn if record.get("knn") else None,
            images=(record.get("knn") or record.get("probe") or {}).get("queries"),
        )
        if epoch == 0 and self.s.config.init:
            verdict = replace(verdict, why=AS_LOADED)
        return replace(report, verdict=verdict)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint; after an evaluation, once that is finished."""
        self.s.fabric.barrier()
        if self.s.fabric.world_size > 1:  # each process knows the losses of its own rows
            total = torch.as_tensor(state.loss_sum, dtype=torch.float64, device=self.s.fabric.device)
            state.loss_sum = float(mean_over_processes(total))
        weights = self.checkpoints.weights(state.step)
        if not self.writer.first:
            return
        if self._pending and self._pending.record["step"] != state.step:
            self.finish(state)
        with state.clock("saving"):
            state.seconds["total"] = self.writer.elapsed()
            state.loss_sum = float(state.loss_sum)
            if self._pending:
                self._pending.weights = copy.deepcopy(weights)
                self._pending.state = replace(state, seconds=dict(state.seconds))
            else:
                self._finish_writing()
                self.checkpoints.write(weights, state, self.run.metrics_size())

    def flush(self, state: TrainState) -> None:
        """Finish what is pending: the record, and its checkpoint where one was asked for."""
        self.finish(state)
        self._finish_writing()

    def close(self, state: TrainState) -> None:
        """Finish what is pending, whatever ended the run."""
        self.flush(state)
        if self._thread:
            self._thread.shutdown()

    def _finish_writing(self) -> None:
        """Wait for the checkpoint that is being written; raises what went wrong with it."""
        if self._writing:
            self._writing.result()
            self._writing = None


def _accuracy(record: Mapping[str, Any]) -> float | None:
    """Accuracy of k-NN, or of the online probe where that was not due."""
    measured = record.get("knn") or record.get("probe") or {}
    found: float | None = measured.get("top1")
    return found


def label_free_score(report: Report) -> float | None:
    """Score of the backbone in expected points; None without views of images."""
    panel = report.panels.get("backbone")
    if panel is None or "view_retrieval" not in panel.measures:
        return None
    measures = {name: math.nan if (found := panel.value(name)) is None else found for name in panel.measures}
    return expected_points(measures, read_weights(), "panel")


def _count(state: TrainState, report: Report, record: EpochRecord, accuracy: float | None) -> None:
    """Take a report into what a run knows of its past."""
    if accuracy is not None:  # that of the untrained network, too: below it nothing is gained
        state.best_accuracy = max(accuracy, state.best_accuracy or 0.0)
    if record.loss is None:  # of the untrained network
        state.untrained_knn = record.accuracy("knn")
        return
    step = record.step
    if record.score is not None:
        better = state.best_score is None or record.score > state.best_score
        worse = state.best_score is not None and record.score < state.best_score
        state.since_best = 0 if better else state.since_best + int(worse)  # of few images many are equal
        if better:
            state.best_score, state.best_epoch = record.score, record.epoch
    lasting = report.verdict.collapsed and report.verdict.phase != "transient"
    if lasting and not state.collapsed_in_a_row:
        state.collapsed_since = step
    state.collapsed_in_a_row = state.collapsed_in_a_row + 1 if lasting else 0
    state.panels += 1
    state.probability = report.verdict.probability


def check_panels(config: TrainConfig, processes: int) -> None:
    """Refuse panels beside the steps where so many processes cannot have them.

    Raises:
        UsageError: a panel decides whether training goes on, or weights are in parts.

    Example:
        >>> check_panels(TrainConfig(panels="beside", strategy="fsdp"), processes=1)
        >>> check_panels(TrainConfig(panels="beside", strategy="fsdp"), 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: --panels beside copies all weights, of which each process of ...
    """
    if config.panels != "beside":
        return
    if _waits_for_panels(config):
        raise UsageError(
            "--panels beside works where no panel decides: take --panels between, or leave --on-collapse and "
            "--early-stop out"
        )
    if config.strategy == "fsdp" and processes > 1:
        raise UsageError(
            "--panels beside copies all weights, of which each process of --strategy fsdp has a part: take "
            "--panels between"
        )


def _waits_for_panels(config: TrainConfig) -> bool:
    return config.on_collapse != "warn" or bool(config.early_stop)


def _thread(s: Setup) -> ThreadPoolExecutor | None:
    """Thread for reports beside training; None where they come between epochs."""
    sharded = s.config.strategy == "fsdp" and s.fabric.world_size > 1
    wanted = s.config.panels == "beside" or (s.config.panels == "auto" and s.fabric.device.type != "cpu")
    if _waits_for_panels(s.config) or sharded or not wanted:
        return None
    return ThreadPoolExecutor(1, "panels", torch.set_num_threads, (torch.get_num_threads(),))


def _spectra(report: Report) -> dict[str, Any]:
    spectra = {
        f"{tap}.{kind}": values
        for tap, panel in report.panels.items()
        for kind, values in panel.spectra.items()
    }
    return spectra | (report.diagnostics.spectra if report.diagnostics else {})
