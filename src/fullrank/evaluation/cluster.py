"""Clusters of test rows against their classes."""

from __future__ import annotations

import time
from pathlib import Path

from fullrank.errors import UsageError
from fullrank.evaluation.labelled import Features, open_features, require_whole
from fullrank.evaluation.result import EvaluationResult, of_features
from fullrank.options import ClusterOptions, OnProgress
from fullrank.probes.clusters import by_first_choice, by_kmeans, by_legacy_argmax


def evaluate_cluster(
    what: str | Path | Features,
    options: ClusterOptions,
    _: str | Path = "",
    on_progress: OnProgress | None = None,
) -> EvaluationResult:
    """Cluster test rows by k-means, codes or CPLearn's argmax; compare to classes."""
    by = options.by
    if by == "auto":
        by = "codes" if options.tap == "codes" else "kmeans"
    features = open_features(what, options, on_progress)
    started = time.perf_counter()
    rows, labels = features.test.rows, features.test.labels
    clusters = options.clusters or None
    if by != "kmeans" and clusters:
        raise UsageError(f"the number of clusters is that of the {by}: --clusters is for kmeans")
    if by == "kmeans":
        clustering = by_kmeans(rows, labels, clusters, seed=options.seed, peers=features.peers)
    else:
        require_whole(features, f"--by {by}")
        clustering = by_first_choice(rows, labels) if by == "codes" else by_legacy_argmax(rows, labels)
    notes = [f"clusters are of the {features.counts()[1]:,} test rows; training rows are not used"]
    if clustering.agreement.over_clustered:
        notes.append("more clusters than classes: purity and NMI rise with their number, AMI and ARI do not")
    if clustering.converged is False:
        notes.append("k-means did not converge: the best of its restarts is taken")
    results = {key: value for key, value in clustering.as_dict().items() if value is not None}
    settings = {"clusters": clusters, "seed": options.seed, "unit_rows": by == "kmeans"}
    protocol = {"kmeans": "k-means", "codes": "codes", "legacy": "legacy-argmax"}[by]
    return of_features("cluster", features, protocol, results, settings, started, notes)
