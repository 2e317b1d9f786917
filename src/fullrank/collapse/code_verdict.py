"""Verdict on codes: whether their use says anything about an image."""

from __future__ import annotations

import math

from fullrank.collapse.evidence import Evidence
from fullrank.collapse.metrics.codes import Usage
from fullrank.collapse.thresholds import Thresholds, beyond
from fullrank.collapse.verdict import Finding, Verdict, why_undecidable


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
    if why := why_undecidable(usage.n, thresholds, trained):
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
) -> tuple[Finding, ...]:
    """What the use of codes shows, in the order in which it is asked."""
    possible, width = min(usage.n, usage.codes), thresholds.level_width
    sharp = 1 - usage.conditional_entropy
    uninformed = math.log(max(thresholds.code_information, 1e-9) / max(information, sharp, 1e-9))
    unused = math.log(fewest / max(usage.perplexity, 1e-9))
    severity = 1 - (usage.perplexity - 1) / max(fewest - 1, 1e-9)
    first = usage.first_share if usage.codes > 2 else 0.0
    return (
        Finding(
            "uniform-assignment",
            beyond(uninformed, 0.0, width),
            f"every image is assigned to all {usage.codes} codes alike: codes say {information:.1%} of ln K",
            1 - information / max(thresholds.code_information, 1e-9),
        ),
        Finding(
            "cluster",
            beyond(unused, 0.0, width),
            f"{usage.perplexity:.1f} of {possible} codes are in use, below {fewest:.1f}",
            severity,
        ),
        Finding(
            "cluster",
            beyond(first, thresholds.first_code_share, thresholds.copies_width),
            f"one code is the first choice of {usage.first_share:.0%} of images",
            usage.first_share,
        ),
    )
