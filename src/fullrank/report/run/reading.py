"""A run directory as it lies on disk: finished, growing, or cut at any byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Point", "Record", "Run", "follow", "read_run"]

Record = dict[str, Any]
TAP_ORDER = ("backbone", "projector", "predictor", "target", "codes")
UNDECIDED: Record = {
    "kind": "not decidable",
    "tap": "",
    "why": "Nothing has been judged yet: no epoch record is there.",
    "evidence": [],
}


@dataclass(frozen=True)
class Point:
    """One measured value, and that of isotropic noise of the same n and d."""

    epoch: int
    step: int
    value: float | None
    null: float | None


@dataclass(frozen=True)
class Run:
    """A run directory in memory; `read_run` makes it.

    Args:
        path: the run directory.
        config, environment: what their files say; empty where those are missing or cut.
        steps, epochs: the records of `metrics.jsonl`, in order, without those that a resumed run overtook.
        end: the closing record, or None while the run goes on (or where it was killed).
        damaged: how many lines before the last one are no JSON object.
    """

    path: Path
    config: Record = field(default_factory=dict)
    environment: Record = field(default_factory=dict)
    steps: list[Record] = field(default_factory=list)
    epochs: list[Record] = field(default_factory=list)
    end: Record | None = None
    damaged: int = 0

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def records(self) -> list[Record]:
        """Every record in the order in which training wrote them."""
        rows = [*self.steps, *self.epochs]
        rows.sort(key=lambda row: (row["step"], row["event"] == "epoch"))
        return rows if self.end is None else [*rows, self.end]

    @cached_property
    def taps(self) -> list[str]:
        """Names of the tapped embeddings, from the image to the loss."""
        seen = {tap for row in self.steps for tap in row.get("level") or {}}
        seen |= {tap for row in self.epochs for tap in row.get("panels") or {}}
        return sorted(seen, key=lambda tap: (TAP_ORDER.index(tap) if tap in TAP_ORDER else 99, tap))

    @property
    def verdict(self) -> Record:
        """The last verdict; "not decidable" before there is one."""
        return next((row["verdict"] for row in reversed(self.epochs) if row.get("verdict")), UNDECIDED)

    @property
    def picture(self) -> Path | None:
        """The contact sheet of sampled views, where there is one."""
        path = self.path / "figures" / "views.png"
        return path if path.is_file() else None

    def measures(self, tap: str, name: str) -> list[Point]:
        """Values of one measure, of panels or diagnostics, at one tap over the epochs.

        Example:
            >>> row = {"event": "epoch", "epoch": 1, "step": 31, "panels": {
            ...     "projector": {"n": 1000, "d": 128, "measures": {"auc": {"value": 0.7, "null": 0.6}}}}}
            >>> Run(Path("runs/a"), epochs=[row]).measures("projector", "auc")
            [Point(epoch=1, step=31, value=0.7, null=0.6)]
        """
        points = []
        for row in self.epochs:
            diagnostics = row.get("diagnostics") or row.get("study") or {}
            panel = (row.get("panels") or {}).get(tap) or {}
            measures = diagnostics.get("measures", {}).get(tap, {}) | panel.get("measures", {})
            if found := measures.get(name):
                points.append(Point(row["epoch"], row["step"], found.get("value"), found.get("null")))
        return points

    def size(self, tap: str) -> tuple[int | None, int | None]:
        """n and d of the last panel at a tap, (None, None) where there is none."""
        panels = [row["panels"][tap] for row in self.epochs if tap in (row.get("panels") or {})]
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

        known = {row["epoch"] for row in self.epochs}
        spectra = {}
        for file in sorted((self.path / "spectra").glob("epoch_*.npz")):
            digits = file.stem.removeprefix("epoch_")
            if (
                not digits.isdigit() or int(digits) not in known
            ):  # of an overtaken branch, or of no epoch we know
                continue
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    spectra[int(digits)] = {key: np.asarray(arrays[key], np.float64) for key in arrays.files}
            except Exception:  # cut while it was written: numpy and zipfile raise half a dozen kinds
                continue
        return dict(sorted(spectra.items()))


def read_run(path: Path | str) -> Run:
    """Read a run directory, whatever state the run is in.

    Args:
        path: a directory that the training loop writes or wrote.

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
        steps=[row for row in kept if row["event"] == "step"],
        epochs=[row for row in kept if row["event"] == "epoch"],
        end=kept[-1] if kept and kept[-1]["event"] == "end" else None,
        damaged=damaged,
    )


def _read_records(file: Path) -> tuple[list[Record], int]:
    """The records that count, and how many lines before the last are damaged."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    kept: list[Record] = []
    damaged = 0
    for index, line in enumerate(lines):
        row = _parse_record(line)
        if row is None:
            damaged += bool(line.strip()) and index < len(lines) - 1  # the last line may be half-written
            continue
        while kept and _overtakes(row, kept[-1]):
            kept.pop()
        kept.append(row)
    return kept, damaged


def _overtakes(new: Record, old: Record) -> bool:
    """Whether a resumed run has written `new` over the ground that `old` stood on."""
    if old["event"] == "end":
        return True
    return bool(old["step"] > new["step"] or (old["step"], old["event"]) == (new["step"], new["event"]))


def _parse_record(line: bytes) -> Record | None:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=lambda _: None)  # NaN and Infinity: undefined
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("event") not in {"step", "epoch", "rollback", "end"}:
        return None
    return row if all(isinstance(row.get(key), int) for key in ("step", "epoch")) else None


def _read_mapping(file: Path) -> Record:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def follow(log: Path, position: int, told: Callable[[Record], None]) -> int:
    """Hands on every whole line of a growing `metrics.jsonl` after `position`.

    Args:
        log: the file; it may not be there yet.
        position: a byte, where a line begins.
        told: called with each record.

    Returns:
        Where the next line begins.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log, seen = Path(folder, "metrics.jsonl"), []
        ...     _ = log.write_text('{"step": 1}\\n{"st')
        ...     follow(log, 0, seen.append), seen
        (12, [{'step': 1}])
    """
    if not log.exists():
        return position
    with log.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            try:
                record = json.loads(line)
            except ValueError:  # a resumed run cut the file under us
                continue
            told(record)
    return position
