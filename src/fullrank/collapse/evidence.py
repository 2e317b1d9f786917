"""Evidence of a verdict: every measure beside its baseline, threshold and trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fullrank.collapse.decay import VIEWS, reading
from fullrank.collapse.dimensional import DimensionalEvidence
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.panel import Measure, Panel
from fullrank.collapse.thresholds import Thresholds

UNDECIDED = "undecided"  # how evidence begins that was not held against its threshold
_OF_CLUSTERS = ("linked_share", "tight_clusters")


@dataclass(frozen=True)
class Evidence:
    """One measure as a verdict reads it.

    Attributes:
        metric: its name.
        value: what was measured.
        null: what isotropic Gaussian rows of the same n and d would read.
        threshold: what it is held against, in its own unit; None if it is shown but not judged.
        trend: its change, relative to its null, from the best earlier panel (-0.4: 40 % below); None without
            history and where lower is better.
        says: the same in words.
    """

    metric: str
    value: float | None
    null: float | None
    threshold: float | None
    trend: float | None
    says: str


class Case(NamedTuple):
    """Input of a rule."""

    panel: Panel
    trends: dict[str, float | None]
    thresholds: Thresholds
    spectrum: DimensionalEvidence | None = None

    @property
    def decay_border(self) -> float:
        """Border of the decay score after this past."""
        return self.thresholds.decay_after(self.trends.get("centred_share"), self.trends.get("erank_centred"))

    @property
    def spread_trend(self) -> float | None:
        """Change of the rows' spread around their mean from its best, as a share.

        The lesser fall of the level and of the centred share: rows that lose directions lower the level
        alone, and a few long rows the share alone.
        """
        level, share = self.trends.get("level"), self.trends.get("centred_share")
        return None if level is None or share is None else max(level, max(1 + share, 0.0) ** 0.5 - 1)

    def border(self, metric: str) -> float:
        """What a spectrum at the border reads."""
        of, n = self.panel.possible, self.panel.n
        if of < 2:
            return 1.0
        whole = metric == "participation_ratio"  # whose bias by few rows is taken off
        measure = "participation_ratio" if whole else "effective_rank"
        return reading(measure, self.decay_border, 0 if whole else n, of)


def evidence_of(case: Case, measure: Measure, undecidable: str = "") -> Evidence:
    """One measure beside what it is held against; `undecidable` says why it is not."""
    metric, value, trend = measure.name, measure.value, case.trends[measure.name]
    threshold = case.thresholds.levels().get(metric)
    spectrum = case.spectrum if metric in VIEWS else None
    judged = value is not None and spectrum is not None and spectrum.hypothesis.measured.get(metric) == value
    if judged and metric != "numerical_rank":
        threshold = case.border(metric)
    if value is None:
        says = "not defined: nothing varies, or too few rows"
    elif undecidable and (threshold is not None or metric in _OF_CLUSTERS):
        says = f"{UNDECIDED}: {undecidable}"
    elif metric in _OF_CLUSTERS:
        says = _clusters_in_words(case, metric)
    elif spectrum is not None and not judged:
        instead = spectrum.hypothesis.measured.get(metric)
        says = f"not judged; it is {instead or 1.0:.1f} where {spectrum.hypothesis.says}"
    elif threshold is None:
        says = "shown, not judged"
    elif spectrum is not None:
        side = "above" if value >= threshold else "below"
        says = f"{side} the border by itself; decays as k^-{spectrum.decay.exponents[metric]:.1f} would"
    elif value >= threshold:
        says = "at or above its threshold"
    else:
        says = "below its threshold"
    if trend is not None:
        says += f"; {abs(trend):.0%} {'below' if trend < 0 else 'above'} its best before"
    return Evidence(metric, value, measure.null, threshold, trend, says)


def _clusters_in_words(case: Case, metric: str) -> str:
    if metric == "linked_share":
        return "share of the variance within tight clusters (1: there are none)"
    return case.panel.clusters.in_words(case.thresholds.jump) if case.panel.clusters else "shown, not judged"


def trend_of(measure: Measure, past: Sequence[Panel]) -> float | None:
    """Relative change from the best earlier value, where higher is better."""
    if METRICS[measure.name].better != "high":
        return None
    now = _relative(measure)
    earlier = [r for panel in past if (r := _relative(panel.measures.get(measure.name)))]
    return now / max(earlier) - 1 if now is not None and earlier else None


def _relative(measure: Measure | None) -> float | None:
    """A value as a share of its null, so that panels of different n compare."""
    if measure is None or measure.value is None or not measure.null:
        return None
    return measure.value / measure.null
