"""Verdict: which collapse a panel shows, how probable, and by which evidence.

The order matters. A centred spectrum has no scale, so around a constant it shows the rank of the noise, often
a full one: the level is asked first. A handful of points has a low rank, too, so clusters are asked before
the rank. Every border has a width: a verdict comes with its probability, and near a border it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from fullrank.coercion import coerce, shown
from fullrank.collapse.blemishes import Blemish, blemishes, of_living
from fullrank.collapse.dimensional import NEAR, dimensional_evidence
from fullrank.collapse.evidence import Case, Evidence, evidence_of, trend_of
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.panel import Panel
from fullrank.collapse.thresholds import Thresholds, beyond
from fullrank.errors import UsageError

Kind = Literal[
    "complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment", "healthy", "not decidable"
]
"""What a verdict may say."""

RAY = 4.0  # times the squared level, about what directions alone would vary, that rows of a ray do
SINGLE = 1e-12  # of a share, below which there is rounding of single precision
MANY_VIEWS = 17  # rows a cluster, up to which they may be views of one image


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

    @property
    def phrase(self) -> str:
        """Kind, embedding and phase in a few words, the same wherever a verdict is told.

        Example:
            >>> Verdict("cluster", "codes", "3 points", phase="transient").phrase
            'cluster (codes), transient'
        """
        tap = f" ({self.tap})" if self.tap else ""
        return f"{self.kind}{tap}{self.passing}"

    @property
    def passing(self) -> str:
        """What follows the kind of a collapse that is in passing; else empty."""
        return ", transient" if self.phase == "transient" else ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: kind, severity, probability, tap, why, evidence and blemishes."""
        own = {name: getattr(self, name) for name in ("kind", "severity", "probability", "tap", "why")}
        own |= {"phase": self.phase} if self.phase else {}
        evidence = [asdict(item) for item in self.evidence]
        return own | {"evidence": evidence, "blemishes": [asdict(item) for item in self.blemishes]}

    def __str__(self) -> str:
        border = " (near the border)" if self.near_border else ""
        found = of_living(self.blemishes) if self.kind != "not decidable" else ""
        living = f" {found}" if found else ""
        return f"{self.tap}: {self.kind}{' collapse' * self.collapsed}{living}{border}: {self.why}"


class Finding(NamedTuple):
    """A collapse, how probable it is, and how severe it would be."""

    kind: Kind
    probability: float
    why: str
    severity: float


def as_verdict(record: Mapping[str, Any]) -> Verdict:
    """A verdict as a log, a header or `audit.json` holds it, without its evidence.

    Logs of earlier versions have no probability and no blemishes.

    Example:
        >>> found = as_verdict({"kind": "healthy", "tap": "projector", "probability": 0.4})
        >>> found.near_border, found.blemishes, found.phrase
        (True, (), 'healthy (projector)')
    """
    phase = record.get("phase")
    return Verdict(
        record.get("kind") or "not decidable",
        str(record.get("tap") or ""),
        str(record.get("why") or ""),
        (),
        float(record.get("severity") or 0.0),
        record.get("probability"),
        tuple(Blemish(**fields) for fields in record.get("blemishes") or ()),
        phase if phase in ("transient", "lasting") else "",
    )


def _thresholds(given: Thresholds | Mapping[str, float] | None) -> Thresholds:
    if given is None or isinstance(given, Thresholds):
        return given or Thresholds()
    if not isinstance(given, Mapping):
        raise UsageError(f"thresholds are Thresholds, or numbers by name, not {shown(given)}")
    return Thresholds(**coerce(Thresholds, given, "threshold"))


def _check_panels(panel: object, history: object) -> None:
    if not isinstance(panel, Panel):
        raise UsageError(
            f"a panel is judged, as Panel.from_moments or a monitor makes it, not {shown(panel)}: "
            "fullrank.audit(z).verdict is that of rows"
        )
    if not isinstance(history, list | tuple) or not all(isinstance(each, Panel) for each in history):
        raise UsageError(f"a history is a list of earlier panels, not {shown(history)}")


def judge(
    panel: Panel,
    history: Sequence[Panel] = (),
    thresholds: Thresholds | Mapping[str, float] | None = None,
    trained: bool = True,
) -> Verdict:
    """Name the collapse that a panel shows.

    Args:
        panel: of held-out rows in evaluation mode.
        history: earlier panels of the same tap, for the trend; those of another tap or width, or without a
            level, are passed over.
        thresholds: the borders it depends on; in a mapping, those that differ from the default.
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
    thresholds = _thresholds(thresholds)
    _check_panels(panel, history)
    # Near a constant the centred rank is that of the noise: such a panel is no best to fall from.
    past = [
        p for p in history if (p.tap, p.d) == (panel.tap, panel.d) and _failed_gate(p, thresholds) is None
    ]
    trends = {name: trend_of(measure, past) for name, measure in panel.measures.items()}
    case = Case(panel, trends, thresholds)
    case = case._replace(spectrum=dimensional_evidence(panel, case.decay_border, thresholds.decay_width))
    why = why_undecidable(panel.n, thresholds, trained)
    evidence = tuple(evidence_of(case, measure, why) for measure in panel.measures.values())
    if why:
        return Verdict("not decidable", panel.tap, why, evidence, blemishes=_blemishes(panel, thresholds))
    found = [finding for rule in _RULES for finding in rule(case)]
    probability = 1 - math.prod(1 - finding.probability for finding in found)
    named = next((finding for finding in found if finding.probability >= 0.5), None)
    odd = _blemishes(panel, thresholds, clusters=named is None or named.kind == "dimensional")
    if named is None:
        # several doubts may add up to one, but no single collapse can be named
        return Verdict("healthy", panel.tap, _why_healthy(case), evidence, 0.0, min(probability, 0.5), odd)
    severity = min(max(named.severity, 1e-3), 1.0)
    return Verdict(named.kind, panel.tap, named.why, evidence, severity, probability, odd)


def _blemishes(panel: Panel, thresholds: Thresholds, clusters: bool = False) -> tuple[Blemish, ...]:
    """What is odd about the rows, with `clusters` those that no verdict names."""
    if panel.facts is None:
        return ()
    line = (panel.value("participation_ratio") or 0.0) < 2  # along which gaps appear by chance
    tight = panel.clusters is not None and panel.clusters.covered_within <= thresholds.within_share / 2
    clustered = panel.clusters.covered if clusters and panel.clusters and tight and not line else 0.0
    rank = panel.hypotheses[0].values.get("erank_centred")
    several = panel.clusters is not None and panel.clusters.number > 1  # the others, far out, are no tails
    facts = replace(panel.facts, far=0) if several else panel.facts
    return blemishes(facts, panel.d, panel.possible, panel.layer, clustered, rank)


def why_undecidable(n: int, thresholds: Thresholds, trained: bool) -> str:
    """Why nothing can be said of n rows; empty where something can."""
    if not trained:
        return "no step taken yet"
    few = f"n = {n} rows; at least {thresholds.fewest_rows} are needed"
    return few if n < thresholds.fewest_rows else ""


# The rules, in their order: each yields what it sees, however improbable.


def _one_row_or_ray(panel: Panel) -> str:
    """What rows of one direction are, by whether their lengths differ, too."""
    level, share = panel.value("level"), panel.value("centred_share")
    ray = level is not None and share is not None and share > RAY * max(level**2, SINGLE)
    return (
        "all rows have nearly one direction; only their length differs"
        if ray
        else "the rows are nearly one constant"
    )


def _complete(case: Case) -> Sequence[Finding]:
    panel, thresholds = case.panel, case.thresholds
    found = []
    for metric, threshold in thresholds.levels().items():
        value = panel.value(metric)
        if value is None or (panel.d == 1 and metric == "level"):  # unit rows of one number are 1 or -1
            continue
        why = f"{metric} is {value:.3g}, below {threshold:g}: {_one_row_or_ray(panel)}"
        border = thresholds.level_after(case.spread_trend) if metric == "level" else threshold
        if value >= threshold and border > threshold:
            fell = -(case.trends.get(metric) or 0.0)
            why = f"level fell {fell:.0%} from its best, to {value:.3g}, below {border:.2g}"
            why += ": the rows draw together"
        threshold = border
        below = math.log(max(threshold, 1e-300) / max(value, 1e-300))
        severity = 1 - value / max(threshold, 1e-300)
        found.append(Finding("complete", beyond(below, 0.0, thresholds.level_width), why, severity))
    if panel.facts is not None:
        share = panel.facts.copied_share
        why = f"{share:.0%} of the rows are one and the same"
        found.append(
            Finding("complete", beyond(share, thresholds.copies, thresholds.copies_width), why, share)
        )
    return found


def _cluster(case: Case) -> Sequence[Finding]:
    clusters, thresholds, facts = case.panel.clusters, case.thresholds, case.panel.facts
    if clusters is None:
        return ()
    within, count = clusters.within_share, clusters.count
    reached = [beyond(jump, thresholds.jump, thresholds.jump_width) for jump in clusters.jumps]
    probability = sum(reached) / len(reached)  # rises with the share of rows in clusters, from 60 to 70 %
    left = f"{within:.2g} of the variance lies within them"
    if count < 1.5:
        # one tight cluster beside scattered rows; a cloud with heavy tails is not as tight
        near = math.log(max(thresholds.point_share, 1e-300) / max(clusters.rest_share, 1e-300))
        probability *= beyond(near, 0.0, thresholds.level_width)
        probability *= beyond(clusters.covered, thresholds.copies, thresholds.copies_width)
        why = f"{clusters.covered:.0%} of the rows are nearly one point, far from the others"
        return (Finding("complete", probability, why, 1 - clusters.rest_share),)
    loose = beyond(within, thresholds.within_share, thresholds.within_width)
    number = f"{'at least' if count > clusters.most / 2 else 'about'} {count:.0f}"
    if within == 0 and facts is not None and facts.distinct <= 1.5 * count:
        number = f"{facts.distinct:,}"  # known, not estimated
    rows = "the rows" if clusters.covered > 0.98 else f"{clusters.covered:.0%} of the rows"
    # as many as are said: the estimate scatters by some percent
    points = within < thresholds.point_share and round(count) <= thresholds.most_points
    kind: Kind = "cluster" if points else "intra-cluster"
    why = (
        f"{rows} {'are' if points else 'lie in'} {number} {'points' if points else 'tight clusters'}: {left}"
    )
    if count < 2.5:
        why += "; two sources of data look like this, too"
    elif clusters.n / count < MANY_VIEWS:
        why += "; so do several views of each image"
    return (Finding(kind, probability * (1 - loose), why, 1 - within),)


def _dimensional(case: Case) -> Sequence[Finding]:
    spectrum, thresholds, panel = case.spectrum, case.thresholds, case.panel
    if spectrum is None:
        return ()
    fall, measured = case.trends.get("erank_centred"), spectrum.hypothesis.measured
    fell = fall is not None and -fall > thresholds.erank_fall
    rank, participation = measured.get("erank_centred") or 1.0, measured.get("participation_ratio") or 1.0
    of = f"{panel.within_living} directions"
    parts = [f"{rank:.1f} of {of} by effective rank"]
    if case.border("participation_ratio") > participation:
        parts[0] += f", {participation:.1f} by participation ratio"
    parts += [
        spectrum.hypothesis.says,
        f"{-(fall or 0.0):.0%} below its best" if fell else "",
        spectrum.doubt,
    ]
    over = (spectrum.decay.mean - case.decay_border) / max(thresholds.decay_width, 1e-9)
    severity = over / (over + 4) if over > 0 else 0.0
    return (Finding("dimensional", spectrum.probability, "; ".join(filter(None, parts)), severity),)


_RULES: tuple[Callable[[Case], Sequence[Finding]], ...] = (_complete, _cluster, _dimensional)


# What the rules share.


def _why_healthy(case: Case) -> str:
    panel, thresholds = case.panel, case.thresholds
    if panel.d == 1:
        return "one number a row, which varies; there are no directions to lose"
    level, spectrum = panel.value("level"), case.spectrum
    parts = ["nothing varies" if level is None else f"level is {level:.2f} (at least {thresholds.level:g})"]
    rank = None if spectrum is None else spectrum.hypothesis.measured.get("erank_centred")
    if spectrum is not None and rank is not None:
        parts[0] += f", {METRICS['erank_centred'].label} is {rank:.1f} of {panel.within_living} directions"
        parts[0] += (
            f", its decay score {max(spectrum.decay.mean, 0.0):.1f} (a collapse from {case.decay_border:.1f})"
        )
        parts += [spectrum.hypothesis.says, spectrum.doubt]
    if panel.clusters is None:
        parts.append("clusters were not looked for")
    return "; ".join(filter(None, parts))


def _failed_gate(panel: Panel, thresholds: Thresholds) -> str | None:
    """The first level check that a panel does not pass."""
    for metric, threshold in thresholds.levels().items():
        value = panel.value(metric)
        if value is not None and value < threshold and not (panel.d == 1 and metric == "level"):
            return metric
    return None
