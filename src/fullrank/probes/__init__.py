"""Probes: worth of a representation for a task, from tensors alone.

Labels below 0 mean unlabelled everywhere and are left out; where none is left, a UsageError says so.
"""

from fullrank.collapse.kmeans import KMeans, kmeans
from fullrank.probes.clusters import (
    Agreement,
    ClusterResult,
    by_first_choice,
    by_kmeans,
    by_legacy_argmax,
    cluster_agreement,
)
from fullrank.probes.knn import KnnResult, KnnRow, knn_leave_one_out, knn_predict, knn_probe, knn_scan
from fullrank.probes.knn_legacy import LegacyScan, li_knn_scan, solo_knn
from fullrank.probes.logistic import LogisticFit, LogisticResult, fit_logistic, logistic_probe
from fullrank.probes.neighbours import nearest

__all__ = [
    "Agreement",
    "ClusterResult",
    "KMeans",
    "KnnResult",
    "KnnRow",
    "LegacyScan",
    "LogisticFit",
    "LogisticResult",
    "by_first_choice",
    "by_kmeans",
    "by_legacy_argmax",
    "cluster_agreement",
    "fit_logistic",
    "kmeans",
    "knn_leave_one_out",
    "knn_predict",
    "knn_probe",
    "knn_scan",
    "li_knn_scan",
    "logistic_probe",
    "nearest",
    "solo_knn",
]
