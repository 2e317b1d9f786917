"""Settings and result of an adaptation, as its run directory has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from fullrank.adaptation.decision import Finding
from fullrank.atomic import write_atomically
from fullrank.errors import DataError, UsageError, first_line
from fullrank.untrusted.parsing import read_json

FILE, PAGE = "adaptation.json", "adaptation.html"
Read = TypeVar("Read")


@dataclass(frozen=True)
class AdaptationSettings:
    """What an adaptation is judged by, besides the settings of its run.

    Attributes:
        model: what was adapted, as it was named.
        keep: least share of the old neighbours that must be kept, in [0, 1].
        patience: panels without a better score after which it stops.
        labels: whether labels may veto the adapted encoder.
    """

    model: str
    keep: float
    patience: int
    labels: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_dict` gave."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Adaptation:
    """How an adaptation ended.

    Attributes:
        path: the run directory, whose encoder.safetensors is the chosen one.
        adapted: whether that is the adapted encoder, and not the start.
        sentence: the outcome in a line.
        findings: what was tested, and what speaks for and against.
        epoch: after which the exported encoder was taken; 0 is the start.
        best_epoch: the best checkpoint, which was compared with the start.
        why_stopped: what ended the training.
        untested: what was not tested, a line each.
        settings: what it is judged by.
        data: name of the images.
        images: to train on, to choose a checkpoint by, and to judge it by.
        seconds: that it took.
    """

    path: Path
    adapted: bool
    sentence: str
    findings: tuple[Finding, ...]
    epoch: int
    best_epoch: int
    why_stopped: str
    untested: tuple[str, ...]
    settings: AdaptationSettings
    data: str
    images: Mapping[str, int]
    seconds: float

    def finding(self, name: str) -> Finding | None:
        """The finding of a name; None where it was not measured."""
        return next((found for found in self.findings if found.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping, as JSON has it."""
        return asdict(self) | {"path": str(self.path)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_dict` gave."""
        read: dict[str, Any] = {
            "path": Path(values["path"]),
            "findings": tuple(Finding(**found) for found in values["findings"]),
            "untested": tuple(values["untested"]),
            "settings": AdaptationSettings.from_dict(values["settings"]),
        }
        return cls(**{f.name: read.get(f.name, values[f.name]) for f in fields(cls)})


def write_settings(folder: Path, settings: AdaptationSettings) -> None:
    """Make a run directory that of an adaptation."""
    _write(folder, {"settings": asdict(settings), "result": None})


def write_result(result: Adaptation) -> None:
    """Write how an adaptation ended into its run directory."""
    _write(result.path, {"settings": asdict(result.settings), "result": result.as_dict()})


def _parsed(folder: Path, read: Callable[[Mapping[str, Any]], Read]) -> Read:
    if not is_adaptation(folder):
        raise UsageError(f"{folder} is no adaptation: it has no {FILE}, which `fullrank adapt` writes")
    values = read_json(folder / FILE)
    try:
        return read(values)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / FILE} is damaged: {first_line(error)}") from error


def _write(folder: Path, values: Mapping[str, Any]) -> None:
    write_atomically(folder / FILE, json.dumps(values, indent=2, allow_nan=False).encode())


def is_adaptation(folder: Path) -> bool:
    """Whether a run directory is that of an adaptation."""
    return (folder / FILE).is_file()


def read_settings(folder: Path) -> AdaptationSettings:
    """What the adaptation in a run directory is judged by.

    Raises:
        UsageError: it is none.
        DataError: its file is damaged.
    """
    return _parsed(folder, lambda values: AdaptationSettings.from_dict(values["settings"]))


def read_result(folder: Path) -> Adaptation | None:
    """How the adaptation in a run directory ended; None where it has not.

    Raises:
        UsageError: it is none.
        DataError: its file is damaged.
    """

    def result(values: Mapping[str, Any]) -> Adaptation | None:
        found = values["result"]
        return None if found is None else Adaptation.from_dict({**found, "path": str(folder)})

    return _parsed(folder, result)
