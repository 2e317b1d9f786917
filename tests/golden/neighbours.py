"""Neighbours and their votes against two references."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.probes.knn import counted_votes
from fullrank.probes.knn_legacy import LARGEST, STORED, LegacyScan, li_knn_scan, solo_knn, solo_knn_scores
from fullrank.probes.neighbours import Metric, nearest
from golden.case import Case, comparer
from golden.invariances import found_in
from golden.predictors import NUMBER

METRICS: dict[str, Metric] = {"cos": "cosine", "l2": "l2", "cosine": "cosine", "euclidean": "l2"}


def check_votes(case: Case, start: str, neighbours: Tensor, scan: LegacyScan) -> None:
    """Compare majority votes of the stored neighbours' labels [m, k], for every k that is recorded."""
    for name, found in found_in(case, f"out.{start}", r"_pred_k(\d+)"):
        k = min(int(found[1]), neighbours.shape[1])
        weights = torch.ones_like(neighbours, dtype=torch.int32)
        (votes,) = counted_votes(neighbours, weights, [k], int(neighbours.max()) + 1)
        case.check(f"out.{start}{name}", votes.argmax(1))
    case.check(f"out.{start}_accuracy_k1_to_{LARGEST}", scan.accuracy)
    case.check(f"out.{start}_best_k", scan.best_k)


@comparer("09_knn")
def knn(case: Case) -> None:
    bank, labels, queries, asked = (
        case.tensor(f"in.{name}") for name in ("train_x", "train_y", "test_x", "test_y")
    )
    classes = len(asked.unique())
    for key, size in (
        ("train", len(bank)),
        ("test", len(queries)),
        ("d", bank.shape[1]),
        ("classes", classes),
    ):
        case.settings.expect(key, size)
    stored = min(STORED, len(bank))
    for name in ("cos", "l2"):
        metric = METRICS[name]
        if case.names(f"out.vote_{name}_same_set"):
            _, rows = nearest(bank, bank, stored, metric)
            scan = li_knn_scan(bank, labels, bank, labels, metric, same_set=True)
            check_votes(case, f"vote_{name}_same_set", labels[rows[:, 1:]], scan)
        values, rows = nearest(queries, bank, stored, metric)
        for key, ours in (("distances", 1 - values if metric == "cosine" else values), ("indices", rows)):
            array = case.arrays.get(f"out.vote_{name}_{key}")
            case.check(f"out.vote_{name}_{key}", ours if array is None else ours[:, : array.shape[-1]])
        check_votes(case, f"vote_{name}", labels[rows], li_knn_scan(queries, asked, bank, labels, metric))
    pattern = rf"(cosine|euclidean)_k(\d+)(?:_T({NUMBER}))?/(?:scores|pred|top1_top5)"
    for way in sorted({name.rpartition("/")[0] for name, _ in found_in(case, "out.weighted_", pattern)}):
        found = found_in(case, f"out.weighted_{way}", r"/(scores|pred|top1_top5)")
        kind, _, rest = way.partition("_k")
        k, _, temperature = rest.partition("_T")
        options = int(k), float(temperature or 1), METRICS[kind]
        scores = solo_knn_scores(queries, bank, labels, max(classes, int(labels.max()) + 1), *options)
        shares = solo_knn(queries, asked, bank, labels, *options)
        weighted: dict[str, object] = {
            "scores": scores,
            "pred": scores.argmax(1),
            "top1_top5": [100 * share for share in shares],
        }
        for name, _ in found:
            case.check(f"out.weighted_{way}{name}", weighted[name[1:]])
