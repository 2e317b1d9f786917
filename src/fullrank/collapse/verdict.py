"""Verdict: which collapse a panel shows, how probable, and by which evidence.

The order matters. A centred spectrum has no scale, so around a constant it shows the rank of the noise, often
a full one: the level is asked first. A handful of points has a low rank, too, so clusters are asked before
the rank. Every border has a width: a verdict comes with its probability, and near a border it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from fullrank.collapse.blemishes import Blemish, blemishes
from fullrank.collapse.decay import VIEWS, Decay, decay_of, reading
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics.codes import Usage
from fullrank.collapse.panel import Measure, Panel
from fullrank.collapse.thresholds import Thresholds, beyond

Kind = Literal[
    "complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment", "healthy", "not decidable"
]
"""What a verdict may say."""

NEAR = 0.25  # probability of the other side, from which a verdict is near the border


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
        probability: of a collapse, in [0, 1]; None where nothing could be decided.
        blemishes: what is odd about the rows whatever the verdict is.
        phase: of a collapse in a run, see `with_phase`.
    """

    kind: Kind
    tap: str
    why: str
    evidence: tuple[Evidence, ...] = ()
    severity: float = 0.0
    probability: float | None = None
    blemishes: tuple[Blemish, ...] = ()
    phase: Literal["", "transient", "lasting"] = ""

    @property
    def collapsed(self) -> bool:
        """Whether a collapse was named: neither healthy nor undecided."""
        return self.kind not in ("healthy", "not decidable")

    @property
    def near_border(self) -> bool:
        """Whether the other side of the border is nearly as probable."""
        return self.probability is not None and NEAR <= self.probability <= 1 - NEAR

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: kind, severity, probability, tap, why, evidence and blemishes."""
        own = {name: getattr(self, name) for name in ("kind", "severity", "probability", "tap", "why")}
        own |= {"phase": self.phase} if self.phase else {}
        evidence = [asdict(item) for item in self.evidence]
        return own | {"evidence": evidence, "blemishes": [asdict(item) for item in self.blemishes]}

    def __str__(self) -> str:
        border = " (near the border)" if self.near_border else ""
        return f"{self.tap}: {self.kind}{' collapse' if self.collapsed else ''}{border}: {self.why}"


class _Case(NamedTuple):
    """Input of a rule."""

    panel: Panel
    trends: dict[str, float | None]
    thresholds: Thresholds
    decay: Decay | None


class _Finding(NamedTuple):
    """A collapse, how probable it is, and how severe it would be."""

    kind: Kind
    probability: float
    why: str
    severity: float


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
        thresholds: the borders it depends on.
        trained: whether the network has taken a step; an untrained one has nothing to have collapsed.

    Returns:
        The first collapse, in the order of the rules below, that is more probable than not, else healthy,
        with all evidence.

    Example:
        >>> import torch
        >>> from fullrank.collapse import Moments
        >>> z = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
        >>> judge(Panel.from_moments("projector", Moments.of(z))).kind
        'healthy'
        >>> print(judge(Panel.from_moments("projector", Moments.of(z[:, :1] * torch.ones(16)))))
        projector: dimensional collapse: 1.0 of 16 directions by effective rank, 1.0 by participation ratio
    """
    thresholds = thresholds or Thresholds()
    # Near a constant the centred rank is that of the noise: such a panel is no best to fall from.
    past = [p for p in history if p.d == panel.d and _failed_gate(p, thresholds) is None]
    trends = {name: _trend(measure, past) for name, measure in panel.measures.items()}
    values = {name: panel.value(name) for name in VIEWS}
    case = _Case(panel, trends, thresholds, decay_of(values, panel.n, panel.possible))
    evidence = tuple(_evidence(case, measure) for measure in panel.measures.values())
    odd = () if panel.facts is None else blemishes(panel.facts, panel.d, panel.possible, panel.narrowest)
    if why := _why_undecidable(panel.n, thresholds, trained):
        return Verdict("not decidable", panel.tap, why, evidence, blemishes=odd)
    found = [finding for rule in _RULES for finding in rule(case)]
    probability = 1 - math.prod(1 - finding.probability for finding in found)
    named = next((finding for finding in found if finding.probability >= 0.5), None)
    if named is None:
        # several doubts may add up to one, but no single collapse can be named
        return Verdict("healthy", panel.tap, _why_healthy(case), evidence, 0.0, min(probability, 0.5), odd)
    severity = min(max(named.severity, 1e-3), 1.0)
    return Verdict(named.kind, panel.tap, named.why, evidence, severity, probability, odd)


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
    fewest = max(thresholds.code_share * possible, thresholds.fewest_codes)
    information = usage.marginal_entropy - usage.conditional_entropy
    evidence = (
        Evidence("perplexity", usage.perplexity, float(possible), fewest, None, "codes in use"),
        Evidence(
            "first_code_share", usage.first_share, 1 / possible, thresholds.first_code_share, None, "at most"
        ),
        Evidence("code_information", information, None, thresholds.code_information, None, "share of ln K"),
        Evidence("conditional_entropy", usage.conditional_entropy, 1.0, None, None, "shown, not judged"),
    )
    if why := _why_undecidable(usage.n, thresholds, trained):
        return Verdict("not decidable", tap, why, evidence)
    found = _code_findings(usage, information, fewest, thresholds)
    probability = 1 - math.prod(1 - finding.probability for finding in found)
    named = next((finding for finding in found if finding.probability > 0.5), None)
    if named is None:
        why = f"{usage.perplexity:.1f} of {possible} codes are in use (at least {fewest:.1f})"
        return Verdict("healthy", tap, why, evidence, 0.0, min(probability, 0.5))
    return Verdict(named.kind, tap, named.why, evidence, min(max(named.severity, 1e-3), 1.0), probability)


def _code_findings(
    usage: Usage, information: float, fewest: float, thresholds: Thresholds
) -> tuple[_Finding, ...]:
    """What the use of codes shows, in the order in which it is asked."""
    possible, width = min(usage.n, usage.codes), thresholds.level_width
    sharp = 1 - usage.conditional_entropy
    uninformed = math.log(max(thresholds.code_information, 1e-9) / max(information, sharp, 1e-9))
    unused = math.log(fewest / max(usage.perplexity, 1e-9))
    severity = 1 - (usage.perplexity - 1) / max(fewest - 1, 1e-9)
    first = usage.first_share if usage.codes > 2 else 0.0
    return (
        _Finding(
            "uniform-assignment",
            beyond(uninformed, 0.0, width),
            f"every image is assigned to all {usage.codes} codes alike: codes say {information:.1%} of ln K",
            1 - information / max(thresholds.code_information, 1e-9),
        ),
        _Finding(
            "cluster",
            beyond(unused, 0.0, width),
            f"{usage.perplexity:.1f} of {possible} codes are in use, below {fewest:.1f}",
            severity,
        ),
        _Finding(
            "cluster",
            beyond(first, thresholds.first_code_share, thresholds.copies_width),
            f"one code is the first choice of {usage.first_share:.0%} of images",
            usage.first_share,
        ),
    )


def _why_undecidable(n: int, thresholds: Thresholds, trained: bool) -> str:
    if not trained:
        return "no step taken yet"
    few = f"n = {n} rows; at least {thresholds.fewest_rows} are needed"
    return few if n < thresholds.fewest_rows else ""


# The rules, in their order: each yields what it sees, however improbable.


def _complete(case: _Case) -> Sequence[_Finding]:
    panel, thresholds = case.panel, case.thresholds
    found = []
    for metric, threshold in thresholds.levels().items():
        value = panel.value(metric)
        if value is None:
            continue
        below = math.log(max(threshold, 1e-300) / max(value, 1e-300))
        why = f"{metric} is {value:.3g}, below {threshold:g}: the rows are nearly one constant"
        severity = 1 - value / max(threshold, 1e-300)
        found.append(_Finding("complete", beyond(below, 0.0, thresholds.level_width), why, severity))
    level, fall = panel.value("level"), case.trends.get("level")
    if level is not None and fall is not None and fall < -0.5:
        below = math.log(max(thresholds.falling_level, 1e-300) / max(level, 1e-300))
        why = f"level fell {-fall:.0%} from its best, to {level:.3g}: the rows draw together"
        severity = 1 - level / max(thresholds.falling_level, 1e-300)
        found.append(_Finding("complete", beyond(below, 0.0, thresholds.level_width), why, severity))
    if panel.facts is not None:
        share = panel.facts.copied_share
        why = f"{share:.0%} of the rows are one and the same"
        found.append(
            _Finding("complete", beyond(share, thresholds.copies, thresholds.copies_width), why, share)
        )
    return found


def _cluster(case: _Case) -> Sequence[_Finding]:
    panel, thresholds = case.panel, case.thresholds
    within, count = panel.value("linked_share"), panel.value("tight_clusters")
    if panel.jump is None or within is None or count is None:
        return ()
    probability = beyond(panel.jump, thresholds.jump, thresholds.jump_width)
    if within == 0 and panel.facts is not None:
        count = min(panel.facts.distinct, count * 1.2)  # of points the number is known, not estimated
    left = f"{within:.2g} of the variance lies within them"
    severity = 1 - within
    if count < 2 and probability >= 0.5:
        # one tight cluster beside scattered rows; a cloud with heavy tails is not as tight
        if within >= thresholds.point_share:
            return ()
        return (
            _Finding(
                "complete", probability, "most rows are nearly one point, far from the others", severity
            ),
        )
    if within < thresholds.point_share and count <= thresholds.most_points:
        return (_Finding("cluster", probability, f"the rows are {count:.0f} points: {left}", severity),)
    why = f"the rows lie in {count:.0f} tight clusters: {left}"
    return (_Finding("intra-cluster", probability, why, severity),)


def _dimensional(case: _Case) -> Sequence[_Finding]:
    decay, thresholds, panel = case.decay, case.thresholds, case.panel
    if decay is None:
        return ()
    fall = case.trends.get("erank_centred")
    fell = fall is not None and -fall > thresholds.erank_fall
    mean = decay.mean + (thresholds.fall if fell else 0.0)
    rank, participation = panel.value("erank_centred") or 1.0, panel.value("participation_ratio") or 1.0
    of = f"{panel.possible} directions"
    why = f"{rank:.1f} of {of} by effective rank, {participation:.1f} by participation ratio"
    if fell and fall is not None:
        why += f"; {-fall:.0%} below its best"
    over = (mean - thresholds.decay) / max(thresholds.decay_width, 1e-9)
    severity = over / (over + 4) if over > 0 else 0.0
    return (_Finding("dimensional", beyond(mean, thresholds.decay, thresholds.decay_width), why, severity),)


_RULES: tuple[Callable[[_Case], Sequence[_Finding]], ...] = (_complete, _cluster, _dimensional)


# What the rules share.


def _why_healthy(case: _Case) -> str:
    panel, thresholds = case.panel, case.thresholds
    level, rank = panel.value("level"), panel.value("erank_centred")
    why = "nothing varies" if level is None else f"level is {level:.2f} (at least {thresholds.level:g})"
    if rank is not None and case.decay is not None:
        why += f" and {METRICS['erank_centred'].label} is {rank:.1f} of {panel.possible} directions"
        why += f" (at least {_border(case, 'erank_centred'):.1f})"
    if panel.jump is None:
        return f"{why}; clusters were not looked for"
    return why


def _border(case: _Case, metric: str) -> float:
    """What a spectrum at the border reads."""
    of, n = case.panel.possible, case.panel.n
    if of < 2:
        return 1.0
    return reading(
        "participation_ratio" if metric == "participation_ratio" else "effective_rank",
        case.thresholds.decay,
        0 if metric == "participation_ratio" else n,
        of,
    )


def _failed_gate(panel: Panel, thresholds: Thresholds) -> str | None:
    """The first level check that a panel does not pass."""
    for metric, threshold in thresholds.levels().items():
        value = panel.value(metric)
        if value is not None and value < threshold:
            return metric
    return None


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
    metric, value, trend = measure.name, measure.value, case.trends[measure.name]
    threshold = case.thresholds.levels().get(metric)
    if metric in VIEWS and metric != "numerical_rank" and case.decay is not None:
        threshold = _border(case, metric)
    if value is None:
        says = "not defined: nothing varies, or too few rows"
    elif metric == "tight_clusters":
        most = case.panel.most_clusters
        says = f"more than {most:,} could not be seen among so many rows" if most else "shown, not judged"
    elif threshold is None:
        says = "shown, not judged"
    elif metric in VIEWS and case.decay is not None:
        side = "above" if value >= threshold else "below"
        says = f"{side} the border; decays as k^-{case.decay.exponents[metric]:.1f} would"
    elif value >= threshold:
        says = "at or above its threshold"
    else:
        says = "below its threshold"
    if trend is not None:
        says += f"; {abs(trend):.0%} {'below' if trend < 0 else 'above'} its best before"
    return Evidence(metric, value, measure.null, threshold, trend, says)
