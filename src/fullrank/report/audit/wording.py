"""What an audit says, in words and formatted numbers: once for the terminal, the notebook and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fullrank.collapse.audit import Audit, AuditMetric
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.verdict import Evidence
from fullrank.report.style import number

__all__ = [
    "MEANINGS",
    "Difference",
    "EvidenceRow",
    "MetricRow",
    "as_sentence",
    "differences",
    "evidence_rows",
    "interval",
    "label_of",
    "metric_rows",
    "severity_of",
    "without_infinities",
]

MEANINGS = {
    "complete": "All rows are nearly one vector: whatever the input, the encoder answers alike.",
    "dimensional": "Rows differ, but only along few of their directions; the others carry nothing.",
    "cluster": "Inputs share a handful of points or codes, and within one they cannot be told apart.",
    "intra-cluster": "Rows lie in tight groups, and within a group hardly anything varies.",
    "uniform-assignment": "Every input is assigned to all codes alike, so codes say nothing about it.",
    "healthy": "None of the collapses that an audit looks for is there. What the rows are worth for a task "
    "is another question, which a probe answers.",
    "not decidable": "What there is does not suffice to tell.",
}
"""Kind of verdict to what it means, in a sentence."""

_OF_CLUSTERS = ("linked_share", "tight_clusters")  # of linked neighbours; those of the audit are of all rows
_AT_MOST = ("first_code_share",)
_OF_CODES = {
    "perplexity": "code_perplexity",
    "conditional_entropy": "assignment_entropy",
}


@dataclass(frozen=True)
class EvidenceRow:
    """One line of the evidence, formatted.

    Attributes:
        metric: what it is called in words.
        value, interval, null, power_law, threshold: as numbers, a dash where there is none.
        says: how it is read.
        judged: whether it has a threshold.
        beyond: whether it is on the wrong side of it.
    """

    metric: str
    value: str
    interval: str
    null: str
    power_law: str
    threshold: str
    says: str
    judged: bool
    beyond: bool


@dataclass(frozen=True)
class MetricRow:
    """One metric of an audit with its value, formatted, and how it is to be read."""

    name: str
    variant: str
    value: str
    interval: str
    null: str
    power_law: str
    range: str
    better: str
    sees: str
    blind: str
    reference: str
    n: int


@dataclass(frozen=True)
class Difference:
    """One metric of two embeddings.

    Attributes:
        name: of the metric.
        value, other, difference: as numbers.
        null, other_null: what isotropic rows of the sizes of each read.
        clear: "yes" where the two 95 % intervals do not meet, "no" where they do, a dash without intervals.
    """

    name: str
    value: str
    other: str
    difference: str
    null: str
    other_null: str
    clear: str


def as_sentence(text: str) -> str:
    """A clause as a sentence; a lone symbol at its beginning stays small.

    Example:
        >>> as_sentence("rank is low"), as_sentence("n = 20 rows.")
        ('Rank is low.', 'n = 20 rows.')
    """
    first = text[:1] if text[1:2] == " " else text[:1].upper()
    return first + text[1:] + ("" if text.endswith(".") else ".")


def label_of(metric: str) -> str:
    """What a metric is called in words.

    Example:
        >>> label_of("erank_centred"), label_of("first_code_share")
        ('centred effective rank', 'first code share')
    """
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def severity_of(audit: Audit) -> str:
    """How bad it is, in a word and a number; empty where nothing has collapsed."""
    if not audit.verdict.collapsed:
        return ""
    severity = audit.verdict.severity
    word = "slight" if severity < 1 / 3 else "marked" if severity < 2 / 3 else "severe"
    return f"{severity:.2f} of 1, {word}"


def interval(metric: AuditMetric | None) -> str:
    """A 95 % interval, a dash where none was computed.

    Example:
        >>> interval(AuditMetric(0.5, 1.0, 0.6, 0.45, 0.55, 1000)), interval(None)
        ('0.450 to 0.550', '–')
    """
    if metric is None or metric.low is None or metric.high is None:
        return "–"
    if metric.low == metric.high:
        return number(metric.low)
    return f"{number(metric.low)} to {number(metric.high)}"


def evidence_rows(audit: Audit) -> list[EvidenceRow]:
    """The evidence of a verdict, each value with its interval and both references where they are known."""
    return [_evidence(item, audit.metrics) for item in audit.verdict.evidence]


def _evidence(item: Evidence, metrics: Mapping[str, AuditMetric]) -> EvidenceRow:
    name = _OF_CODES.get(item.metric, item.metric)
    metric = None if item.metric in _OF_CLUSTERS else metrics.get(name)
    judged = item.threshold is not None
    beyond = False
    if item.threshold is not None and item.value is not None:
        over = item.value > item.threshold
        beyond = over if item.metric in _AT_MOST else item.value < item.threshold
    says = item.says
    if judged and "threshold" not in says:
        side = ("above" if item.metric in _AT_MOST else "below") if beyond else "within"
        says = f"{side} its threshold"
    return EvidenceRow(
        label_of(item.metric),
        number(item.value),
        interval(metric),
        number(item.null),
        number(metric.power_law if metric else None),
        "–" if item.threshold is None else f"{item.threshold:.3g}",
        says,
        judged,
        beyond,
    )


def metric_rows(audit: Audit) -> list[MetricRow]:
    """Every metric of an audit with its definition."""
    rows = []
    for name, metric in audit.metrics.items():
        entry = METRICS[name]
        rows.append(
            MetricRow(
                name,
                entry.variant,
                number(metric.value),
                interval(metric),
                number(metric.null),
                number(metric.power_law),
                f"{_words(entry.low)} to {_words(entry.high)}",
                {"high": "higher is better", "low": "lower is better", "none": ""}.get(
                    entry.better, f"best {entry.better}"
                ),
                ", ".join(SEEN[letter] for letter in entry.sees) or "no collapse",
                _letters(entry.blind),
                entry.reference.replace("`", ""),
                metric.n,
            )
        )
    return rows


SEEN = {
    "C": "complete",
    "D": "dimensional",
    "K": "cluster",
    "I": "intra-cluster",
    "L": "local",
    "U": "uneven",
}


def _words(bound: str) -> str:
    return bound.replace("inf", "∞").replace("sqrt", "√").replace(" * ", " ")


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
        rows.append(
            Difference(
                name,
                number(metric.value),
                number(against.value),
                _signed(metric.value - against.value),
                number(metric.null),
                number(against.null),
                _clear(metric, against),
            )
        )
    return rows


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _clear(one: AuditMetric, two: AuditMetric) -> str:
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return "–"
    return "yes" if one.high < two.low or two.high < one.low else "no"


def without_infinities(value: Any) -> Any:
    """The same structure with None for what JSON has no number for.

    Example:
        >>> without_infinities({"a": [1.0, float("inf")], "b": float("nan")})
        {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
