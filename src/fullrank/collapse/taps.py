"""Verdicts of several layer outputs beside each other: the one that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fullrank.collapse.blemishes import ADVICE, Blemish
from fullrank.collapse.verdict import Verdict


def with_differing_tap(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Add a blemish to the one tap that differs from all others.

    That is the only collapsed one, or the only healthy one of three or more; what is not decidable does not
    count.

    Example:
        >>> backbone, projector = Verdict("healthy", "backbone", ""), Verdict("cluster", "projector", "")
        >>> found = with_differing_tap({"backbone": backbone, "projector": projector})
        >>> print(found["projector"].blemishes[0])
        only this layer output is collapsed: 1 other is healthy
    """
    decided = [tap for tap, verdict in verdicts.items() if verdict.kind != "not decidable"]
    collapsed = [tap for tap in decided if verdicts[tap].collapsed]
    healthy = [tap for tap in decided if not verdicts[tap].collapsed]
    if len(collapsed) == 1 and healthy:
        tap, state, others, other = collapsed[0], "collapsed", healthy, "healthy"
    elif len(healthy) == 1 and len(collapsed) > 1:
        tap, state, others, other = healthy[0], "healthy", collapsed, "collapsed"
    else:
        return dict(verdicts)
    rest = f"1 other is {other}" if len(others) == 1 else f"{len(others)} others are {other}"
    says = f"only this layer output is {state}: {rest}"
    blemish = Blemish("unlike other taps", 1, len(decided), says, ADVICE["unlike other taps"])
    return {**verdicts, tap: replace(verdicts[tap], blemishes=(*verdicts[tap].blemishes, blemish))}
