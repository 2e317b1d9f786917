"""Phase of a collapse: whether runs like this one leave it by themselves.

Ranks dip in the first epochs of most methods and for longer under a momentum target; they also fall, or stay
low, while a representation gains what it is for. Such a collapse is named, but no run is stopped for it.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fullrank.collapse.verdict import Verdict
from fullrank.errors import UsageError

EARLY_PANELS = 2  # after which the first dip of SimSiam on the generated shapes is over
LATEST = 0.2  # of a training; what is collapsed after that is not early any more
GAIN = 0.005  # of accuracy, above the best before, that is no accident, where it is more than one image
LEARNT = 0.02  # of accuracy, above the untrained network: few directions that serve
AT_BEST = 0.01  # of accuracy, below the best before, or its standard error: no loss
RECOVERS = 0.05  # that the probability of a collapse must fall by in a panel


def with_phase(
    verdict: Verdict,
    panels: int,
    progress: float | None = None,
    dip: float = 0.0,
    *,
    accuracy: float | None = None,
    best_accuracy: float | None = None,
    before: float | None = None,
    untrained: float | None = None,
    images: int | None = None,
) -> Verdict:
    """The verdict with its phase: `transient` where waiting is right, else `lasting`.

    Args:
        verdict: of the latest panel; one that names no collapse has no phase.
        panels: of the trained network so far, this one included.
        progress: share of the training done; None where no end is known.
        dip: share of the training within which the method's ranks usually dip.
        accuracy: accuracy of k-NN or an online probe now, in [0, 1].
        best_accuracy: the best before, the untrained network's among them.
        before: probability of a collapse at the panel before.
        untrained: accuracy of the untrained network, measured as `accuracy` is. Few directions are no reason
            to stop while accuracy is above it and at its best.
        images: that accuracies are of; None: so many that one does not matter.

    Raises:
        UsageError: an accuracy outside of [0, 1].

    Example:
        >>> collapsed = Verdict("dimensional", "projector", "3 of 128 directions", probability=0.9)
        >>> with_phase(collapsed, panels=1, progress=0.01).phase, with_phase(collapsed, panels=50).phase
        ('transient', 'lasting')
        >>> print(with_phase(collapsed, panels=50, accuracy=0.7, best_accuracy=0.6))
        projector: dimensional collapse: 3 of 128 directions; transient: accuracy rises to 0.700
        >>> print(with_phase(collapsed, 50, accuracy=0.6, best_accuracy=0.6, untrained=0.4).why)
        3 of 128 directions; transient: accuracy is at its best, 0.600, and was 0.400 before training
    """
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise UsageError(f"an accuracy lies between 0 and 1, not at {accuracy:g}")
    if not verdict.collapsed:
        return verdict
    why, own = "", verdict.why.partition("; transient: ")[0]
    early = panels <= EARLY_PANELS or (progress is not None and progress <= dip)
    if early and (progress is None or progress <= LATEST):
        why = "ranks dip in the first epochs"
    elif accuracy is not None and best_accuracy is not None and accuracy > best_accuracy + _rise(images):
        why = f"accuracy rises to {accuracy:.3f}"
    elif verdict.kind == "dimensional" and _serves(accuracy, best_accuracy, untrained, images):
        why = f"accuracy is at its best, {accuracy:.3f}, and was {untrained:.3f} before training"
    elif before is not None and verdict.probability is not None and verdict.probability < before - RECOVERS:
        why = f"a collapse is {verdict.probability:.0%} probable, and was {before:.0%} at the panel before"
    if not why:
        return replace(verdict, phase="lasting", why=own)
    return replace(verdict, phase="transient", why=f"{own}; transient: {why}")


def _rise(images: int | None) -> float:
    """Rise of accuracy that is no accident: more than one image."""
    return max(GAIN, 1.5 / images) if images else GAIN


def _serves(accuracy: float | None, best: float | None, untrained: float | None, images: int | None) -> bool:
    """Whether accuracy has risen since before training, and not fallen since."""
    if accuracy is None or best is None or untrained is None:
        return False
    error = math.sqrt(best * (1 - best) / images) if images else 0.0
    return accuracy >= untrained + max(LEARNT, error) and accuracy >= best - max(AT_BEST, error)
