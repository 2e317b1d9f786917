"""A run in a few numbers, kept up to date record by record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fullrank.figures.style import VerdictStyle, one_line, style_of
from fullrank.report.run.reading import UNDECIDED, Record, Run

__all__ = ["Summary", "summarise", "what"]


@dataclass
class Summary:
    """One run after the records taken so far.

    Args:
        name: what the run is called where it is shown.

    Example:
        >>> summary = Summary("simsiam")
        >>> summary.take({"event": "step", "epoch": 0, "step": 10, "loss": -0.4, "level": {"projector": 0.9}})
        >>> summary.loss, summary.level, summary.style.word
        (-0.4, 0.9, 'not decidable')
    """

    name: str
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    levels: dict[str, float | None] = field(default_factory=dict)
    panels: Record = field(default_factory=dict)
    verdict: Record = field(default_factory=lambda: dict(UNDECIDED))
    knn_untrained: float | None = None
    knn: float | None = None
    linear: float | None = None
    images_per_second: float | None = None
    elapsed: float | None = None
    end: Record | None = None
    warnings: list[str] = field(default_factory=list)
    _begun: tuple[int, float] | None = None

    def take(self, record: Record) -> None:
        """Take in one record of `metrics.jsonl`."""
        self.epoch, self.step = record.get("epoch", self.epoch), record.get("step", self.step)
        time = record.get("time") or {}
        self.elapsed = time.get("elapsed", time.get("total", self.elapsed))
        self.images_per_second = time.get("images_per_second", self.images_per_second)
        if record["event"] == "step":
            self._take_step(record)
        elif record["event"] == "epoch":
            self._take_epoch(record)
        elif record["event"] == "end":
            self.end = record

    def _take_step(self, record: Record) -> None:
        if record.get("loss") is not None:
            self.losses.append(record["loss"])
        self.levels.update(record.get("level") or {})
        if self._begun is None and self.elapsed is not None:
            self._begun = (self.step, self.elapsed)

    def _take_epoch(self, record: Record) -> None:
        self.panels = record.get("panels") or self.panels
        self.verdict = record.get("verdict") or self.verdict
        self.warnings = record.get("warnings") or []
        top1 = (record.get("knn") or {}).get("top1")
        if record["epoch"] == 0:
            self.knn_untrained = top1
        self.knn = top1 if top1 is not None else self.knn
        self.linear = (record.get("probe") or {}).get("top1", self.linear)
        if record.get("loss") is not None:  # the mean over the epoch says more than its last batch
            self.losses.append(record["loss"])

    @property
    def style(self) -> VerdictStyle:
        """Colour, glyph and words of the verdict."""
        return style_of(str(self.verdict.get("kind", "not decidable")))

    @property
    def constant(self) -> bool:
        """Whether the embedding is constant but for noise, so that a rank is of noise."""
        return self.style.word == "complete"

    @property
    def why(self) -> str:
        """The verdict's one sentence."""
        return str(self.verdict.get("why") or "")

    @property
    def tap(self) -> str:
        """The tap that the verdict speaks of, or the one of most interest."""
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
    def rank_null(self) -> float | None:
        """What isotropic noise of the same n and d would have as centred effective rank."""
        return self.measure("erank_centred", "null")

    @property
    def width(self) -> int | None:
        """d at `tap`."""
        found: int | None = (self.panels.get(self.tap) or {}).get("d")
        return found

    @property
    def share_watching(self) -> float | None:
        """Which share of the time went into watching, known at the end."""
        found: float | None = ((self.end or {}).get("time") or {}).get("share_watching")
        return found

    @property
    def threshold(self) -> float | None:
        """Below which level the verdict says complete, where the evidence tells it."""
        return threshold_of(self.verdict)

    def measure(self, name: str, key: str = "value", tap: str | None = None) -> float | None:
        """One measure of the last panel: its value, or with `key="null"` its null."""
        measures: dict[str, Any] = (self.panels.get(tap or self.tap) or {}).get("measures") or {}
        found: float | None = (measures.get(name) or {}).get(key)
        return found

    def seconds_left(self, total_steps: int) -> float | None:
        """How long the rest takes at the pace so far; None before two steps were logged."""
        if self._begun is None or self.elapsed is None or self.step <= self._begun[0]:
            return None
        pace = (self.elapsed - self._begun[1]) / (self.step - self._begun[0])
        return max(0.0, pace * (total_steps - self.step))


def threshold_of(verdict: Record) -> float | None:
    """Level below which a verdict says complete collapse, where evidence has it."""
    rows = (row for row in verdict.get("evidence") or [] if row.get("metric") == "level")
    return next((row["threshold"] for row in rows if row.get("threshold") is not None), None)


def summarise(run: Run, name: str | None = None) -> Summary:
    """Summarise a run that was read from disk, by default under its directory's name."""
    summary = Summary(name or run.name)
    for record in run.records:
        summary.take(record)
    return summary


def what(config: Record) -> str:
    """A run in three words, from its config.

    Example:
        >>> what({"method": "simsiam", "data": "shapes", "backbone": "resnet18"})
        'simsiam on shapes, resnet18'
    """
    names = {key: _named(config.get(key)) for key in ("method", "data", "backbone")}
    text = names["method"] or "a run"
    if names["data"]:
        text += f" on {names['data']}"
    return text + (f", {names['backbone']}" if names["backbone"] else "")


def _named(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name") or value
    return "" if not value else one_line(value)
