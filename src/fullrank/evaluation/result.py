"""The result of an evaluation, printed and kept beside its run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import fullrank
from fullrank.atomic import write_atomically
from fullrank.encoders.hooks import FEATURES
from fullrank.encoders.runs import own_run
from fullrank.errors import DataError
from fullrank.evaluation.labelled import Features
from fullrank.features.folders import named_folder, own_folder
from fullrank.untrusted.parsing import read_json
from fullrank.untrusted.paths import expand_user

DEFAULT = Path("evaluations")

Probe: TypeAlias = Literal["linear", "knn", "cluster", "finetune"]


@dataclass(frozen=True)
class EvaluationResult:
    """Quality of a representation by one evaluation.

    Attributes:
        probe: which evaluation.
        subject: what was evaluated.
        tap: layer whose output was taken.
        data: the images or rows.
        protocol: how, in a word: logistic, simsiam, vote, k-means ...
        results: numbers; accuracies are shares in [0, 1].
        settings: what would repeat it.
        n_train: rows to fit on.
        n_test: rows to measure on.
        classes: number of them.
        d: width of the rows.
        seconds: all of it, without the embedding of images.
        notes: one line each: what was assumed, and what is to be kept in mind.
        untrained: whether the network had taken no step.
        encoder: epoch and step of a run's encoder.
    """

    probe: Probe
    subject: str
    tap: str
    data: str
    protocol: str
    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    n_train: int
    n_test: int
    classes: int
    d: int
    seconds: float
    notes: tuple[str, ...] = field(default=())
    untrained: bool = False
    encoder: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its file, without the ending.

        Example:
            >>> names = ("linear", "run", "projector", "shapes", "simsiam")
            >>> EvaluationResult(*names, {}, {}, 0, 0, 0, 0, 0.0).name
            'linear-simsiam-projector'
        """
        usual = self.protocol in ("logistic", "vote", "k-means") or self.probe == "finetune"
        words = [
            self.probe,
            "" if usual else self.protocol,
            "" if self.tap in (FEATURES, "embedding") else self.tap,
            "untrained" if self.untrained else "",
        ]
        return re.sub(r"[^\w.-]+", "-", "-".join(word for word in words if word))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            **vars(self),
            "notes": list(self.notes),
            "encoder": dict(self.encoder),
            "fullrank": fullrank.__version__,
        }

    def write(self, folder: Path, what: str = "") -> Path:
        """Write `<folder>/<name>.json` with the subject's identity; return its path."""
        path = folder / f"{self.name}.json"
        written = self.as_dict() | ({"what": what} if what else {})
        write_atomically(path, json.dumps(written, indent=2).encode())
        return path


def of_features(
    probe: Probe,
    features: Features,
    protocol: str,
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    started: float,
    notes: Sequence[str] = (),
) -> EvaluationResult:
    """The result of a probe on features that began at `started`, a perf_counter."""
    train, test, classes = features.counts()
    return EvaluationResult(
        probe,
        features.name,
        features.tap,
        features.data,
        protocol,
        results,
        settings,
        train,
        test,
        classes,
        features.train.rows.shape[1],
        time.perf_counter() - started,
        (*features.notes, *notes),
        features.untrained,
        features.encoder,
    )


def result_folder(what: str | Path, out: str | Path = "") -> Path:
    """The folder of a subject's evaluations: a run's own, else `evaluations/<name>`.

    Subjects of one name have folders of their own, see `own_folder`.

    Raises:
        UsageError: `out` is a file, or holds the evaluation of another subject.

    Example:
        >>> result_folder("timm:resnet18").as_posix()
        'evaluations/timm-resnet18'
    """
    if out:
        return named_folder(out, what, evaluated, "evaluation")
    run = own_run(what)
    if run is not None:
        return run.path / "evaluations"
    path = expand_user(what)
    return path / "evaluations" if path.is_dir() else own_folder(DEFAULT, what, evaluated, "evaluations")


def evaluated(folder: Path) -> str:
    """Identity of the subject whose evaluations a folder holds; empty without one."""
    for file in sorted(folder.glob("*.json")):
        with suppress(DataError):  # damaged: the others will do
            if what := read_json(file).get("what"):
                return str(what)
    return ""
