"""Records of a run in `metrics.jsonl`: one dataclass an event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fullrank.training.record_fields import fields_fit, is_count
from fullrank.untrusted.parsing import parse_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from fullrank.training.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Fields of all records: epochs and optimiser steps done.

    Of a class, `may_be_null` are the fields that are written where they are None, and `earlier_names` the
    keys that earlier runs have for a field.
    """

    event: ClassVar[str] = ""
    may_be_null: ClassVar[tuple[str, ...]] = ()
    earlier_names: ClassVar[Mapping[str, str]] = {}

    epoch: int = 0
    step: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_dict` gave, without missing, null and unknown keys."""
        earlier = {name: values.get(key) for name, key in cls.earlier_names.items()}
        known = {f.name: values.get(f.name, earlier.get(f.name)) for f in fields(cls)}
        return cls(**{name: value for name, value in known.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """Record as a line of `metrics.jsonl` holds it."""
        kept = {k: v for k, v in vars(self).items() if v is not None or k in self.may_be_null}
        return {"event": self.event, **kept}


@dataclass(frozen=True, kw_only=True)
class StartRecord(RunRecord):
    """Start of a run or of its resumption; listeners get it, the file does not."""

    event: ClassVar[str] = "start"

    config: dict[str, Any] = field(default_factory=dict)
    total_steps: int = 0
    steps_per_epoch: int = 0
    notes: Sequence[str] = ()
    out: str = ""


@dataclass(frozen=True, kw_only=True)
class StepRecord(RunRecord):
    """Loss of a training batch; normalized std (level) by layer output (tap).

    Of the steps so far, `skipped` were left out for numbers that were not finite, and `overflowed` by fp16's
    scaler; None where there were none.

    Example:
        >>> StepRecord.from_dict({"event": "step", "epoch": 0, "step": 10, "loss": -0.5, "new": 1}).loss
        -0.5
    """

    event: ClassVar[str] = "step"
    may_be_null: ClassVar[tuple[str, ...]] = ("loss",)

    loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    lr: float | None = None
    level: Mapping[str, float | None] = field(default_factory=dict)
    skipped: int | None = None
    overflowed: int | None = None
    time: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpochRecord(RunRecord):
    """Evaluation of held-out images after an epoch; epoch 0 is untrained.

    Verdicts and panels are as `Report.as_dict` has them; `knn` and `probe` (the online one) are None where
    they were not due or there are no labels. `unique_prototypes` is the share of the method's prototypes that
    no other one lies close to. `score` is the label-free score of the backbone in points of expected
    accuracy, of which only differences within the run mean anything. `next_watch` is the epoch that is
    evaluated next, where time decides.
    """

    event: ClassVar[str] = "epoch"
    may_be_null: ClassVar[tuple[str, ...]] = ("loss", "knn", "probe")
    earlier_names: ClassVar[Mapping[str, str]] = {"diagnostics": "study"}

    loss: float | None = None
    verdict: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Any] = field(default_factory=dict)
    panels: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    unique_prototypes: float | None = None
    warnings: Sequence[str] | None = None
    diagnostics: dict[str, Any] | None = None
    rank_difference: float | None = None
    knn: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None
    score: float | None = None
    next_watch: int | None = None
    time: Mapping[str, float] | None = None

    def accuracy(self, of: str) -> float | None:
        """Accuracy of `knn` or `probe` on held-out images; None where not measured."""
        found: dict[str, Any] = getattr(self, of) or {}
        return found.get("top1")


@dataclass(frozen=True, kw_only=True)
class AdaptationRecord(RunRecord):
    """Held-out images of an adaptation against its start, after a panel; by name.

    Example:
        >>> AdaptationRecord.from_dict({"event": "adaptation", "epoch": 2, "values": {"cka": 0.9}}).values
        {'cka': 0.9}
    """

    event: ClassVar[str] = "adaptation"

    values: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RollbackRecord(RunRecord):
    """Return to an earlier checkpoint, with the learning rate's factor.

    That is the last healthy one, or for numbers that are not finite, as `why` says, the last one.
    """

    event: ClassVar[str] = "rollback"

    rate_factor: float = 1.0
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotFiniteRecord(RunRecord):
    """Step whose numbers were not finite, and what was done: stop, skip or rollback.

    `found` is what was not finite, where first, the likely cause, the remedy, and where the batch is kept.

    Example:
        >>> NotFiniteRecord.from_dict({"event": "not_finite", "step": 7, "action": "skip"}).action
        'skip'
    """

    event: ClassVar[str] = "not_finite"

    action: str = "stop"
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class EndRecord(RunRecord):
    """End of a run, `finished` or `collapsed`, with the seconds of its parts."""

    event: ClassVar[str] = "end"

    reason: str = "ended"
    time: Mapping[str, float] = field(default_factory=dict)


WRITTEN: dict[str, type[RunRecord]] = {
    kind.event: kind
    for kind in (StepRecord, EpochRecord, AdaptationRecord, RollbackRecord, NotFiniteRecord, EndRecord)
}

Listener = Callable[[RunRecord], None]
"""Called on the first process with a `StartRecord`, then with every record of `metrics.jsonl`."""


def parse_record(line: bytes) -> RunRecord | None:
    """Read a line of `metrics.jsonl`; None where it is cut, unknown or no record.

    Example:
        >>> parse_record(b'{"event": "end", "epoch": 2, "step": 8, "reason": "finished"}').reason
        'finished'
        >>> parse_record(b'{"event": "st') is None
        True
    """
    try:
        values = parse_json(line.decode("utf-8"), "a record")
    except ValueError:
        return None
    kind = WRITTEN.get(str(values.get("event"))) if isinstance(values, dict) else None
    if kind is None or not all(is_count(values.get(key)) for key in ("step", "epoch")):
        return None
    if not fields_fit(values):
        return None
    return kind.from_dict(values)


class RecordWriter:
    """Writer of records in the order of their steps, even if they come otherwise.

    `started` is when the run began, by `time.perf_counter`; earlier by its time before a resume.
    """

    def __init__(self, fabric: Fabric, run: RunDir, listeners: Sequence[Listener]) -> None:
        self.first, self.run, self.listeners = fabric.is_global_zero, run, listeners
        self.started = time.perf_counter()
        self._held: list[RunRecord] | None = None

    def elapsed(self) -> float:
        """Seconds of the whole run so far."""
        return time.perf_counter() - self.started

    def notify(self, record: RunRecord) -> None:
        """Send a record to the listeners alone."""
        if self.first:
            for listener in self.listeners:
                listener(record)

    def write(self, record: RunRecord) -> None:
        """Send a record to file and listeners, unless records are held back."""
        if self._held is not None:
            self._held.append(record)
            return
        if self.first:
            self.run.append(record.as_dict())
        self.notify(record)

    def hold(self) -> None:
        """Keep records back from here on: an earlier one is still to come."""
        self._held = []

    def release(self, earlier: RunRecord | None) -> int:
        """Write the record that was to come, if it came, then those that waited.

        Returns:
            Bytes of the file up to and with `earlier`.
        """
        waiting, self._held = self._held or (), None
        if earlier is not None:
            self.write(earlier)
        size = self.run.metrics_size() if self.first else 0
        for record in waiting:
            self.write(record)
        return size
