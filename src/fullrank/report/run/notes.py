"""Notes on a run beside its verdict: rate, accuracy, encoder, loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullrank.errors import UsageError
from fullrank.figures.style import percent
from fullrank.report.run.learning_rate import by_chance, rate_note
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import Summary
from fullrank.views import VIEWS

WAITED = 0.2
"""Share of the steps spent waiting for images that is worth a word."""
LONG_ENOUGH = 10.0
"""Seconds of steps before which workers have hardly started."""


def summary_notes(config: Mapping[str, Any], summary: Summary) -> list[str]:
    """Notes on the rate, on accuracy that fell, and on the encoder that was left."""
    found = rate_note(config, summary), fall_note(summary), encoder_note(config, summary)
    return [note for note in (*found, data_note(config, summary)) if note]


def fall_note(summary: Summary) -> str:
    """What to do where k-NN is clearly below that of an earlier epoch; else empty.

    Example:
        >>> of = {"queries": 1000}
        >>> summary = Summary("run", epoch=9, knn=0.4, knn_of=of, knn_best=0.5, knn_best_epoch=4)
        >>> fall_note(summary)[:64]
        'k-NN fell from 50.0 % after epoch 4 to 40.0 %: what was kept of '
    """
    best, last = summary.knn_best, summary.knn
    if best is None or last is None or not summary.knn_of.get("queries"):
        return ""
    if best - last < by_chance(best, last, summary):
        return ""
    return (
        f"k-NN fell from {percent(best)} after epoch {summary.knn_best_epoch} to {percent(last)}: what was "
        "kept of then is better (`fullrank pick RUN` finds it without labels; --keep-every N keeps encoders, "
        "and --early-stop N leaves the best one)"
    )


def encoder_note(config: Mapping[str, Any], summary: Summary) -> str:
    """Epoch whose encoder a run left, where that is not the last; else empty.

    Example:
        >>> from fullrank.training.records import EndRecord
        >>> summary = Summary("run", epoch=9, score_best=0.5, score_best_epoch=4)
        >>> summary.end = EndRecord(reason="stopped early")
        >>> encoder_note({"early_stop": 3}, summary)
        'encoder.safetensors is that of epoch 4, which has the best label-free score'
        >>> summary.healthy_epoch, summary.end = 3, EndRecord(reason="collapsed")
        >>> encoder_note({}, summary)
        'encoder.safetensors is that of the last healthy checkpoint, of epoch 3 at the latest'
    """
    if summary.end is not None and summary.end.reason == "collapsed":
        if not summary.healthy_epoch:
            return f"encoder.safetensors is that of epoch {summary.epoch}: no panel before was healthy"
        at = summary.healthy_epoch
        return f"encoder.safetensors is that of the last healthy checkpoint, of epoch {at} at the latest"
    ended = summary.end is not None and summary.end.reason in ("finished", "stopped early")
    if not (config.get("early_stop") and ended) or summary.score_best_epoch in (0, summary.epoch):
        return ""
    of = summary.score_best_epoch
    return f"encoder.safetensors is that of epoch {of}, which has the best label-free score"


def data_note(config: Mapping[str, Any], summary: Summary) -> str:
    """What to do where the steps waited for images; empty where they hardly did.

    Example:
        >>> from fullrank.training.records import EndRecord
        >>> summary = Summary("run")
        >>> summary.end = EndRecord(time={"share_waiting": 0.43, "steps": 600.0})
        >>> data_note({"workers": 2, "data": "photos"}, summary)[:75]
        'data was the bottleneck: 43.0 % of the steps went into waiting for images; '
    """
    share = summary.share_waiting
    if share is None or share < WAITED or (summary.end and summary.end.time.get("steps", 0.0) < LONG_ENOUGH):
        return ""
    workers, data = int(config.get("workers", -1)), str(config.get("data", ""))
    used = "as many as cores, 4 at most" if workers < 0 else str(workers)
    remedies = [f"more --workers (now {used}) where cores are idle", "images stored smaller"]
    if data.startswith("hub:"):
        remedies += ["the files on this machine (--data FOLDER)"]
    elif not data.startswith(("shards:", "litdata:")):
        remedies += ["tar shards in place of single files (--data shards:PATTERN)"]
    return (
        f"data was the bottleneck: {percent(share)} of the steps went into waiting for images; what helps is "
        f"{', '.join(remedies[:-1])} or {remedies[-1]}"
    )


def loss_notes(run: Run, last: int = 3, tolerance: float = 0.01) -> list[str]:
    """What the loss means where its last epochs sit at a fixed point of the method's."""
    from fullrank.methods import METHODS, explain_loss

    losses = [record.loss for record in run.epochs if record.epoch and record.loss is not None][-last:]
    method, preset = str(run.config.get("method")), str(run.config.get("views"))
    if len(losses) < last or method not in METHODS or not METHODS[method].fixed_points:
        return []
    views = VIEWS[preset].views if preset in VIEWS else ()
    size, count = int(run.config.get("batch_size") or 256), max(len(views), METHODS[method].views_needed)
    try:
        found = [
            explain_loss(
                loss, method, run.config.get("options"), batch_size=size, views=count, tolerance=tolerance
            )
            for loss in losses
        ]
    except UsageError:  # no fixed point with these options, or a configuration of another version
        return []
    always = set.intersection(*({point["state"] for point in one.at} for one in found))
    words = [
        line for line, point in zip(found[-1].lines, found[-1].at, strict=False) if point["state"] in always
    ]
    return [f"The last {last} epochs: {line}" for line in words]
