"""Learning rates as plain functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(
    step: int, total: int, base: float, *, warmup: int = 0, start: float = 0.0, final: float = 0.0
) -> float:
    """Linear warm-up from `start`, then a cosine to `final`, by optimiser step.

    As solo-learn and its forks have it, the slope of the warm-up divides by `warmup - 1`: the base rate is
    reached at step `warmup - 1` and stands at step `warmup` too; a warm-up of one step is at `start`.

    Example:
        >>> [round(warmup_cosine(t, 6, 1.0, warmup=2, start=0.1), 3) for t in range(7)]
        [0.1, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return start + (base - start) * step / max(warmup - 1, 1)
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return final + 0.5 * (base - final) * (1.0 + math.cos(math.pi * done))


def epoch_cosine(
    epoch: float, epochs: int, base: float, *, warmup: float = 0, final: float = 0.0, from_zero: bool = False
) -> float:
    """Cosine by epoch, as SimSiam's reference and Li et al. (2209.15007) have it.

    Warm-up epochs ramp as base * (1 + epoch) / (1 + warmup); with `from_zero` as base * epoch / warmup, which
    is MoCo v3's form, per step, with fractions of epochs.

    Example:
        >>> [round(epoch_cosine(e, 4, 1.0), 3) for e in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    if epoch < warmup:
        return base * epoch / warmup if from_zero else base * (1.0 + epoch) / (1.0 + warmup)
    done = (epoch - warmup) / max(epochs - warmup, 1)
    return final + 0.5 * (base - final) * (1.0 + math.cos(math.pi * done))
