"""The verdict: which collapse a panel shows, if any, with the evidence it rests on.

The order matters. A centred spectrum has no scale, so around a constant it shows the rank of the noise, often
a full one: the level is asked first, and only what passes it is asked for its rank. A rank measured on few
rows is biased low, so a low reading accuses only where more rows could not have shown more.

What is not seen here: clusters without spread inside (a low rank at best), and assignments to prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from fullrank.collapse.panel import Measure, Panel
from fullrank.errors import UsageError

__all__ = ["Evidence", "Kind", "Thresholds", "Verdict", "judge"]

Kind = Literal["complete", "dimensional", "healthy", "not decidable"]
"""What a verdict may say."""


@dataclass(frozen=True)
class Thresholds:
    """Every number that a verdict depends on, with where it comes from.

    Attributes:
        level: complete below it. SimSiam trials: collapsed runs at 0.07 and 0.11 while their centred
            effective rank still read 88 of 128, healthy runs above 0.5.
        centred_share: complete below it, where norms hide what the level shows. A mean of ten standard
            deviations reads 0.0099.
        rank_share: dimensional where `rankme_unit` or `erank_centred` is below this share of d. Trials at
            d = 128: collapsed 7.6 (0.06), healthy 43 (0.34); eigenvalues 1/k over 512 dimensions read 0.8.
        participation_share: the same for `participation_ratio`; 0, the default, does not judge by it, for it
            ignores the tail: healthy runs on the generated shapes read 0.02 while their rank is 0.22. SimSiam
            on all of ImageNet, a known partial collapse, reads 0.008 (spectra published with 2209.15007).
        fewest_directions: dimensional below this many, whatever the share; rank one reads 1.0.
        erank_fall: dimensional where `erank_centred`, relative to its null, fell by more than this share from
            its best earlier value, and `rankme_unit` is below `falling_share`.
        falling_share: of d; a fall alone accuses nobody, for healthy runs settle: SimSiam on the generated
            shapes goes from 45 to 26 of 128 directions while its k-NN rises from 0.39 to 0.71.
        fewest_rows: with fewer, nothing is decided: the estimates themselves scatter.
        rows_per_dimension: n / d from which a low rank is a low rank; below it, the null of n rows is asked
            too. At 5 rows a dimension an isotropic cloud shows 99 % of its rank.
    """

    level: float = 0.15
    centred_share: float = 0.01
    rank_share: float = 0.1
    participation_share: float = 0.0
    fewest_directions: float = 1.5
    erank_fall: float = 0.3
    falling_share: float = 0.15
    fewest_rows: int = 32
    rows_per_dimension: float = 5.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise UsageError(f"the threshold {name} must be a number of at least 0, not {value}")

    def shares(self) -> dict[str, float]:
        """The rank metrics that are judged, each with the least share of d that passes."""
        shares = {
            "rankme_unit": self.rank_share,
            "erank_centred": self.rank_share,
            "participation_ratio": self.participation_share,
        }
        return {metric: share for metric, share in shares.items() if share > 0}

    def fewest(self, metric: str, of: float) -> float:
        """The least number of directions that passes, where `of` directions are possible."""
        return max(self.shares().get(metric, 0.0) * of, self.fewest_directions) if of > 1 else 0.0


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
    """What was decided on one tap, and why.

    Attributes:
        kind: "complete", "dimensional", "healthy" or "not decidable".
        tap: which embedding was judged.
        why: the reason in one sentence, with its numbers.
        evidence: every measure of the panel beside its null, threshold and trend.
    """

    kind: Kind
    tap: str
    why: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def collapsed(self) -> bool:
        """Whether a collapse was named: neither healthy nor undecided."""
        return self.kind not in ("healthy", "not decidable")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: kind, tap, why and the evidence as a list."""
        evidence = [asdict(item) for item in self.evidence]
        return {"kind": self.kind, "tap": self.tap, "why": self.why, "evidence": evidence}

    def __str__(self) -> str:
        return f"{self.tap}: {self.kind}{' collapse' if self.collapsed else ''}: {self.why}"


_WORDS = {
    "rankme_unit": "RankMe of unit rows",
    "erank_centred": "centred effective rank",
    "participation_ratio": "participation ratio",
}


class _Case(NamedTuple):
    """What a rule may look at."""

    panel: Panel
    trends: dict[str, float | None]
    thresholds: Thresholds
    trained: bool


_Finding = tuple[Kind, str]


def judge(
    panel: Panel,
    history: Sequence[Panel] = (),
    thresholds: Thresholds | None = None,
    trained: bool = True,
) -> Verdict:
    """Names the collapse that a panel shows.

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
    kind, why = next(finding for rule in _RULES if (finding := rule(case)) is not None)
    return Verdict(kind, panel.tap, why, tuple(_evidence(case, m) for m in panel.measures.values()))


# The rules, in their order: each returns a finding, or None to pass the case on.


def _untrained(case: _Case) -> _Finding | None:
    return None if case.trained else ("not decidable", "no step taken yet")


def _too_few_rows(case: _Case) -> _Finding | None:
    n, fewest = case.panel.n, case.thresholds.fewest_rows
    return ("not decidable", f"n = {n} rows; at least {fewest} are needed") if n < fewest else None


def _complete(case: _Case) -> _Finding | None:
    metric = _failed_gate(case.panel, case.thresholds)
    if metric is None:
        return None
    value, threshold = case.panel.value(metric), _gates(case.thresholds)[metric]
    return "complete", f"{metric} is {value:.3g}, below {threshold:g}: the rows are nearly one constant"


def _dimensional(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    for metric in thresholds.shares():
        value, fewest = panel.value(metric), thresholds.fewest(metric, panel.d)
        if value is not None and value < fewest and _certain(case, metric):
            shown = f"{_WORDS[metric]} is {value:.1f} of {panel.d} directions"
            return "dimensional", f"{shown}, below {fewest:.1f}"
    fall = case.trends.get("erank_centred")
    rank = panel.value("rankme_unit")
    falling = rank is not None and rank < thresholds.falling_share * panel.d
    if fall is not None and -fall > thresholds.erank_fall and falling:
        left = f"{panel.value('erank_centred'):.1f} of {panel.d} directions"
        return "dimensional", f"centred effective rank fell {-fall:.0%} from its best, to {left}"
    return None


def _not_certified(case: _Case) -> _Finding | None:
    panel, thresholds = case.panel, case.thresholds
    for metric in thresholds.shares():
        value = panel.value(metric)
        if value is not None and value < thresholds.fewest(metric, panel.d):
            enough = round(thresholds.rows_per_dimension * panel.d)
            cannot = f"n = {panel.n} rows cannot certify rank in {panel.d} dimensions"
            return "not decidable", f"{cannot} ({_WORDS[metric]} is {value:.1f}); at least {enough} would"
    return None


def _healthy(case: _Case) -> _Finding:
    panel, thresholds = case.panel, case.thresholds
    level, rank = panel.value("level"), panel.value("rankme_unit")
    fewest = thresholds.fewest("rankme_unit", panel.d)
    return (
        "healthy",
        f"level is {level:.2f} (at least {thresholds.level:g}) and {_WORDS['rankme_unit']} is {rank:.1f} "
        f"of {panel.d} directions (at least {fewest:.1f})",
    )


_RULES: tuple[Callable[[_Case], _Finding | None], ...] = (
    _untrained,
    _too_few_rows,
    _complete,
    _dimensional,
    _not_certified,
    _healthy,
)


# What the rules share.


def _gates(thresholds: Thresholds) -> dict[str, float]:
    """The level checks, each with the least value that passes."""
    return {"level": thresholds.level, "centred_share": thresholds.centred_share}


def _failed_gate(panel: Panel, thresholds: Thresholds) -> str | None:
    """The first level check that a panel does not pass."""
    for metric, threshold in _gates(thresholds).items():
        value = panel.value(metric)
        if value is not None and value < threshold:
            return metric
    return None


def _certain(case: _Case, metric: str) -> bool:
    """Whether a low reading is low: there are rows enough, or it is low even for so few."""
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
    """The relative change from the best earlier value, of metrics that are better when higher."""
    if measure.name in ("auc", "uniformity", "alignment"):
        return None
    now = _relative(measure)
    earlier = [r for panel in past if (r := _relative(panel.measures.get(measure.name)))]
    return now / max(earlier) - 1 if now is not None and earlier else None


def _evidence(case: _Case, measure: Measure) -> Evidence:
    metric, value, trend, thresholds = measure.name, measure.value, case.trends[measure.name], case.thresholds
    threshold = _gates(thresholds).get(metric)
    if metric in thresholds.shares():
        threshold = thresholds.fewest(metric, case.panel.d)
    if value is None:
        says = "not defined: nothing varies"
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
