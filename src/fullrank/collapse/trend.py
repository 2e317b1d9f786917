"""Early warning: measures that will soon pass their threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from fullrank.collapse.evidence import Case, trend_of
from fullrank.collapse.panel import Panel
from fullrank.collapse.thresholds import Thresholds

LOOK_BACK = 4  # panels, this one included
LOOK_AHEAD = 3


def warnings(
    panel: Panel, history: Sequence[Panel] = (), thresholds: Thresholds | None = None
) -> tuple[str, ...]:
    """Measures that fell in the last panels and will soon pass their threshold.

    The fall is continued at its mean rate, in logarithms: halving stays halving.

    Args:
        panel: the latest.
        history: earlier panels of the same tap, the oldest first.
        thresholds: what verdicts depend on.

    Example:
        >>> import torch
        >>> from fullrank.collapse import Moments
        >>> z = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> past = [Panel.from_moments("z", Moments.of(z + mean)) for mean in (0.5, 0.9, 1.5, 2.4)]
        >>> warnings(past[-1], past[:-1])[0]
        'level falls by 26% a panel: at 0.366, it passes 0.293 in about 1 panel'
    """
    thresholds = thresholds or Thresholds()
    limits = {}
    if panel.possible > 1:
        trends = {name: trend_of(measure, history) for name, measure in panel.measures.items()}
        limits["erank_centred"] = Case(panel, trends, thresholds).border("erank_centred")
    found = []
    recent = [p for p in (*history, panel) if p.d == panel.d][-LOOK_BACK:]
    best = max((p.value("level") or 0.0 for p in (*history, panel) if p.d == panel.d), default=0.0)
    limits["level"] = thresholds.level_from(best)
    for metric, limit in sorted(limits.items()):
        values = [value for p in recent if (value := p.value(metric)) is not None and value > 0]
        if len(values) < LOOK_BACK or values[-1] < limit:
            continue
        if not all(later < earlier for earlier, later in pairwise(values)):
            continue
        rate = (values[-1] / values[0]) ** (1 / (LOOK_BACK - 1))
        left = math.log(limit / values[-1]) / math.log(rate)
        if left <= LOOK_AHEAD:
            pace = "halves every panel" if 0.45 < rate < 0.55 else f"falls by {1 - rate:.0%} a panel"
            panels = max(math.ceil(left), 1)
            found.append(
                f"{metric} {pace}: at {values[-1]:.3g}, it passes {limit:.3g} in about {panels} "
                f"panel{'s' if panels > 1 else ''}"
            )
    return tuple(found)
