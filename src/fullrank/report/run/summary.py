"""Summary of a run in a few numbers, kept up to date record by record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fullrank.collapse.verdict import Verdict, as_verdict
from fullrank.errors import printable
from fullrank.figures.style import VerdictStyle, number, one_line, style_of
from fullrank.report.ceiling import Ceiling, ceiling_of, judged_rank
from fullrank.report.run.reading import UNDECIDED, Run
from fullrank.training.records import EndRecord, EpochRecord, NotFiniteRecord, RunRecord, StepRecord

MOST_LOSSES = 4096
"""Losses of a summary; those of longer runs are thinned, evenly."""


@dataclass
class Summary:
    """Standing of one run after the records taken so far.

    Example:
        >>> summary = Summary("simsiam")
        >>> summary.take(StepRecord(step=10, loss=-0.4, level={"projector": 0.9}))
        >>> summary.loss, summary.level, summary.style.word
        (-0.4, 0.9, 'not decidable')
    """

    name: str
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    loss_of_epoch: bool = False  # whether the last loss is the mean over an epoch
    levels: dict[str, float | None] = field(default_factory=dict)
    panels: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] = field(default_factory=lambda: dict(UNDECIDED))
    knn_untrained: float | None = None
    knn: float | None = None
    knn_of: Mapping[str, Any] = field(default_factory=dict)
    knn_epoch: int = 0
    knn_best: float | None = None
    knn_best_epoch: int = 0
    score_best: float | None = None
    score_best_epoch: int = 0
    healthy_epoch: int = 0  # the last; 0: none
    linear: float | None = None
    images_per_second: float | None = None
    elapsed: float | None = None
    next_watch: int | None = None
    end: EndRecord | None = None
    warnings: Sequence[str] = ()
    skipped: int = 0
    _stretch: int = 1
    _waiting: int = 0
    _begun: tuple[int, float] | None = None

    def take(self, record: RunRecord) -> None:
        """Take in one record of `metrics.jsonl`."""
        self.epoch, self.step = record.epoch, record.step
        time: Mapping[str, float] = getattr(record, "time", None) or {}
        self.elapsed = time.get("elapsed", time.get("total", self.elapsed))
        self.images_per_second = time.get("images_per_second", self.images_per_second)
        if isinstance(record, StepRecord | EpochRecord) and record.loss is not None:
            self.loss_of_epoch = isinstance(record, EpochRecord)
            self._take_loss(record.loss)  # the mean over an epoch says more than its last batch
        if isinstance(record, StepRecord):
            self.levels.update(record.level)
            if self._begun is None and self.elapsed is not None:
                self._begun = (self.step, self.elapsed)
        elif isinstance(record, EpochRecord):
            self._take_epoch(record)
        elif isinstance(record, NotFiniteRecord):
            self.skipped += record.action == "skip"
        elif isinstance(record, EndRecord):
            self.end = record

    def take_past(self, records: Iterable[EpochRecord]) -> None:
        """Take in no more than accuracies and scores of panels before a resumption.

        Example:
            >>> summary = Summary("run")
            >>> summary.take_past([EpochRecord(knn={"top1": 0.3}), EpochRecord(epoch=2, knn={"top1": 0.5})])
            >>> summary.knn_untrained, summary.knn_best, summary.knn_best_epoch, summary.losses
            (0.3, 0.5, 2, [])
        """
        for record in records:
            self._take_accuracies(record)
            self._take_kind(record)

    def _take_loss(self, loss: float) -> None:
        """Keep the first loss, the last, and of long runs one of every stretch."""
        if self._waiting:
            self.losses[-1] = loss
        else:
            self.losses.append(loss)
        self._waiting = (self._waiting + 1) % self._stretch
        if len(self.losses) > MOST_LOSSES:
            del self.losses[1::2]
            self._waiting = (self._stretch + 1) % (2 * self._stretch)  # the last one stands for so many
            self._stretch *= 2

    def _take_epoch(self, record: EpochRecord) -> None:
        self.panels = record.panels or self.panels
        self.verdict = record.verdict or self.verdict
        self.next_watch = record.next_watch
        self.warnings = record.warnings or []
        self._take_accuracies(record)
        self._take_kind(record)

    def _take_kind(self, record: EpochRecord) -> None:
        if record.epoch and (record.verdict or {}).get("kind") == "healthy":
            self.healthy_epoch = record.epoch

    def _take_accuracies(self, record: EpochRecord) -> None:
        top1, linear = record.accuracy("knn"), record.accuracy("probe")
        if record.epoch == 0:
            self.knn_untrained = top1
        if top1 is not None:
            self.knn, self.knn_of, self.knn_epoch = top1, record.knn or {}, record.epoch
            if record.epoch and top1 > (self.knn_best if self.knn_best is not None else -1.0):
                self.knn_best, self.knn_best_epoch = top1, record.epoch
        score = record.score if record.epoch else None
        if score is not None and (self.score_best is None or score > self.score_best):
            self.score_best, self.score_best_epoch = score, record.epoch
        self.linear = linear if linear is not None else self.linear

    @property
    def style(self) -> VerdictStyle:
        """Colour, glyph and words of the verdict."""
        return style_of(str(self.verdict.get("kind", "not decidable")))

    @property
    def constant(self) -> bool:
        """Whether the embedding is constant but for noise, whose rank means nothing."""
        return self.style.word == "complete"

    @property
    def why(self) -> str:
        """The verdict's one sentence."""
        return str(self.verdict.get("why") or "")

    @property
    def judgement(self) -> Verdict:
        """The verdict with its probability and blemishes."""
        return as_verdict(self.verdict)

    @property
    def tap(self) -> str:
        """Tap that the verdict is about, or the first of interest."""
        tap = str(self.verdict.get("tap") or "")
        names = [*self.panels, *self.levels]
        return tap or ("projector" if "projector" in names or not names else names[0])

    @property
    def loss(self) -> float | None:
        """The last loss."""
        return self.losses[-1] if self.losses else None

    @property
    def level(self) -> float | None:
        """Level at `tap`: of held-out images, or of the last batch without a panel."""
        held_out = self.measure("level")
        return held_out if held_out is not None else self.levels.get(self.tap)

    @property
    def rank(self) -> float | None:
        """The centred effective rank at `tap`."""
        return self.measure("erank_centred")

    @property
    def judged_rank(self) -> float | None:
        """The rank that the verdict is of, where it is not that of all rows."""
        return judged_rank(self.panels.get(self.tap) or {})

    @property
    def ceiling(self) -> Ceiling:
        """The most that the rank at `tap` can be."""
        return ceiling_of(self.panels.get(self.tap) or {})

    @property
    def rank_says(self) -> str:
        """The judged rank, that of all rows where it differs, and the ceiling."""
        judged, ceiling = self.judged_rank, self.ceiling
        of_all = "" if judged is None else f"of all rows as they are {number(self.rank)}, "
        rank = number(self.rank if judged is None else judged)
        return f"{rank} ({of_all}baseline {number(ceiling.baseline)}, {ceiling.says})"

    @property
    def share_watching(self) -> float | None:
        """Share of the time that went into watching, known at the end."""
        return self.end.time.get("share_watching") if self.end else None

    @property
    def share_waiting(self) -> float | None:
        """Share of the steps' time that went into waiting for images, known at the end."""
        return self.end.time.get("share_waiting") if self.end else None

    def measure(self, name: str, key: str = "value", tap: str | None = None) -> float | None:
        """One measure of the last panel: its value, or with `key="null"` its null."""
        measures: dict[str, Any] = (self.panels.get(tap or self.tap) or {}).get("measures") or {}
        found: float | None = (measures.get(name) or {}).get(key)
        return found

    def seconds_left(self, total_steps: int) -> float | None:
        """Time that the rest takes at the pace so far; None before two step records."""
        if self._begun is None or self.elapsed is None or self.step <= self._begun[0]:
            return None
        pace = (self.elapsed - self._begun[1]) / (self.step - self._begun[0])
        return max(0.0, pace * (total_steps - self.step))


def threshold_of(verdict: Mapping[str, Any]) -> float | None:
    """Level below which a verdict calls complete collapse, where evidence has it."""
    rows = (row for row in verdict.get("evidence") or [] if row.get("metric") == "level")
    return next((row["threshold"] for row in rows if row.get("threshold") is not None), None)


def summarise(run: Run, name: str | None = None) -> Summary:
    """Summarise a run that was read from disk, by default under its directory's name."""
    summary = Summary(name or run.name)
    for record in run.records:
        summary.take(record)
    return summary


def what(config: Mapping[str, Any]) -> str:
    """Method, data and backbone of a run, from its config.

    Example:
        >>> what({"method": "simsiam", "data": "shapes", "backbone": "resnet18"})
        'simsiam on shapes, resnet18'
    """
    names = {key: _named(config.get(key)) for key in ("method", "data", "backbone")}
    text = names["method"] or "a run"
    if names["data"]:
        text += f" on {names['data']}"
    return text + (f", {names['backbone']}" if names["backbone"] else "")


def start_of(config: Mapping[str, Any]) -> str:
    """What the network of epoch 0 is: one with loaded weights is no untrained one.

    Example:
        >>> start_of({}), start_of({"init": "timm:resnet18"})
        ('untrained', 'as loaded')
    """
    return "as loaded" if config.get("init") else "untrained"


def _named(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name") or value
    return "" if not value else printable(one_line(value))
