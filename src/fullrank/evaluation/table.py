"""Every encoder that a run kept, through the same probes: what training was worth, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fullrank.encoders.runs import own_run
from fullrank.errors import DataError
from fullrank.evaluation.result import EvaluationResult
from fullrank.evaluation.subject import Features, OnProgress, Subject, open_features
from fullrank.training.run_dir import RunDir

__all__ = ["Row", "encoders", "evaluate_all"]


@dataclass(frozen=True)
class Row:
    """One encoder's outcomes.

    Attributes:
        epoch: None for an encoder that is of no run.
        worth: by probe.
        logged: what the run's own log says of that epoch: loss, verdict, level, rank; empty elsewhere.
    """

    epoch: int | None
    worth: Mapping[str, EvaluationResult]
    logged: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the tables of each probe."""
        kept = ("top1", "top5", "k", "c", "nmi", "ami", "ari", "accuracy", "purity", "clusters")
        results = {
            probe: {key: value for key, value in worth.results.items() if key in kept}
            for probe, worth in self.worth.items()
        }
        return {"epoch": self.epoch, **self.logged, **results}


def encoders(run: RunDir) -> dict[int, Path]:
    """Epoch to encoder of a run: those of `--keep-every`, and the last one.

    Raises:
        DataError: the run has none yet.
    """
    from safetensors import safe_open

    files = [*sorted((run.path / "encoders").glob("epoch_*.safetensors")), run.path / "encoder.safetensors"]
    found = {}
    for file in files:
        if file.is_file():
            with safe_open(file, framework="np") as opened:
                found[int(json.loads((opened.metadata() or {}).get("epoch", "0")))] = file
    if not found:
        raise DataError(f"{run.path} has no encoder yet: its first checkpoint writes one")
    return dict(sorted(found.items()))


def evaluate_all(
    subject: Subject,
    probes: Mapping[str, Callable[[Features], EvaluationResult]],
    progress: OnProgress | None = None,
    done: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Puts every encoder of a run (or the one that there is) through the probes.

    Args:
        subject: what to evaluate; a run's kept encoders are taken in turn.
        probes: by name.
        progress: told how far an embedding is.
        done: told every row as it is there.
    """
    run = own_run(subject.what)
    rows: list[Row] = []
    if run is None:
        cases: Sequence[tuple[int | None, Subject]] = [(None, subject)]
    else:
        data = subject.data or str(run.config().data)
        limit = subject.limit or run.config().limit
        cases = [
            (epoch, replace(subject, what=str(file), data=data, limit=limit))
            for epoch, file in encoders(run).items()
        ]
    logged = _logged(run) if run else {}
    for epoch, case in cases:
        features = open_features(case, progress)
        features = replace(features, name=str(subject.what))
        row = Row(
            epoch, {name: probe(features) for name, probe in probes.items()}, logged.get(epoch or 0, {})
        )
        rows.append(row)
        if done:
            done(row)
    return rows


def _logged(run: RunDir) -> dict[int, dict[str, Any]]:
    """Loss, verdict and two measures of the judged tap, by epoch."""
    found = {}
    for line in run.metrics_path.read_text().splitlines():
        record = json.loads(line)
        if record["event"] != "epoch":
            continue
        verdict = record.get("verdict") or {}
        measures = (record.get("panels") or {}).get(verdict.get("tap") or "", {}).get("measures", {})
        found[record["epoch"]] = {
            "loss": record.get("loss"),
            "verdict": verdict.get("kind"),
            "level": (measures.get("level") or {}).get("value"),
            "rank": (measures.get("erank_centred") or {}).get("value"),
            "auc": (measures.get("auc") or {}).get("value"),
        }
    return found
