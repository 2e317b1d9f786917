"""Linear classifiers: logistic regression, or a paper's protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fullrank.errors import UnknownNameError, UsageError
from fullrank.evaluation.classifier import classifier_result, open_encoder_and_images, train_classifier
from fullrank.evaluation.labelled import Features, open_features
from fullrank.evaluation.protocols import PROTOCOLS
from fullrank.evaluation.result import EvaluationResult, of_features, result_folder
from fullrank.options import LinearOptions, OnProgress
from fullrank.probes.logistic import CS, logistic_probe
from fullrank.ranges import split_numbers


def linear(features: Features, *, cs: Sequence[float] = CS, seed: int = 0) -> EvaluationResult:
    """Multinomial logistic regression, the penalty chosen on held-out training rows.

    See `logistic_probe`.

    Example:
        >>> import torch
        >>> from fullrank.evaluation.labelled import Labelled
        >>> part = Labelled(torch.cat([torch.eye(4)] * 10), torch.arange(4).repeat(10))
        >>> linear(Features("corners", "embedding", "made", part, part)).results["top1"]
        1.0
    """
    started = time.perf_counter()
    train, test = features.train, features.test
    fitted = logistic_probe(
        train.rows, train.labels, test.rows, test.labels, cs=cs, seed=seed, peers=features.peers
    )
    plain = fitted.as_dict()
    keys = ("top1", "top5", "train_top1", "c", "converged", "at_edge", "tried")
    notes = [] if fitted.fit.converged else ["the fit did not converge: its accuracy may be a little low"]
    if fitted.at_edge:
        notes.append(f"the best penalty C = {fitted.fit.c:g} is at the edge of those tried: widen --cs")
    settings = {"cs": list(cs), "seed": seed, "standardised": True, "held_out": plain["held_out"]}
    results = {key: plain[key] for key in keys}
    return of_features("linear", features, "logistic", results, settings, started, notes)


def evaluate_linear(
    what: str | Path, options: LinearOptions, out: str | Path = "", on_progress: OnProgress | None = None
) -> EvaluationResult:
    """Logistic regression on features, or the protocol of a paper on images.

    An interrupted protocol goes on where it was: its state lies in `out`.
    """
    if options.protocol == "logistic":
        for name in ("epochs", "lr", "protocol_batch"):
            if getattr(options, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} belongs to a --protocol: {', '.join(PROTOCOLS)}"
                )
        cs = split_numbers(options.cs, "--cs") if options.cs else CS
        return linear(open_features(what, options, on_progress), cs=cs, seed=options.seed)
    if options.protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", options.protocol, ["logistic", *PROTOCOLS])
    protocol = PROTOCOLS[options.protocol].changed(options.epochs, options.lr, options.protocol_batch)
    model, data = open_encoder_and_images(what, options)
    name = options.protocol + "-untrained" * options.untrained
    state = result_folder(what, out) / f".linear-{name}.partial.pt"
    trained = train_classifier(
        model, data, protocol, options.seed, state, on_progress, precision=options.precision
    )
    curve = {"top1": trained.top1, "top5": trained.top5, "loss": trained.loss}
    results = {**trained.results(), "curve": curve}
    done = classifier_result("linear", str(what), model, data, options.protocol, protocol, trained, results)
    return replace(done, untrained=options.untrained)
