"""Every encoder that a run kept, through the same probes, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fullrank.coercion import shown
from fullrank.encoders.runs import own_run, read_header
from fullrank.errors import DataError
from fullrank.evaluation.cluster import evaluate_cluster
from fullrank.evaluation.knn import evaluate_knn
from fullrank.evaluation.labelled import open_features
from fullrank.evaluation.linear import linear
from fullrank.evaluation.result import EvaluationResult
from fullrank.options import ClusterOptions, EvaluateOptions, KnnOptions, OnProgress
from fullrank.training.record_files import read_records
from fullrank.training.records import EpochRecord
from fullrank.training.run_dir import RunDir


@dataclass(frozen=True)
class EncoderRow:
    """Results of one encoder.

    Attributes:
        epoch: None for an encoder that is of no run.
        results: by probe.
        logged: loss, verdict, level, rank and AUC of that epoch in the run's log; empty elsewhere.
    """

    epoch: int | None
    results: Mapping[str, EvaluationResult]
    logged: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the tables of each probe."""
        kept = ("top1", "top5", "k", "c", "nmi", "ami", "ari", "accuracy", "purity", "clusters")
        numbers = {
            probe: {key: value for key, value in result.results.items() if key in kept}
            for probe, result in self.results.items()
        }
        return {"epoch": self.epoch, **self.logged, **numbers}


def encoders(run: RunDir) -> dict[int, Path]:
    """Find the encoders of a run by epoch: those of `--keep-every`, and the last one."""
    epochs = {epoch_of(file): file for file in encoder_files(run)}
    return dict(sorted(epochs.items()))


def encoder_files(run: RunDir) -> list[Path]:
    """Files of the encoders of a run, the last one last.

    Raises:
        DataError: there is none.
    """
    files = [*sorted((run.path / "encoders").glob("epoch_*.safetensors")), run.path / "encoder.safetensors"]
    if not (found := [file for file in files if file.is_file()]):
        raise DataError(f"{run.path} has no encoder yet: its first checkpoint writes one")
    return found


def epoch_of(file: Path) -> int:
    """Epoch in the header of an encoder's file; DataError where the header is damaged."""
    epoch = read_header(file).get("epoch", 0)
    if not isinstance(epoch, int) or epoch < 0:
        raise DataError(f"{file} is damaged: its header names no epoch, but {shown(epoch)}")
    return epoch


def evaluate_all(
    what: str | Path, options: EvaluateOptions, _: str | Path = "", on_progress: OnProgress | None = None
) -> list[EncoderRow]:
    """Linear probe, k-NN and clustering for every encoder of a run.

    With `options.untrained` the network that the run began with comes first, as of epoch 0.
    """
    run, seed = own_run(what), options.seed
    cases: Sequence[tuple[int | None, str | Path]] = [(None, what)]
    logged, asked = {}, options.data
    if run is not None:
        config = run.config()
        options = options.changed(data=options.data or config.data, limit=options.limit or config.limit)
        begun = [(0, run.path)] if options.untrained else []
        cases, logged = [*begun, *encoders(run).items()], _logged(run)
    rows = []
    for epoch, file in cases:
        first = options.untrained and (run is None or file == run.path)
        opened = open_features(file, options.changed(untrained=first), on_progress)
        notes = opened.notes if run is None or asked else ()  # its own images were told of in training
        features = replace(opened, name=str(what), notes=notes)
        results = {
            "linear": linear(features, seed=seed),
            "knn": evaluate_knn(features, KnnOptions(seed=seed)),
            "cluster": evaluate_cluster(features, ClusterOptions(seed=seed)),
        }
        rows.append(EncoderRow(epoch, results, logged.get(epoch or 0, {})))
    return rows


def _judged(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Kind, probability and blemishes of a logged verdict."""
    kept = {key: verdict[key] for key in ("probability", "blemishes") if key in verdict}
    return {"verdict": verdict.get("kind"), **kept}


def _logged(run: RunDir) -> dict[int, dict[str, Any]]:
    epochs = {}
    for record in read_records(run.metrics_path).records:
        if isinstance(record, EpochRecord):
            panel = record.panels.get(record.verdict.get("tap") or "", {})
            names = {"level": "level", "rank": "erank_centred", "auc": "auc"}
            measures = panel.get("measures", {})
            values = {key: (measures.get(name) or {}).get("value") for key, name in names.items()}
            epochs[record.epoch] = {"loss": record.loss, **_judged(record.verdict), **values}
    return epochs
