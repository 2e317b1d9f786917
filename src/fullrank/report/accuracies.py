"""Accuracies in words: with their interval, and what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullrank.figures.style import count, percent
from fullrank.probes.intervals import wilson_interval


def with_interval(share: float, n: int) -> str:
    """An accuracy on `n` rows with its 95 % interval.

    Example:
        >>> with_interval(0.5, 100)
        '50.0 % (40.4 to 59.6 %)'
    """
    if n < 1:
        return percent(share)
    low, high = wilson_interval(share, n)
    return f"{percent(share)} ({100 * low:.1f} to {percent(high)})"


def knn_line(found: Mapping[str, Any], untrained: float | None = None, start: str = "untrained") -> str:
    """The k-NN of a run as its log has it, in a line; empty where it has none.

    Example:
        >>> knn_line({"top1": 0.5, "k": 20, "bank": 4000, "queries": 100}, untrained=0.3)
        'k-NN 50.0 % (40.4 to 59.6 %) of 100 held-out images, k = 20 in a bank of 4,000; untrained 30.0 %'
    """
    if found.get("top1") is None:
        return ""
    text = f"k-NN {with_interval(found['top1'], int(found.get('queries') or 0))}"
    if found.get("queries") and found.get("bank"):
        text += f" of {count(found['queries'])} held-out images, k = {found.get('k')}"
        text += f" in a bank of {count(found['bank'])}"
    return text + (f"; {start} {percent(untrained)}" if untrained is not None else "")
