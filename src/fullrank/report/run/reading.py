"""Reading of a run directory: finished, still growing, or cut at any byte."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.coercion import load_yaml
from fullrank.errors import DataError, UnknownNameError, UsageError, printable
from fullrank.features.files import read_npz
from fullrank.training.config import TrainConfig
from fullrank.training.record_files import read_records
from fullrank.training.records import EndRecord, EpochRecord, RunRecord, StepRecord
from fullrank.untrusted.parsing import read_json, read_text, refusing
from fullrank.untrusted.paths import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Record = dict[str, Any]
"""JSON object, as a verdict or a configuration."""
_FIELDS = TrainConfig.__dataclass_fields__
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
        damaged: how many lines before the last one are no record.
        every: of how many step records one was read: 1 but for very long runs.
        notes: one line each on what of its files could not be read.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    end: EndRecord | None = None
    damaged: int = 0
    every: int = 1
    notes: tuple[str, ...] = ()

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
                read = read_npz(file)
                arrays = {key: read.values(key) for key in read.arrays}
            except DataError:  # cut while it was written
                continue
            spectra[int(digits)] = {
                key: np.asarray(array, np.float64)
                for key, array in arrays.items()
                if array.ndim == 1 and array.dtype.kind == "f" and np.isfinite(array).all()
            }
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
        if path.exists():
            raise UsageError(f"not a directory: {path}")
        raise UsageError(f"no such run directory: {path}{did_you_mean(path)}")
    metrics = path / "metrics.jsonl"
    if not metrics.is_file() and not (path / "config.yaml").is_file():
        inside = sorted(child.parent.name for child in path.glob("*/metrics.jsonl"))
        hint = f"; it holds runs, did you mean {path / inside[-1]}?" if inside else ""
        raise UsageError(f"not a run directory (neither metrics.jsonl nor config.yaml in it): {path}{hint}")
    found = read_records(metrics)
    kept, notes = _in_force(found.records), list(found.notes)
    config, environment = (_read_mapping(path / name, notes) for name in ("config.yaml", "environment.json"))
    return Run(
        path=path,
        config=_settings(config, notes),
        environment=environment,
        steps=[record for record in kept if isinstance(record, StepRecord)],
        epochs=[record for record in kept if isinstance(record, EpochRecord)],
        end=kept[-1] if kept and isinstance(kept[-1], EndRecord) else None,
        damaged=found.damaged,
        every=found.every,
        notes=tuple(notes),
    )


def _in_force(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records without those that a resumed run overtook."""
    kept: list[RunRecord] = []
    for record in records:
        while kept and _overtakes(record, kept[-1]):
            kept.pop()
        kept.append(record)
    return kept


def _overtakes(new: RunRecord, old: RunRecord) -> bool:
    """Whether a resumed run has written `new` over the ground that `old` stood on."""
    if isinstance(old, EndRecord):
        return True
    return old.step > new.step or (old.step == new.step and type(old) is type(new))


def _read_mapping(file: Path, notes: list[str]) -> dict[str, Any]:
    """A file's mapping; empty, with a note, where it cannot be read."""
    if not file.exists():
        return {}
    try:
        return read_json(file) if file.suffix == ".json" else _read_yaml(file)
    except DataError as error:
        notes.append(f"{file.name} is left out: {printable(str(error))}")
        return {}


def _read_yaml(file: Path) -> dict[str, Any]:
    text = read_text(file)
    with refusing(f"{file} is no YAML"):
        values = load_yaml(text)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise DataError(f"{file} holds no mapping of settings")
    return values


def _settings(values: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The settings of a run that have values of their kind; notes on the others."""
    known = {key: value for key, value in values.items() if key != "options" and key in _FIELDS}
    sound = known.keys() if _is_configuration(known) else set[str]()  # else which of them are not
    kept = {key: value for key, value in values.items() if key in sound or _is_setting(key, value)}
    if odd := sorted(values.keys() - kept.keys()):
        notes.append(f"config.yaml holds no value of its kind for {printable(', '.join(odd[:5]))}: left out")
    return kept


def _is_configuration(values: dict[str, Any]) -> bool:
    try:
        TrainConfig.from_dict(values)
    except UsageError:
        return False
    return True


def _is_setting(key: str, value: Any) -> bool:
    if key == "options":  # of the method, shown as they are
        return isinstance(value, dict)
    if key not in _FIELDS:  # of another version
        return value is None or isinstance(value, str | int | float)
    try:
        TrainConfig.from_dict({key: value})
    except UsageError as error:
        return isinstance(error, UnknownNameError) and isinstance(value, str)  # of a package that is not here
    return True
