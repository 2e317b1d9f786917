"""Evidence, tiles and metrics in words and formatted numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from fullrank.collapse.audit import Audit, AuditMetric
from fullrank.collapse.evidence import UNDECIDED
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.panel import Panel
from fullrank.collapse.verdict import Verdict
from fullrank.figures.style import VerdictStyle, number, style_of, typographic
from fullrank.report.verdicts import Remark, as_sentence, remarks

MEANINGS = {
    "complete": "Rows differ by little beside what they share, or by their length alone: the encoder answers "
    "nearly alike to all.",
    "dimensional": "Rows differ, but only along few of their directions; the others carry nothing.",
    "cluster": "Inputs share a handful of points or codes, and within one they cannot be told apart.",
    "intra-cluster": "Rows lie in tight groups, and within a group hardly anything varies.",
    "uniform-assignment": "Every input is assigned to all codes alike, so codes say nothing about it.",
    "healthy": "None of the collapses that an audit looks for is there. What the rows are worth for a task "
    "is another question, which a probe answers.",
    "not decidable": "What there is does not suffice to tell.",
}
FULL = 0.5  # of the directions that are possible, from which centred rows span many

OF_NOISE = (
    "All embeddings nearly equal their mean. Ranks and shapes below are of what is left around it, which may "
    "be noise, and may look full."
)

_OF_CLUSTERS = ("linked_share", "tight_clusters")  # of linked neighbours; those of the audit are of all rows
_AT_MOST = ("first_code_share",)
_OF_CODES = {
    "perplexity": "code_perplexity",
    "conditional_entropy": "assignment_entropy",
}
SEEN = {
    "C": "complete",
    "D": "dimensional",
    "K": "cluster",
    "I": "intra-cluster",
    "L": "local",
    "U": "uneven",
}

COLUMNS = {
    "value": "Value",
    "interval": "95 % interval",
    "null": "Isotropic",
    "power_law": "1/k",
    "threshold": "Threshold",
    "trend": "Trend",
}
"""Numbers of an `EvidenceRow` and their headings."""
OF_AUDIT = ("value", "interval", "null", "power_law", "threshold")
OF_RUN = ("value", "null", "threshold", "trend")
MANY = 12  # metrics of an audit, from which on a terminal leaves those that are no evidence to the page


@dataclass(frozen=True)
class EvidenceRow:
    """One line of the evidence, formatted.

    Attributes:
        metric: its label.
        says: how it is read.
        judged, beyond: whether it has a threshold, and is on the wrong side of it.
        value, interval, null, power_law, threshold, trend: as numbers, a dash where there is none.
    """

    metric: str
    says: str
    judged: bool
    beyond: bool
    value: str
    null: str
    threshold: str
    interval: str = "–"
    power_law: str = "–"
    trend: str = "–"

    def numbers(self, columns: Sequence[str]) -> list[str]:
        """The numbers of some columns."""
        return [getattr(self, column) for column in columns]


class Other(NamedTuple):
    """Verdict at another tap than the one that the page is about."""

    tap: str
    style: VerdictStyle
    why: str
    remarks: Sequence[Remark] = ()
    near: bool = False

    @classmethod
    def of(cls, verdict: Verdict) -> Other:
        """How it is shown."""
        why = as_sentence(verdict.why)
        return cls(verdict.tap, style_of(verdict.kind), why, remarks(verdict), verdict.near_border)


class Tile(NamedTuple):
    """A number with its label, and what it is held against below it."""

    label: str
    value: str
    below: str


class Difference(NamedTuple):
    """One metric of two embeddings, each with its isotropic baseline at that size.

    It is clear ("yes") where the two 95 % intervals do not meet; a dash without intervals.
    """

    name: str
    value: str
    other: str
    difference: str
    null: str
    other_null: str
    clear: str


def meaning(verdict: Verdict, panel: Panel | None) -> str:
    """What a verdict means; of rows near their mean also what they are without it."""
    means = MEANINGS.get(verdict.kind, "")
    rank, level = (panel.value(name) if panel else None for name in ("erank_centred", "level"))
    if verdict.kind != "complete" or panel is None or rank is None or level is None:
        return means
    if rank < FULL * panel.possible:
        return means
    return (
        f"{means} Cosines between them are near 1, so to a cosine loss or search they are one point. "
        f"Without their mean they span {rank:.1f} of {panel.possible} directions: noise around a constant, "
        "or a signal beside a large mean, which a linear probe tells apart. Subtract the mean and audit "
        "again to judge what is left."
    )


def label_of(metric: str) -> str:
    """Name of a metric in words.

    Example:
        >>> label_of("erank_centred"), label_of("first_code_share")
        ('centred effective rank', 'first code share')
    """
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def severity_of(audit: Audit) -> str:
    """Severity in a word and a number; empty where nothing has collapsed."""
    if not audit.verdict.collapsed:
        return ""
    severity = audit.verdict.severity
    word = "slight" if severity < 1 / 3 else "marked" if severity < 2 / 3 else "severe"
    return f"{severity:.2f} of 1, {word}"


def interval(metric: AuditMetric | None) -> str:
    """Format a 95 % interval; a dash where none was computed.

    Example:
        >>> interval(AuditMetric(0.5, 1.0, 0.6, 0.45, 0.55, 1000)), interval(None)
        ('0.450 to 0.550', '–')
    """
    if metric is None or metric.low is None or metric.high is None:
        return "–"
    low, high = number(metric.low), number(metric.high)
    return low if metric.low == metric.high else f"{low} to {high}"


def evidence_rows(audit: Audit) -> list[EvidenceRow]:
    """Evidence of an audit, with intervals and both references where they are known."""
    rows = []
    for item in audit.verdict.evidence:
        name = _OF_CODES.get(item.metric, item.metric)
        metric = None if item.metric in _OF_CLUSTERS else audit.metrics.get(name)
        power_law = number(metric.power_law if metric else None)
        rows.append(replace(logged_row(asdict(item)), interval=interval(metric), power_law=power_law))
    return rows


def named_rows(audit: Audit) -> list[EvidenceRow]:
    """Metrics that are no evidence, where few were asked for."""
    shown = {_OF_CODES.get(item.metric, item.metric) for item in audit.verdict.evidence}
    found = {name: metric for name, metric in audit.metrics.items() if name not in shown}
    return [
        replace(
            logged_row({"metric": name, "value": metric.value, "null": metric.null}),
            interval=interval(metric),
            power_law=number(metric.power_law),
        )
        for name, metric in found.items()
        if len(audit.metrics) < MANY
    ]


def logged_row(item: Mapping[str, Any]) -> EvidenceRow:
    """One line of evidence as a run logs it.

    Example:
        >>> row = logged_row({"metric": "level", "value": 0.01, "threshold": 0.1, "trend": -0.4})
        >>> row.trend, row.says, row.beyond
        ('−40 %', 'below its threshold', True)
    """
    metric, value, threshold = str(item.get("metric")), item.get("value"), item.get("threshold")
    trend, says, most = item.get("trend"), str(item.get("says") or "–"), metric in _AT_MOST
    judged = threshold is not None and not says.startswith(UNDECIDED)
    beyond = judged and value is not None and (value > threshold if most else value < threshold)
    if judged and value is not None and "threshold" not in says:
        says = f"{('above' if most else 'below') if beyond else 'within'} its threshold"
    return EvidenceRow(
        label_of(metric),
        says if trend is None else says.split(";")[0],  # the trend has a column of its own
        judged,
        beyond,
        number(value),
        number(item.get("null")),
        "–" if threshold is None else f"{threshold:.3g}",
        trend="–" if trend is None else typographic(f"{100 * trend:+.0f} %"),
    )


def metric_rows(audit: Audit) -> list[dict[str, str]]:
    """Every metric of an audit, formatted, with its definition."""
    better = {"high": "higher is better", "low": "lower is better", "none": ""}
    rows = []
    for name, metric in audit.metrics.items():
        entry = METRICS[name]
        bounds = f"{entry.low} to {entry.high}"
        rows.append(
            {
                "name": name,
                "variant": entry.variant,
                "value": number(metric.value),
                "interval": interval(metric),
                "null": number(metric.null),
                "power_law": number(metric.power_law),
                "range": bounds.replace("inf", "∞").replace("sqrt", "√").replace(" * ", " "),
                "better": better.get(entry.better, f"best {entry.better}"),
                "sees": ", ".join(SEEN[letter] for letter in entry.sees) or "no collapse",
                "blind": _letters(entry.blind),
                "reference": entry.reference.replace("`", ""),
            }
        )
    return rows


def _letters(blind: str) -> str:
    """Letters for collapses, spelt out where a text begins with one."""
    head, rest = blind[:1], blind[1:]
    return f"{SEEN[head]} collapse{rest}" if head in SEEN and rest[:1] in ("", ":", ",", " ", ";") else blind


def differences(audit: Audit, other: Audit) -> list[Difference]:
    """Every metric that both audits have, side by side.

    Example:
        >>> import torch
        >>> from fullrank.collapse.audit import audit
        >>> z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> differences(audit(z, metrics=["level"]), audit(z * 3, metrics=["level"]))[0].clear
        'no'
    """
    rows = []
    for name, metric in audit.metrics.items():
        against = other.metrics.get(name)
        if against is None or metric.value is None or against.value is None:
            continue
        change = metric.value - against.value
        values = number(metric.value), number(against.value), "+" * (change > 0) + number(change)
        baselines = number(metric.null), number(against.null)
        rows.append(Difference(name, *values, *baselines, _clear(metric, against)))
    return rows


def _clear(one: AuditMetric, two: AuditMetric) -> str:
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return "–"
    return "yes" if one.high < two.low or two.high < one.low else "no"
