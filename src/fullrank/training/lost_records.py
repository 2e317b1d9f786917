"""Records that a run's checkpoint knows of, and its `metrics.jsonl` no longer has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fullrank.errors import UsageError
from fullrank.training.record_files import lines_backwards
from fullrank.training.records import EpochRecord, RunRecord, parse_record


def lost_records(log: Path, state: Mapping[str, Any]) -> str:
    """A line on records before a checkpoint that are lost; empty without any.

    A file that is short of its end is gone on with. One with something else in it is refused, as going on
    would cut it.

    Args:
        log: the file of the records.
        state: the checkpoint; what is wrong with its own values is left to who restores it.

    Raises:
        UsageError: the file holds no records, or those of another run.

    Example:
        >>> lost_records(Path("nowhere"), {"metrics_size": 900, "progress": {"step": 40}})
        'nowhere has no records of steps 1 to 40 any more: curves begin after them'
    """
    progress, size = state.get("progress"), state.get("metrics_size")
    step = progress.get("step") if isinstance(progress, Mapping) else None
    if not isinstance(progress, Mapping) or not isinstance(step, int) or not isinstance(size, int):
        return ""
    there = log.stat().st_size if log.exists() else 0
    if there >= size:
        last = progress.get("last") if size > 0 else None
        if isinstance(last, Mapping) and last and not _has(log, size, EpochRecord.from_dict(last)):
            raise _foreign(log, f"it lacks the record of epoch {last.get('epoch')} that the checkpoint has")
        return ""
    lines = [line for line in lines_backwards(log) if line.endswith(b"\n") and line.strip()]
    kept = next(_records(lines), None)
    if lines and kept is None:
        raise _foreign(log, "no line of it is a record")
    if kept is not None and kept.step > step:
        raise _foreign(log, f"it has step {kept.step:,}, and the checkpoint is of step {step:,}")
    first = kept.step + 1 if kept else 1
    if kept and kept.step == step:
        return f"{log.name} is cut short: records of epoch {progress.get('epoch')} are missing"
    where = "curves have a gap there" if kept else "curves begin after them"
    steps = f"steps {first:,} to {step:,}" if step else "the untrained network"
    return f"{log.name} has no records of {steps} any more: {where}"


def _records(lines: Iterator[bytes] | list[bytes]) -> Iterator[RunRecord]:
    return (record for line in lines if (record := parse_record(line)) is not None)


def _has(log: Path, size: int, last: EpochRecord) -> bool:
    """Whether the record of a panel is among the first bytes of a file."""
    panels = json.loads(json.dumps(last.panels))
    return any(
        isinstance(record, EpochRecord)
        and (record.step, record.loss) == (last.step, last.loss)
        and record.panels == panels
        for record in _records(lines_backwards(log, size))
    )


def _foreign(log: Path, why: str) -> UsageError:
    return UsageError(
        f"{log} is not what this run wrote ({why}), and going on would cut it: put the file of the run back, "
        "or move this one away, and the run goes on without its earlier records"
    )
