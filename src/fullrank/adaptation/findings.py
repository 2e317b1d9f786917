"""Findings about the best checkpoint, on images that did not choose it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from fullrank.adaptation.decision import FEWEST_IMAGES, Finding, bootstrap
from fullrank.adaptation.watch import Seen
from fullrank.collapse.similarity import linear_cka

LEAST_COHERENCE = 0.02
"""Share of neighbours beyond chance; noise has less, and any encoder of photographs more."""


@dataclass(frozen=True, eq=False)
class Judged:
    """An encoder as it is judged.

    Attributes:
        seen: features of all held-out images.
        right: which labelled images, held-out ones and those of the bank, all others of them name right; None
            without labels.
    """

    seen: Seen
    right: Tensor | None = None


def findings_of(
    start: Judged, best: Judged, judging: Tensor, keep: float, veto: bool, seed: int
) -> Iterator[Finding]:
    """Findings about an adapted encoder against its start.

    Args:
        start, best: the two.
        judging: images that had no part in the choice of the checkpoint.
        keep: least share of old neighbours that must be kept.
        veto: whether labels can decide against the adapted one.
        seed: of the bootstrap.
    """
    yield _gain(start.seen, best.seen, judging, seed)
    yield _kept(start.seen, best.seen, judging, keep, seed)
    yield Finding(
        "similarity",
        "how alike the similarities between images are (linear CKA)",
        after=linear_cka(start.seen.rows[judging], best.seen.rows[judging]),
        images=len(judging),
    )
    kinds = start.seen.verdict.kind, best.seen.verdict.kind
    yield Finding(
        "collapse",
        f"effective rank of the features; the start is {kinds[0]}, the adapted encoder {kinds[1]}",
        passed=not best.seen.collapsed_since(start.seen),
        before=start.seen.rank,
        after=best.seen.rank,
        images=len(best.seen.rows),
    )
    if start.right is not None and best.right is not None:
        yield _knn(start.right, best.right, veto, seed)


def _gain(start: Seen, best: Seen, judging: Tensor, seed: int) -> Finding:
    before, after = start.coherence[judging], best.coherence[judging]
    rise = bootstrap(after - before, seed)
    enough = len(judging) >= FEWEST_IMAGES
    says = "neighbours that views of an image share, beyond chance"
    if not enough:
        says += f": {len(judging)} images are too few to tell, {FEWEST_IMAGES} are needed"
    means = float(before.mean()), float(after.mean())
    if enough and means[1] < LEAST_COHERENCE:
        says += ": hardly any, so that there is little to learn from these images"
    passed = enough and means[1] >= LEAST_COHERENCE and rise.above(0.0)
    return Finding("gain", says, passed, *means, rise.low, rise.high, 0.0, len(judging))


def _kept(start: Seen, best: Seen, judging: Tensor, keep: float, seed: int) -> Finding:
    share = bootstrap(best.kept_of(start)[judging], seed)
    says = "old neighbours that an image keeps"
    return Finding(
        "kept", says, share.low >= keep, 1.0, share.mean, share.low, share.high, keep, len(judging)
    )


def _knn(before: Tensor, after: Tensor, veto: bool, seed: int) -> Finding:
    """Accuracy of k-NN, which must not fall."""
    change = after.double() - before.double()
    found = bootstrap(change, seed)
    passed = found.mean >= 0 if veto else None
    return Finding(
        "knn", "labels that the nearest neighbours name right", passed, float(before.double().mean()),
        float(after.double().mean()), found.low, found.high, 0.0 if veto else None, len(change),
    )  # fmt: skip
