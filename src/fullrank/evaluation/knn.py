"""k nearest neighbours among training rows."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fullrank.evaluation.labelled import Features, open_features, require_whole
from fullrank.evaluation.result import EvaluationResult, of_features
from fullrank.options import KnnOptions, OnProgress
from fullrank.probes.intervals import wilson_interval
from fullrank.probes.knn import KS, knn_probe
from fullrank.probes.knn_legacy import li_knn_scan, solo_knn
from fullrank.probes.neighbours import Metric
from fullrank.ranges import split_numbers

IN_TRAINING = (
    "similarity",
    0.07,
    20,
)  # vote, temperature and k of runs and comparisons


def evaluate_knn(
    what: str | Path | Features,
    options: KnnOptions,
    _: str | Path = "",
    on_progress: OnProgress | None = None,
) -> EvaluationResult:
    """k nearest neighbours, k and vote chosen on training rows; see `knn_probe`."""
    ks = [int(k) for k in split_numbers(options.ks, "--ks", whole=True)] if options.ks else None
    given: dict[str, Any] = {}
    if options.temperatures:
        given = {"temperatures": split_numbers(options.temperatures, "--temperatures")}
    features = open_features(what, options, on_progress)
    if options.legacy:
        require_whole(features, "--legacy")
        return _legacy(features, options.legacy, options.metric)
    started = time.perf_counter()
    train, test, metric, seed = features.train, features.test, options.metric, options.seed
    scan = knn_probe(
        test.rows,
        test.labels,
        train.rows,
        train.labels,
        ks=ks,
        metric=metric,
        seed=seed,
        peers=features.peers,
        **given,
    )
    table = [asdict(row) for row in scan.table]
    usual = next((row.top1 for row in scan.table if (row.vote, row.temperature, row.k) == IN_TRAINING), None)
    results = {**asdict(scan.best), "as_in_training": usual, "held_out_top1": scan.held_out.top1}
    results |= {"top1_interval": wilson_interval(scan.best.top1, scan.queries), "table": table}
    settings = {"metric": metric, "ks": list(ks or KS), "seed": seed, "chosen_on": scan.chosen_on}
    notes = [f"neighbours are sought among {scan.bank:,} training rows; k and the vote were chosen on them"]
    return of_features("knn", features, "vote", results, settings, started, notes)


def _legacy(features: Features, kind: Literal["li", "solo"], metric: Metric) -> EvaluationResult:
    """k-NN as published code scores it: Li's scan, or solo-learn's weights."""
    started = time.perf_counter()
    rows = (features.test.rows, features.test.labels, features.train.rows, features.train.labels)
    settings: dict[str, Any] = {"metric": metric}
    notes = []
    if kind == "li":
        scan = li_knn_scan(*rows, metric)
        results = {"top1": scan.best_accuracy, "k": scan.best_k}
        notes = ["k was chosen on the test rows, as the published code does: optimistic"]
    else:
        top1, top5 = solo_knn(*rows, metric=metric)
        results = {"top1": top1, "top5": top5, "k": 20}
        settings |= {"k": 20, "temperature": 0.07}
    return of_features("knn", features, kind, results, settings, started, notes)
