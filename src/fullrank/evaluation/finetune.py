"""Fine-tuning: an encoder trained on with a classifier, on shares of the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fullrank.errors import UsageError
from fullrank.evaluation.classifier import (
    classifier_result,
    labelled_only,
    open_encoder_and_images,
    train_classifier,
)
from fullrank.evaluation.protocols import FINETUNING
from fullrank.evaluation.result import EvaluationResult
from fullrank.images.sources import Data
from fullrank.options import FinetuneOptions, OnProgress
from fullrank.ranges import split_numbers


def label_share(data: Data, share: float, seed: int = 0) -> Data:
    """The data with a share of its training labels, at least one of each class.

    `share` is in (0, 1]; a smaller one lies within a larger one of the same seed.

    Example:
        >>> from fullrank.images.opening import open_data
        >>> small = label_share(open_data("shapes", limit=600), 0.1)
        >>> len(small.train), sorted(set(small.train.labels.tolist())) == list(range(10))
        (61, True)
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of labels lies in (0, 1], as in 0.01 for 1 %, not {share:g}")
    train = labelled_only(data.train, "training")
    assert train.labels is not None
    chosen = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(members)
        chosen.append(order[: max(1, round(share * len(members)))])
    return replace(data, train=train.subset(np.sort(np.concatenate(chosen))))


def evaluate_finetune(
    what: str | Path, options: FinetuneOptions, _: str | Path = "", on_progress: OnProgress | None = None
) -> EvaluationResult:
    """Fine-tuning on shares of the labels; `top1` is that of the largest share."""
    protocol = FINETUNING.changed(options.epochs, options.lr)
    shares = [share / 100 for share in split_numbers(options.shares, "--shares")]
    model, data = open_encoder_and_images(what, options)
    by_share = {}
    for share in sorted(shares):
        part = label_share(data, share, options.seed)
        trained = train_classifier(
            model, part, protocol, options.seed, None, on_progress, precision=options.precision
        )
        by_share[f"{share:g}"] = {**trained.results(), "images": trained.images}
    results = {**trained.results(), "by_share": by_share}
    done = classifier_result("finetune", str(what), model, data, "sgd", protocol, trained, results)
    return replace(done, untrained=options.untrained)
