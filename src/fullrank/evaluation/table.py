"""Every encoder that a run kept, through the same probes, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fullrank.encoders.runs import own_run, read_header
from fullrank.errors import DataError
from fullrank.evaluation.cluster import evaluate_cluster
from fullrank.evaluation.knn import evaluate_knn
from fullrank.evaluation.labelled import open_features
from fullrank.evaluation.linear import linear
from fullrank.evaluation.result import EvaluationResult
from fullrank.options import ClusterOptions, EvaluateOptions, KnnOptions, OnProgress
from fullrank.training.records import EpochRecord, parse_record
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
    files = [*sorted((run.path / "encoders").glob("epoch_*.safetensors")), run.path / "encoder.safetensors"]
    epochs = {int(read_header(file).get("epoch", 0)): file for file in files if file.is_file()}
    if not epochs:
        raise DataError(f"{run.path} has no encoder yet: its first checkpoint writes one")
    return dict(sorted(epochs.items()))


def evaluate_all(
    what: str | Path, options: EvaluateOptions, _: str | Path = "", on_progress: OnProgress | None = None
) -> list[EncoderRow]:
    """Linear probe, k-NN and clustering for every encoder of a run."""
    run, seed = own_run(what), options.seed
    cases: Sequence[tuple[int | None, str | Path]] = [(None, what)]
    logged = {}
    if run is not None:
        config = run.config()
        options = options.changed(data=options.data or config.data, limit=options.limit or config.limit)
        cases, logged = list(encoders(run).items()), _logged(run)
    rows = []
    for epoch, file in cases:
        features = replace(open_features(file, options, on_progress), name=str(what))
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
    for line in run.metrics_path.read_bytes().splitlines():
        record = parse_record(line)
        if isinstance(record, EpochRecord):
            panel = record.panels.get(record.verdict.get("tap") or "", {})
            names = {"level": "level", "rank": "erank_centred", "auc": "auc"}
            measures = panel.get("measures", {})
            values = {key: (measures.get(name) or {}).get("value") for key, name in names.items()}
            epochs[record.epoch] = {"loss": record.loss, **_judged(record.verdict), **values}
    return epochs
