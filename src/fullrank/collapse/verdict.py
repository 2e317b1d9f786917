"""Verdict: which collapse a panel shows, if any, with its evidence.

The order matters. A centred spectrum has no scale, so around a constant it shows the rank of the noise, often
a full one: the level is asked first. A handful of points has a low rank, too, so clusters are asked before
the rank. A rank measured on few rows is biased low, so a low reading accuses only where more rows could not
have shown more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics.codes import Usage
from fullrank.collapse.panel import Measure, Panel
from fullrank.collapse.thresholds import Thresholds

Kind = Literal[
    "complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment", "healthy", "not decidable"
]
"""What a verdict may say."""


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


@dataclass(frozen=True)
class Verdict:
    """Verdict on one tap, with its reason.

    Attributes:
        kind: what it is; see `Kind`.
        tap: which embedding was judged.
        why: the reason in one sentence, with its numbers.
        evidence: every measure of the panel beside its null, threshold and trend.
        severity: 0 for what is not collapsed, else in (0, 1]: how far beyond its threshold the decisive
            measure is, 1 where nothing is left.
    """

    kind: Kind
    tap: str
    why: str
    evidence: tuple[Evidence, ...] = ()
    severity: float = 0.0

    @property
    def collapsed(self) -> bool:
        """Whether a collapse was named: neither healthy nor undecided."""
        return self.kind not in ("healthy", "not decidable")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: kind, severity, tap, why and the evidence as a list."""
        evidence = [asdict(item) for item in self.evidence]
        own = {name: getattr(self, name) for name in ("kind", "severity", "tap", "why")}
        return own | {"evidence": evidence}

    def __str__(self) -> str:
        return f"{self.tap}: {self.kind}{' collapse' if self.collapsed else ''}: {self.why}"


class _Case(NamedTuple):
    """Input of a rule."""

    panel: Panel
    trends: dict[str, float | None]
    thresholds: Thresholds
    trained: bool


class _Finding(NamedTuple):
    kind: Kind
    why: str
    severity: float = 0.0


def judge(
    panel: Panel,
    history: Sequence[Panel] = (),
    thresholds: Thresholds | None = None,
    trained: bool = True,
) -> Verdict:
    """Name the collapse that a panel shows.

    Args:
        panel: of held-out rows in evaluation mode.
        history: earlier panels of the same tap, for the trend; those of another width or without a level
            are passed over.
        thresholds: the numbers it depends on.
        trained: whether the network has taken a step; an untrained one has nothing to have collapsed.

    Returns:
        The first finding of the rules below, in their order, with all evidence.

    Example:
        >>> import torch
        >>> from fullrank.collapse import Moments
        >>> z = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
        >>> judge(Panel.from_moments("projector", Moments.of(z))).kind
        'healthy'
        >>> print(judge(Panel.from_moments("projector", Moments.of(z[:, :1] * torch.ones(16)))))
        projector: dimensional collapse: RankMe of unit rows is 1.0 of 16 directions, below 1.6
    """
    thresholds = thresholds or Thresholds()
    # Near a constant the centred rank is that of the noise: such a panel is no best to fall from.
    past = [p for p in history if p.d == panel.d and _failed_gate(p, thresholds) is None]
    trends = {name: _trend(measure, past) for name, measure in panel.measures.items()}
    case = _Case(panel, trends, thresholds, trained)
    kind, why, severity = next(finding for rule in _RULES if (finding := rule(case)) is not None)
    evidence = tuple(_evidence(case, measure) for measure in panel.measures.values())
    return Verdict(kind, panel.tap, why, evidence, min(max(severity, 0.0), 1.0))


def judge_codes(
    usage: Usage, tap: str = "codes", thresholds: Thresholds | None = None, trained: bool = True
) -> Verdict:
    """Name the collapse that the use of codes shows.

    Example:
        >>> import torch
        >>> from fullrank.collapse import CodeUsage
        >>> usage = CodeUsage(16)
        >>> usage.update(torch.zeros(100, 16))
        >>> judge_codes(usage.result()).kind
        'uniform-assignment'
    """
    thresholds = thresholds or Thresholds()
    possible = min(usage.n, usage.codes)
    fewest = max(thresholds.code_share * possible, thresholds.fewest_directions)
    information = usage.marginal_entropy - usage.conditional_entropy
    evidence = (
        Evidence("perplexity", usage.perplexity, float(possible), fewest, None, "codes in use"),
        Evidence(
            "first_code_share", usage.first_share, 1 / possible, thresholds.first_code_share, None, "at most"
        ),
        Evidence("code_information", information, None, thresholds.code_information, None, "share of ln K"),
        Evidence("conditional_entropy", usage.conditional_entropy, 1.0, None, None, "shown, not judged"),
    )
    vague = 1 - usage.conditional_entropy < thresholds.code_information
    if why := _why_undecidable(usage.n, thresholds, trained):
        return Verdict("not decidable", tap, why, evidence)
    if information < thresholds.code_information and vague:
        why = f"every image is assigned to all {usage.codes} codes alike: codes say {information:.1%} of ln K"
        return Verdict(
            "uniform-assignment", tap, why, evidence, 1 - information / thresholds.code_information
        )
    if usage.perplexity < fewest:
        why = f"{usage.perplexity:.1f} of {possible} codes are in use, below {fewest:.1f}"
        return Verdict("cluster", tap, why, evidence, 1 - (usage.perplexity - 1) / max(fewest - 1, 1e-9))
    if usage.first_share > thresholds.first_code_share and usage.codes > 2:
        why = f"one code is the first choice of {usage.first_share:.0%} of images"
        return Verdict("cluster", tap, why, evidence, usage.first_share)
    why = f"{usage.perplexity:.1f} of {possible} codes are in use (at least {fewest:.1f})"
    return Verdict("healthy", tap, why, evidence)


def _why_undecidable(n: int, thresholds: Thresholds, trained: bool) -> str:
    if not trained:
        return "no step taken yet"
    few = f"n = {n} rows; at least {thresholds.fewest_rows} are needed"
    return few if n < thresholds.fewest_rows else ""


# The rules, in their order: each returns a finding, or None to pass the case on.


def _undecidable(case: _Case) -> _Finding | None:
    why = _why_undecidable(case.panel.n, case.thresholds, case.trained)
    return _Finding("not decidable", why) if why else None


def _complete(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    metric = _failed_gate(panel, thresholds)
    if metric is not None:
        value, threshold = panel.value(metric) or 0.0, thresholds.levels()[metric]
        why = f"{metric} is {value:.3g}, below {threshold:g}: the rows are nearly one constant"
        return _Finding("complete", why, 1 - value / threshold)
    level, fall = panel.value("level"), case.trends.get("level")
    if level is not None and fall is not None and level < thresholds.falling_level and fall < -0.5:
        why = f"level fell {-fall:.0%} from its best, to {level:.3g}: the rows draw together"
        return _Finding("complete", why, 1 - level / thresholds.falling_level)
    return None


def _cluster(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    measure, count = panel.measures.get("linked_share"), panel.value("tight_clusters")
    if measure is None or measure.value is None or measure.null is None or count is None or count < 2:
        return None
    within, surrogate = measure.value, measure.null
    if not (within < thresholds.linked_share and within < surrogate / 4):
        return None
    left = f"{within:.2g} of the variance lies within them, {surrogate:.2g} in a Gaussian cloud"
    severity = 1 - within / thresholds.linked_share
    if within < thresholds.point_share and count <= thresholds.most_points:
        return _Finding("cluster", f"the rows are {count:.0f} points: {left}", severity)
    return _Finding("intra-cluster", f"the rows lie in {count:.0f} tight clusters: {left}", severity)


def _dimensional(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    for metric in thresholds.shares():
        value, fewest = panel.value(metric), thresholds.fewest(metric, panel.d)
        if value is not None and value < fewest and _certain(case, metric):
            shown = f"{METRICS[metric].label} is {value:.1f} of {panel.d} directions"
            severity = 1 - (value - 1) / max(fewest - 1, 1e-9)
            return _Finding("dimensional", f"{shown}, below {fewest:.1f}", severity)
    fall = case.trends.get("erank_centred")
    rank = panel.value("rankme_unit")
    falling = rank is not None and rank < thresholds.falling_share * panel.d
    if fall is not None and -fall > thresholds.erank_fall and falling:
        left = f"{panel.value('erank_centred'):.1f} of {panel.d} directions"
        return _Finding(
            "dimensional", f"centred effective rank fell {-fall:.0%} from its best, to {left}", -fall / 2
        )
    return None


def _not_certified(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    for metric in thresholds.shares():
        value = panel.value(metric)
        if value is not None and value < thresholds.fewest(metric, panel.d):
            enough = round(thresholds.rows_per_dimension * panel.d)
            cannot = f"n = {panel.n} rows cannot certify rank in {panel.d} dimensions"
            why = f"{cannot} ({METRICS[metric].label} is {value:.1f}); at least {enough} would"
            return _Finding("not decidable", why)
    return None


def _healthy(case: _Case) -> _Finding:
    panel, thresholds = case.panel, case.thresholds
    level, rank = panel.value("level"), panel.value("rankme_unit")
    fewest = thresholds.fewest("rankme_unit", panel.d)
    why = f"level is {level:.2f} (at least {thresholds.level:g}) and {METRICS['rankme_unit'].label} is "
    return _Finding("healthy", f"{why}{rank:.1f} of {panel.d} directions (at least {fewest:.1f})")


_RULES: tuple[Callable[[_Case], _Finding | None], ...] = (
    _undecidable,
    _complete,
    _cluster,
    _dimensional,
    _not_certified,
    _healthy,
)


# What the rules share.


def _failed_gate(panel: Panel, thresholds: Thresholds) -> str | None:
    """The first level check that a panel does not pass."""
    for metric, threshold in thresholds.levels().items():
        value = panel.value(metric)
        if value is not None and value < threshold:
            return metric
    return None


def _certain(case: _Case, metric: str) -> bool:
    """Whether a low value is certain: enough rows, or low even for so few."""
    if case.panel.n >= case.thresholds.rows_per_dimension * case.panel.d:
        return True
    measure = case.panel.measures[metric]
    assert measure.value is not None
    return measure.null is not None and measure.value < case.thresholds.fewest(metric, measure.null)


def _relative(measure: Measure | None) -> float | None:
    """A value as a share of its null, so that panels of different n compare."""
    if measure is None or measure.value is None or not measure.null:
        return None
    return measure.value / measure.null


def _trend(measure: Measure, past: Sequence[Panel]) -> float | None:
    """Relative change from the best earlier value, where higher is better."""
    if METRICS[measure.name].better != "high":
        return None
    now = _relative(measure)
    earlier = [r for panel in past if (r := _relative(panel.measures.get(measure.name)))]
    return now / max(earlier) - 1 if now is not None and earlier else None


def _evidence(case: _Case, measure: Measure) -> Evidence:
    metric, value, trend, thresholds = measure.name, measure.value, case.trends[measure.name], case.thresholds
    threshold = thresholds.levels().get(metric)
    if metric == "linked_share" and measure.null is not None:
        threshold = min(thresholds.linked_share, measure.null / 4)
    if metric in thresholds.shares():
        threshold = thresholds.fewest(metric, case.panel.d)
    if value is None:
        says = "not defined: nothing varies, or too few rows"
    elif threshold is None:
        says = "shown, not judged"
    elif value >= threshold:
        says = "at or above its threshold"
    elif metric in thresholds.shares() and not _certain(case, metric):
        says = f"below its threshold, but {measure.n} rows cannot show much more"
    else:
        says = "below its threshold"
    if trend is not None:
        says += f"; {abs(trend):.0%} {'below' if trend < 0 else 'above'} its best before"
    return Evidence(metric, value, measure.null, threshold, trend, says)
