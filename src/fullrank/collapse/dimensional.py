"""Dimensional collapse: decay of a spectrum, under each hypothesis on its rows."""

from __future__ import annotations

from typing import NamedTuple

from fullrank.collapse.alternatives import Hypothesis
from fullrank.collapse.decay import Decay, decay_of
from fullrank.collapse.panel import Panel
from fullrank.collapse.thresholds import beyond

NEAR = 0.25  # probability of the other side, from which a verdict is near the border


class DimensionalEvidence(NamedTuple):
    """Decay of the spectrum, and what follows from it.

    Attributes:
        probability: of a dimensional collapse, over all hypotheses.
        hypothesis: the most probable of those that say as the probability does.
        decay: of the spectrum under it.
        doubt: near the border what the others say, in words; else empty.
    """

    probability: float
    hypothesis: Hypothesis
    decay: Decay
    doubt: str = ""


def dimensional_evidence(panel: Panel, border: float, width: float) -> DimensionalEvidence | None:
    """Evidence for a dimensional collapse; None where no direction can be lost.

    Args:
        panel: with ranks.
        border: of the decay score, `Thresholds.decay_after` of the panel's past.
        width: of this border.
    """
    decays = [(each, decay_of(each.values, each.n, each.possible)) for each in panel.hypotheses]
    known = [(each, decay) for each, decay in decays if decay is not None]
    if not known:
        return None
    total = sum(each.weight for each, _ in known)
    probability = sum(each.weight * beyond(decay.mean, border, width) for each, decay in known) / total
    same = [(decay.mean >= border) == (probability >= 0.5) for _, decay in known]
    hypothesis, decay = known[same.index(True) if any(same) else 0]
    doubt = ""
    if NEAR <= probability <= 1 - NEAR and not all(same):
        other = known[same.index(False)][0]
        rank = other.values.get("erank_centred")
        doubt = f"near the border: {rank or 1.0:.1f} by effective rank where {other.says or 'all counts'}"
    return DimensionalEvidence(probability, hypothesis, decay, doubt)
