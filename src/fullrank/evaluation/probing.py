"""The probes on features: from rows and labels to what they are worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from fullrank.encoders.encoder import Encoder
from fullrank.errors import UsageError
from fullrank.evaluation.result import EvaluationResult, Probe
from fullrank.evaluation.subject import Features
from fullrank.evaluation.supervised import (
    FINETUNING,
    OnProgress,
    Protocol,
    label_share,
    train_classifier,
)
from fullrank.images.sources import Data
from fullrank.probes.clusters import by_first_choice, by_kmeans, by_legacy_argmax
from fullrank.probes.knn import KS, knn_probe
from fullrank.probes.knn_legacy import li_knn_scan, solo_knn
from fullrank.probes.logistic import CS, logistic_probe
from fullrank.probes.neighbours import Metric

__all__ = ["cluster", "knn", "legacy_knn", "linear", "trained_linear", "tuned"]


def linear(features: Features, *, cs: Sequence[float] = CS, seed: int = 0) -> EvaluationResult:
    """Multinomial logistic regression, the penalty chosen on held-out training rows; see `logistic_probe`.

    Example:
        >>> from fullrank.evaluation.subject import Labelled
        >>> rows = torch.cat([torch.eye(4)] * 10)
        >>> part = Labelled(rows, torch.arange(4).repeat(10))
        >>> linear(Features("corners", "embedding", "made", part, part)).results["top1"]
        1.0
    """
    started = time.perf_counter()
    train, test = features.train, features.test
    found = logistic_probe(train.rows, train.labels, test.rows, test.labels, cs=cs, seed=seed)
    plain = found.as_dict()
    results = {key: plain[key] for key in ("top1", "top5", "train_top1", "c", "converged", "at_edge")}
    notes = [] if found.fit.converged else ["the fit did not converge: its accuracy may be a little low"]
    if found.at_edge:
        notes.append(f"the best penalty C = {found.fit.c:g} is at the edge of those tried: widen --cs")
    settings = {"cs": list(cs), "seed": seed, "standardised": True, "held_out": plain["held_out"]}
    return _worth("linear", features, "logistic", results, settings, started, notes, tried=plain["tried"])


def knn(
    features: Features,
    *,
    metric: Metric = "cosine",
    ks: Sequence[int] | None = None,
    temperatures: Sequence[float] | None = None,
    seed: int = 0,
) -> EvaluationResult:
    """k nearest neighbours, k and the way to vote chosen on held-out training rows; see `knn_probe`."""
    started = time.perf_counter()
    train, test = features.train, features.test
    given: dict[str, Any] = {} if temperatures is None else {"temperatures": temperatures}
    found = knn_probe(
        test.rows, test.labels, train.rows, train.labels, ks=ks, metric=metric, seed=seed, **given
    )
    results = {**found.best.as_dict(), "held_out_top1": found.held_out.top1}
    settings = {"metric": metric, "ks": list(ks or KS), "seed": seed, "chosen_on": found.chosen_on}
    table = [row.as_dict() for row in found.table]
    return _worth("knn", features, "vote", results, settings, started, table=table)


def legacy_knn(features: Features, *, kind: Literal["li", "solo"], metric: Metric = "l2") -> EvaluationResult:
    """k-NN as published code scores it: Li's scan (k chosen on the test rows), or solo-learn's weights."""
    started = time.perf_counter()
    train, test = features.train, features.test
    if kind == "li":
        scan = li_knn_scan(test.rows, test.labels, train.rows, train.labels, metric)
        results = {"top1": scan.best_accuracy, "k": scan.best_k}
        notes = ["k was chosen on the test rows, as the published code does: optimistic"]
        return _worth("knn", features, "li", results, {"metric": metric}, started, notes)
    top1, top5 = solo_knn(test.rows, test.labels, train.rows, train.labels, metric=metric)
    settings = {"metric": metric, "k": 20, "temperature": 0.07}
    return _worth("knn", features, "solo", {"top1": top1, "top5": top5, "k": 20}, settings, started)


def cluster(
    features: Features,
    *,
    by: Literal["kmeans", "codes", "legacy"] = "kmeans",
    clusters: int | None = None,
    seed: int = 0,
) -> EvaluationResult:
    """Clusters of the test rows against their classes: k-means, codes, or CPLearn's legacy argmax."""
    started = time.perf_counter()
    rows, labels = features.test.rows, features.test.labels
    if by != "kmeans" and clusters:
        raise UsageError(f"the number of clusters is that of the {by}: --clusters is for kmeans")
    if by == "kmeans":
        found = by_kmeans(rows, labels, clusters, seed=seed)
    else:
        found = by_first_choice(rows, labels) if by == "codes" else by_legacy_argmax(rows, labels)
    notes = [f"clusters are of the {len(rows):,} test rows; training rows are not used"]
    if found.agreement.over_clustered:
        notes.append("more clusters than classes: purity and NMI rise with their number, AMI and ARI do not")
    if found.converged is False:
        notes.append("k-means did not converge: the best of its restarts is taken")
    results = {key: value for key, value in found.as_dict().items() if value is not None}
    settings = {"clusters": clusters, "seed": seed, "unit_rows": by == "kmeans"}
    called = {"kmeans": "k-means", "codes": "codes", "legacy": "legacy-argmax"}[by]
    return _worth("cluster", features, called, results, settings, started, notes)


def trained_linear(
    name: str, model: Encoder, data: Data, protocol: Protocol, *, called: str = "own", **options: Any
) -> EvaluationResult:
    """A linear classifier trained on random crops before a frozen encoder, as the literature does it.

    Args:
        name: of the subject.
        model: the encoder.
        data: labelled images.
        protocol: one of `PROTOCOLS`, or one of your own.
        called: what the protocol is called.
        options: of `train_classifier`.
    """
    found = train_classifier(model, data, protocol, **options)
    curve = {"top1": found.top1, "top5": found.top5, "loss": found.loss}
    return _image_worth("linear", name, model, data, called, protocol, found, {"curve": curve})


def tuned(
    name: str,
    model: Encoder,
    data: Data,
    shares: Sequence[float],
    *,
    protocol: Protocol = FINETUNING,
    seed: int = 0,
    progress: OnProgress | None = None,
    **options: Any,
) -> EvaluationResult:
    """The encoder trained on with a classifier, on shares of the labels; `top1` is that of the largest share.

    Args:
        name: of the subject.
        model: the encoder.
        data: labelled images.
        shares: of the labels, each in (0, 1].
        protocol: how.
        seed: of the shares and of the training.
        progress: told how far it is.
        options: of `train_classifier`.
    """
    by_share = {}
    for share in sorted(shares):
        found = train_classifier(
            model, label_share(data, share, seed), protocol, seed=seed, progress=progress, **options
        )
        by_share[f"{share:g}"] = {**found.results(), "images": found.images}
    return _image_worth("finetune", name, model, data, "sgd", protocol, found, {"by_share": by_share})


def _worth(
    probe: Probe,
    features: Features,
    protocol: str,
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    started: float,
    notes: Sequence[str] = (),
    **more: Any,
) -> EvaluationResult:
    labelled = features.train.labels[features.train.labels >= 0]
    return EvaluationResult(
        probe,
        features.name,
        features.tap,
        features.data,
        protocol,
        {**results, **more},
        settings,
        len(features.train),
        len(features.test),
        len(torch.unique(labelled)),
        features.train.rows.shape[1],
        time.perf_counter() - started,
        (*features.notes, *notes),
    )


def _image_worth(
    probe: Probe,
    name: str,
    model: Encoder,
    data: Data,
    called: str,
    protocol: Protocol,
    found: Any,
    more: Mapping[str, Any],
) -> EvaluationResult:
    labels = data.train.labels
    if labels is None:
        raise UsageError(f"{data.name} has no labels, which a classifier needs")
    results = {**found.results(), **more}
    settings = {"protocol": vars(protocol), "image_size": model.image_size}
    return EvaluationResult(
        probe,
        name,
        "features",
        data.name,
        called,
        results,
        settings,
        found.images,
        len(data.held_out),
        len(set(labels[labels >= 0].tolist())),
        model.feature_dim,
        found.seconds,
        model.notes,
    )
