"""Neighbours and their votes against two references."""

from __future__ import annotations

import re

from fullrank.probes.knn_legacy import li_knn_scan, solo_knn, solo_knn_scores
from fullrank.probes.neighbours import Metric, nearest
from golden.harness import Case, comparer

METRICS: dict[str, Metric] = {"cos": "cosine", "l2": "l2", "cosine": "cosine", "euclidean": "l2"}


@comparer("09_knn")
def knn(case: Case) -> None:
    bank, labels, queries, asked = (
        case.tensor(f"in.{name}") for name in ("train_x", "train_y", "test_x", "test_y")
    )
    for name in ("cos", "l2"):
        metric = METRICS[name]
        values, rows = nearest(queries, bank, 128, metric)
        case.check(f"out.vote_{name}_distances", (1 - values if metric == "cosine" else values)[:, :10])
        case.check(f"out.vote_{name}_indices", rows[:, :10])
        for k in (1, 5, 20, 50, 128):
            case.check(f"out.vote_{name}_pred_k{k}", labels[rows[:, :k]].mode(1).values)
        scan = li_knn_scan(queries, asked, bank, labels, metric)
        case.check(f"out.vote_{name}_accuracy_k1_to_255", scan.accuracy)
        case.check(f"out.vote_{name}_best_k", scan.best_k)
    same = li_knn_scan(bank, labels, bank, labels, "cosine", same_set=True)
    case.check("out.vote_cos_same_set_accuracy_k1_to_255", same.accuracy)
    case.check("out.vote_cos_same_set_best_k", same.best_k)
    _, rows = nearest(bank, bank, 6)
    case.check("out.vote_cos_same_set_pred_k5", labels[rows[:, 1:]].mode(1).values)
    for name in case.arrays:
        if found := re.fullmatch(r"(out\.weighted_(cosine|euclidean)_k(\d+)(?:_T([\d.]+))?)/scores", name):
            way, metric, k = found[1], METRICS[found[2]], int(found[3])
            temperature = float(found[4] or 1)
            scores = solo_knn_scores(queries, bank, labels, case.settings["classes"], k, temperature, metric)
            case.check(name, scores)
            case.check(f"{way}/pred", scores.argmax(1))
            shares = solo_knn(queries, asked, bank, labels, k, temperature, metric)
            case.check(f"{way}/top1_top5", [100 * share for share in shares])
