"""Reading of a run directory: finished, still growing, or cut at any byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.errors import UsageError
from fullrank.training.records import EndRecord, EpochRecord, RunRecord, StepRecord, parse_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Record = dict[str, Any]
"""JSON object, as a verdict or a configuration."""
TAP_ORDER = ("backbone", "projector", "predictor", "target", "codes")
UNDECIDED: Record = {
    "kind": "not decidable",
    "tap": "",
    "why": "Nothing has been judged yet: no epoch record is there.",
    "evidence": [],
}


@dataclass(frozen=True)
class Point:
    """Measured value, and what isotropic noise of the same n and d would give (null)."""

    epoch: int
    step: int
    value: float | None
    null: float | None


@dataclass(frozen=True)
class Run:
    """Run directory in memory; `read_run` makes it.

    Args:
        config, environment: contents of their files; empty where those are missing or cut.
        steps, epochs: the records of `metrics.jsonl`, in order, without those that a resumed run overtook.
        end: the closing record, or None while the run goes on (or where it was killed).
        damaged: how many lines before the last one are no JSON object.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    end: EndRecord | None = None
    damaged: int = 0

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def records(self) -> list[RunRecord]:
        """Every record in the order in which training wrote them."""
        both: list[RunRecord] = [*self.steps, *self.epochs]
        both.sort(key=lambda record: (record.step, isinstance(record, EpochRecord)))
        return both if self.end is None else [*both, self.end]

    @cached_property
    def taps(self) -> list[str]:
        """Names of the tapped embeddings, from the image to the loss."""
        seen = {tap for record in self.steps for tap in record.level}
        seen |= {tap for record in self.epochs for tap in record.panels}
        return sorted(seen, key=lambda tap: (TAP_ORDER.index(tap) if tap in TAP_ORDER else 99, tap))

    @property
    def verdict(self) -> Record:
        """The last verdict; "not decidable" before there is one."""
        return self.last("verdict") or UNDECIDED

    def last(self, name: str) -> Any:
        """The last epoch's value of a field that has one; None where none has.

        Example:
            >>> Run(Path("runs/a"), epochs=[EpochRecord(knn={"top1": 0.5}), EpochRecord(epoch=1)]).last("knn")
            {'top1': 0.5}
        """
        return next((value for record in reversed(self.epochs) if (value := getattr(record, name))), None)

    def measures(self, tap: str, name: str) -> list[Point]:
        """Values of a measure, of panels or diagnostics, at a tap over the epochs.

        Example:
            >>> panel = {"n": 1000, "d": 128, "measures": {"auc": {"value": 0.7, "null": 0.6}}}
            >>> record = EpochRecord(epoch=1, step=31, panels={"projector": panel})
            >>> Run(Path("runs/a"), epochs=[record]).measures("projector", "auc")
            [Point(epoch=1, step=31, value=0.7, null=0.6)]
        """
        points = []
        for record in self.epochs:
            diagnostics = (record.diagnostics or {}).get("measures", {}).get(tap, {})
            if found := {**diagnostics, **(record.panels.get(tap) or {}).get("measures", {})}.get(name):
                points.append(Point(record.epoch, record.step, found.get("value"), found.get("null")))
        return points

    def size(self, tap: str) -> tuple[int | None, int | None]:
        """n and d of the last panel at a tap, (None, None) where there is none."""
        panels = [record.panels[tap] for record in self.epochs if tap in record.panels]
        return (panels[-1].get("n"), panels[-1].get("d")) if panels else (None, None)

    def spectra(self, tap: str, form: str) -> dict[int, NDArray[np.float64]]:
        """Singular values, descending, by epoch; `form` is "centred" or "unit"."""
        return {
            epoch: found[f"{tap}.{form}"]
            for epoch, found in self._spectra.items()
            if f"{tap}.{form}" in found
        }

    @cached_property
    def _spectra(self) -> dict[int, dict[str, NDArray[np.float64]]]:
        import numpy as np

        known = {record.epoch for record in self.epochs}
        spectra = {}
        for file in sorted((self.path / "spectra").glob("epoch_*.npz")):
            digits = file.stem.removeprefix("epoch_")
            if not digits.isdigit() or int(digits) not in known:  # of an overtaken branch
                continue
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    spectra[int(digits)] = {key: np.asarray(arrays[key], np.float64) for key in arrays.files}
            except Exception:  # cut while it was written: numpy and zipfile raise half a dozen kinds
                continue
        return dict(sorted(spectra.items()))


def read_run(path: Path | str) -> Run:
    """Read a run directory, whatever state the run is in.

    Raises:
        UsageError: if there is no such directory or it holds no run.

    Example:
        >>> read_run("no/such/place")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: no such run directory: no/such/place
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{'not a directory' if path.exists() else 'no such run directory'}: {path}")
    metrics = path / "metrics.jsonl"
    if not metrics.is_file() and not (path / "config.yaml").is_file():
        inside = sorted(child.parent.name for child in path.glob("*/metrics.jsonl"))
        hint = f"; it holds runs, did you mean {path / inside[-1]}?" if inside else ""
        raise UsageError(f"not a run directory (neither metrics.jsonl nor config.yaml in it): {path}{hint}")
    kept, damaged = _read_records(metrics)
    return Run(
        path=path,
        config=_read_mapping(path / "config.yaml"),
        environment=_read_mapping(path / "environment.json"),
        steps=[record for record in kept if isinstance(record, StepRecord)],
        epochs=[record for record in kept if isinstance(record, EpochRecord)],
        end=kept[-1] if kept and isinstance(kept[-1], EndRecord) else None,
        damaged=damaged,
    )


def _read_records(file: Path) -> tuple[list[RunRecord], int]:
    """Read the records that count, and how many lines before the last are damaged."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    kept: list[RunRecord] = []
    damaged = 0
    for index, line in enumerate(lines):
        record = parse_record(line)
        if record is None:
            damaged += bool(line.strip()) and index < len(lines) - 1  # the last line may be half-written
            continue
        while kept and _overtakes(record, kept[-1]):
            kept.pop()
        kept.append(record)
    return kept, damaged


def _overtakes(new: RunRecord, old: RunRecord) -> bool:
    """Whether a resumed run has written `new` over the ground that `old` stood on."""
    if isinstance(old, EndRecord):
        return True
    return old.step > new.step or (old.step == new.step and type(old) is type(new))


def _read_mapping(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
