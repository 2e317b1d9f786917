"""Onset of a collapse, from a run's records: when, of which kind, by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fullrank.errors import UsageError
from fullrank.figures.style import number, percent
from fullrank.report.run.learning_rate import rate_note
from fullrank.report.run.notes import fall_note, loss_notes
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import summarise
from fullrank.training.config import TrainConfig
from fullrank.training.records import EpochRecord
from fullrank.training.treatments import flat_settings, prescriptions, usual_settings

State = Literal["collapsed", "healthy", "passing", "not decidable"]
JUDGED = ("projector", "codes")
"""Embeddings whose verdicts count, besides the one that the run's is of."""
FEW_CODES = 0.1  # share of the codes in use, below which that is evidence
FINE = ("healthy", "not decidable")


@dataclass(frozen=True)
class Diagnosis:
    """What a run's records say of its collapse.

    Attributes:
        state: whether there is one; `passing`: of a kind that runs like this one leave by themselves.
        kinds: of collapse at the end, that of the run's verdict first.
        why: the reason of the last verdict.
        onset: epoch of the first panel that says collapsed and after which none is healthy; None without.
        healthy: epoch of the last healthy panel before; None where there never was one.
        evidence: a sentence each on what in settings and records speaks for a mechanism.
    """

    state: State
    kinds: tuple[str, ...] = ()
    why: str = ""
    onset: int | None = None
    healthy: int | None = None
    evidence: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "kinds": list(self.kinds), "evidence": list(self.evidence)}


def collapsed_kinds(record: EpochRecord) -> tuple[str, ...]:
    """Kinds of collapse of a panel, the run's verdict first, then projector and codes.

    Example:
        >>> verdicts = {"codes": {"kind": "uniform-assignment"}, "backbone": {"kind": "dimensional"}}
        >>> collapsed_kinds(EpochRecord(verdict={"kind": "healthy"}, verdicts=verdicts))
        ('uniform-assignment',)
    """
    found = [record.verdict, *(record.verdicts.get(tap) or {} for tap in JUDGED)]
    kinds = dict.fromkeys(str(verdict.get("kind") or "not decidable") for verdict in found)
    return tuple(kind for kind in kinds if kind not in FINE)


def is_healthy(record: EpochRecord) -> bool:
    """Whether a panel's verdict is healthy, and none that counts says collapsed."""
    return record.verdict.get("kind") == "healthy" and not collapsed_kinds(record)


def begin_of_collapse(records: Iterable[EpochRecord]) -> tuple[int | None, int | None]:
    """Epochs of the first collapsed panel after the last healthy one, and of that.

    What cannot be decided is neither. The untrained network (epoch 0) does not count.

    Example:
        >>> kinds = ["healthy", "dimensional", "healthy", "not decidable", "complete", "complete"]
        >>> panels = [EpochRecord(epoch=e, verdict={"kind": kind}) for e, kind in enumerate(kinds, 1)]
        >>> begin_of_collapse(panels)
        (5, 3)
    """
    onset = healthy = None
    for record in records:
        if not record.epoch:
            continue
        if is_healthy(record):
            onset, healthy = None, record.epoch
        elif collapsed_kinds(record) and onset is None:
            onset = record.epoch
    return onset, healthy


def diagnose(run: Run) -> Diagnosis:
    """Diagnose a run by its records.

    Example:
        >>> from pathlib import Path
        >>> diagnose(Run(Path("runs/a"), epochs=[EpochRecord(epoch=1, verdict={"kind": "healthy"})])).state
        'healthy'
    """
    trained = [record for record in run.epochs if record.epoch and record.verdict]
    if not trained:
        return Diagnosis("not decidable", why="no epoch has been judged yet: train it for longer")
    last, (onset, healthy) = trained[-1], begin_of_collapse(trained)
    why = str(last.verdict.get("why") or "")
    if is_healthy(last):
        fell = fall_note(summarise(run))
        return Diagnosis("healthy", (), why, None, healthy, (fell,) if fell else ())
    kinds = collapsed_kinds(last)
    if not kinds:
        return Diagnosis("not decidable", (), why, None, healthy)
    only = last.verdict if len(kinds) == 1 else {}
    if only.get("phase") == "transient" and run.end is None:
        return Diagnosis("passing", kinds, why, onset, healthy)
    if last.verdict.get("kind") not in kinds:
        of = next(last.verdicts[tap] for tap in JUDGED if last.verdicts.get(tap, {}).get("kind") in kinds)
        why = f"{of.get('tap') or 'codes'}: {of.get('why') or ''}"
    return Diagnosis("collapsed", kinds, why, onset, healthy, tuple(_evidence(run, kinds, last)))


def _evidence(run: Run, kinds: Sequence[str], last: EpochRecord) -> Iterable[str]:
    yield from _suspects(run.config, kinds)
    yield from loss_notes(run)
    if note := rate_note(run.config, summarise(run)):
        yield note
    if last.rank_difference is not None and last.rank_difference < 0:
        below = number(-last.rank_difference)
        yield f"the target's rank is {below} below the online output's: nothing raises it"
    usage = last.usage or {}
    if usage.get("codes") and usage.get("perplexity") is not None:
        share = float(usage["perplexity"]) / float(usage["codes"])
        if share < FEW_CODES:
            yield f"{percent(share)} of {usage['codes']:,.0f} codes are in use, by perplexity"


def _suspects(values: Mapping[str, Any], kinds: Sequence[str]) -> Iterable[str]:
    """Settings that are not what is usual, with the mechanism that they set free."""
    try:
        config = TrainConfig.from_dict(values)
        found = prescriptions(config, kinds)
    except (UsageError, TypeError, ValueError):  # of another version
        return
    settings, usual = flat_settings(config), usual_settings(config)
    for treatment, changes in found:
        if not treatment.general:
            listed = ", ".join(f"{key} is {settings[key]} (usual: {usual.get(key)})" for key in changes)
            yield f"{treatment.mechanism}: {listed}"
