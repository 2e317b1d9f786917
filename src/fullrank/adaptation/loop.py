"""Training loop of an adaptation, watched against its start."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fullrank.adaptation.decision import FEWEST_IMAGES, decide
from fullrank.adaptation.findings import Judged, findings_of
from fullrank.adaptation.result import (
    Adaptation,
    AdaptationSettings,
    is_adaptation,
    read_settings,
    write_result,
    write_settings,
)
from fullrank.adaptation.sentence import sentence, too_few_images, untested
from fullrank.adaptation.watch import Seen, compared, halves
from fullrank.errors import NotFiniteError, UsageError
from fullrank.training.checkpoint_files import DamagedCheckpointError, LoadedCheckpoint
from fullrank.training.loop import Loop, Outcome
from fullrank.training.record_files import read_records
from fullrank.training.records import AdaptationRecord, EndRecord, Listener
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup

START, BEST = "start", "best"
ADAPTED, KEPT = "adapted", "not adapted"  # how it ends, in its last record
COLLAPSED_PANELS = 2  # in a row, after which nothing good is to come


class AdaptLoop(Loop):
    """Training loop that leaves the best checkpoint, or the start.

    Half of the held-out images choose a checkpoint by its score; the other half judges it against the start.
    """

    def __init__(
        self, s: Setup, run: RunDir, listeners: Sequence[Listener], settings: AdaptationSettings | None = None
    ) -> None:
        super().__init__(s, run, listeners)
        if s.fabric.world_size > 1:
            raise UsageError("an adaptation works in one process: start it without torchrun, on one device")
        if settings is not None and not is_adaptation(run.path):
            write_settings(run.path, settings)
        self.settings = read_settings(run.path)
        self.history: list[AdaptationRecord] = []
        self.choosing, self.judging = halves(len(self.evaluator.held_out.held_out), s.config.seed)
        if len(self.judging) < FEWEST_IMAGES:
            self._notes.append(f"nothing is trained: {too_few_images(len(self.evaluator.held_out.held_out))}")
        self._start: Seen | None = None
        self._stopped = ""  # why no further epoch is trained

    def _train_epochs(self) -> str:
        """Train until nothing better is to be expected, whatever goes wrong on the way."""
        try:
            return super()._train_epochs()
        except NotFiniteError as error:
            if not self.history:  # the start itself cannot be measured
                raise
            self._stopped = f"numbers stopped being finite: {error}"
            return "finished"

    def is_over(self) -> bool:
        """Whether no epoch is left, or no better one is to be expected."""
        self._stopped = self._why_over()
        return bool(self._stopped)

    def _why_over(self) -> str:
        if len(self.judging) < FEWEST_IMAGES:
            return too_few_images(len(self.evaluator.held_out.held_out))
        last = self.history[-COLLAPSED_PANELS:]
        if len(last) == COLLAPSED_PANELS and all(record.values["collapsed"] for record in last):
            return "the features had collapsed"
        since = [record for record in self.history if record.step > self.best.step and record.values["stage"]]
        if len(since) >= self.settings.patience:
            return f"the score had not risen in {len(since)} panels"
        return "all epochs were trained" if super().is_over() else ""

    # watching

    def after_panel(self) -> None:
        """Compare the held-out images with the start, and record it."""
        last = self.state.last
        assert last is not None
        seen = self._seen()
        if not self.history:
            self._start = seen
        values = compared(self._features_of_start(), seen, self.choosing)
        values["stage"] = float(self.thawing.stage(self.state.epoch - 1)) if self.state.epoch else 0.0
        values["knn"] = last.accuracy("knn")
        self.writer.write(record := AdaptationRecord(**self.state.place, values=values))
        self.history.append(record)

    def _seen(self) -> Seen:
        rows, views, _ = self.evaluator.held_out.backbone_rows()
        return Seen(rows, views)

    def _features_of_start(self) -> Seen:
        """Features of the start, embedded anew where a run goes on."""
        if self._start is None:
            weights = {name: value.clone() for name, value in self.s.method.state_dict().items()}
            self.s.method.load_state_dict(self.run_dir.checkpoints.load(START).state["method"])
            self._start = self._seen()
            self.s.method.load_state_dict(weights)
        return self._start

    @property
    def best(self) -> AdaptationRecord:
        """The panel with the best score.

        One that has collapsed has none; of equals it is the first.
        """

        def score(record: AdaptationRecord) -> float:
            found = record.values["score"]
            return -math.inf if record.values["collapsed"] or found is None else found

        return max(self.history, key=score)

    # checkpoints

    def _save(self) -> None:
        """Write a checkpoint, and keep it where it is the start or the best."""
        super()._save()
        self._keep()

    def _keep(self) -> None:
        files, step = self.run_dir.checkpoints, self.state.step
        if not step:
            files.keep(START)
        if self.history and self.best.step == step:
            files.keep(BEST)

    def restore(self, found: LoadedCheckpoint | None) -> None:
        """Take up a checkpoint, with what had been compared until then."""
        super().restore(found)
        if found is None or self.state.ended:
            return
        records = read_records(self.run_dir.metrics_path).records
        self.history = [record for record in records if isinstance(record, AdaptationRecord)]
        self._keep()

    # the end

    def _end(self, reason: str) -> Outcome:
        """Judge the best checkpoint, and leave it or the start."""
        self.evaluator.finish(self.state)
        trained = self.state.place
        start, best = self._judged(START), self._judged(BEST)
        best_epoch = self.state.epoch
        veto = self.settings.labels == "veto"
        seed = self.s.config.seed
        judged = findings_of(start, best, self.judging, self.settings.keep, veto, seed)
        findings = tuple(judged) if best_epoch else ()  # of the start against itself there is nothing to say
        adapted = bool(findings) and decide(findings)
        self.evaluator.checkpoints.restore_kept(BEST if adapted else START, self.state)
        self.state.ended = ADAPTED if adapted else KEPT
        self.state.seconds["total"] = self.writer.elapsed()
        self.writer.write(EndRecord(**trained, reason=self.state.ended, time=self._outcome().seconds))
        images = {"train": len(self.s.data.train), "choose": len(self.choosing), "judge": len(self.judging)}
        write_result(
            Adaptation(
                path=self.run_dir.path,
                adapted=adapted,
                sentence=sentence(adapted, findings, best_epoch, self._stopped),
                findings=findings,
                epoch=self.state.epoch,
                best_epoch=best_epoch,
                why_stopped=self._stopped,
                untested=tuple(untested(findings, self.s.config)),
                settings=self.settings,
                data=self.s.data.name,
                images=images,
                seconds=self.state.seconds["total"],
            )
        )
        self.evaluator.save(self.state)
        return self._outcome()

    def _judged(self, name: str) -> Judged:
        """Load a checkpoint that was kept, and judge its features."""
        if name == BEST and self.run_dir.checkpoints.load(name).state["progress"]["step"] != self.best.step:
            raise DamagedCheckpointError(
                f"{self.run_dir.checkpoints.path(name)} is not of step {self.best.step}, which was the best: "
                f"adapt into another --out"
            )
        self.evaluator.checkpoints.restore_kept(name, self.state)
        held_out = self.evaluator.held_out
        rows, views, places = held_out.backbone_rows()
        right = None
        if held_out.bank is not None:
            device = self.fabric.device
            right = held_out.knn_right_of_all(([rows.to(device)], [places])).cpu()
        return Judged(Seen(rows, views), right)
