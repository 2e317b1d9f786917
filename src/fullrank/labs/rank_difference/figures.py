"""Findings of the rank difference: claims, figures and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fullrank.figures import Dots, Lines, Series, Table
from fullrank.labs._common.findings import Chapter, Claim, Findings, above, holds, spread
from fullrank.labs._common.results import Results
from fullrank.labs._common.selectors import (
    by_index,
    knn_end,
    knn_gain,
    knn_lines,
    rank_share,
    rank_shares,
)
from fullrank.labs.rank_difference.branches import along

TITLES = {"methods": "Methods as they are", "filters": "A fixed filter in place of the predictor"}
LEDES = {
    "methods": "Both branches as the loss compares them, on held-out images.",
    "filters": "RDM's filters of a batch's singular values S, on the online branch or on the target.",
}
NOTES = (
    "Ranks are of centred rows, like those of every panel. Filters are ratios of standard deviations "
    "on the eigenvectors of both branches' covariances together, clean images in both.",
    "DINO's branches are the student's distribution over prototypes and the teacher's, centred and "
    "sharpened; SwAV's target is the balanced assignment. They have no panels, and so no "
    "curve along training.",
)


def findings(results: Results, collapsing: Sequence[str]) -> Findings:
    """Findings of all arms."""
    claims: list[Claim] = []
    for part, own in results.parts(TITLES):
        claims += [_higher(own, arm) for arm in own.arms if arm not in collapsing]
        if part == "methods":
            claims += [_difference(own, arm) for arm in collapsing if arm in own.arms]
            claims += [_low_pass(own, arm) for arm in ("SimSiam", "BYOL") if arm in own.arms]
    chapters = [_chapter(part, own) for part, own in results.parts(TITLES)]
    ends = [
        f"{arm} {spread(_trained(results, arm, 'difference'))} ({results.kinds(arm)})" for arm in results.arms
    ]
    return Findings(chapters, claims, f"Target less online, at the end: {'; '.join(ends)}.", NOTES)


def _trained(results: Results, arm: str, what: str) -> list[float | None]:
    return [result.numbers["trained"][what] for result in results[arm]]


def _ranks(results: Results, arm: str, side: str) -> list[float]:
    """A constant counts as rank 1: it has one value."""
    return [float(rank or 1.0) for rank in _trained(results, arm, side)]


def _higher(results: Results, arm: str) -> Claim:
    text = f"{arm}: the target's rank exceeds the online branch's."
    target, online = (_ranks(results, arm, side) for side in ("target", "online"))
    claim = above(text, target, online, "target", "online")
    return replace(claim, evidence=f"{claim.evidence}; {_outcome(results, arm)}")


def _outcome(results: Results, arm: str) -> str:
    gain = results.values(arm, knn_gain)
    return f"judged {results.kinds(arm)}, k-NN above untrained by {spread(gain)}"


def _difference(results: Results, arm: str) -> Claim:
    """Claim on a collapsing arm: no rank difference to speak of beside SimSiam's."""
    own, whole = (
        [float(value or 0.0) for value in _trained(results, name, "difference")] for name in (arm, "SimSiam")
    )
    return holds(
        f"{arm}: the difference is less than a quarter of SimSiam's.",
        [abs(a) < 0.25 * b for a, b in zip(own, whole, strict=False)],
        f"difference {spread(own)}, SimSiam's {spread(whole)}; {_outcome(results, arm)}",
        these=own,
        those=whole,
    )


def _low_pass(results: Results, arm: str) -> Claim:
    found, plain = (
        [tilt for tilt in _trained(results, arm, name) if tilt is not None] for name in ("tilt", "plain_tilt")
    )
    # the weighted slope was thought of after the plain one had read about zero: neither decides alone
    return holds(
        f"{arm}: the predictor is a low-pass filter.",
        [weighted > 0 and even > 0 for weighted, even in zip(found, plain, strict=True)],
        f"slope of ln filter on ln eigenvalue, weighted by the eigenvalue {spread(found)}, not weighted "
        f"{spread(plain)}; both are to be positive",
        tilts=found,
    )


def _chapter(part: str, results: Results) -> Chapter:
    name, arms = f"({part})", results.arms
    both = {f"{arm}: {side}": _ranks(results, arm, side) for arm in arms for side in ("online", "target")}
    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            *(_ranks(results, arm, side) for side in ("online", "target")),
            *(_trained(results, arm, what) for what in ("difference", "tilt")),
            *(results.values(arm, read) for read in (rank_share(), knn_end)),
        ]
        for arm in arms
    ]
    return Chapter(
        TITLES[part],
        [
            Lines(
                f"Rank difference along training {name}",
                "Effective rank of the target less that of the online branch, where both have panels.",
                "epoch",
                "directions",
                [curve for curve in results.curves(along) if curve.x],
                {"equal": 0.0},
            ),
            results.lines(
                f"Effective rank of the projection {name}",
                "What the difference is to hold up: the projector's output, over its width.",
                "rank / d",
                rank_shares,
                percent=True,
            ),
            Lines(
                f"Spectral filter between the branches {name}",
                "Online over target on common eigenvectors, first one set to 1. Falling: a low pass online.",
                "eigenvector (1 = largest)",
                "filter",
                [_filter_line(results, arm) for arm in arms],
                {"no filter": 1.0},
                log_x=True,
                log_y=True,
            ),
            knn_lines(results, f"k-NN accuracy {name}", "On backbone features."),
            Dots(
                f"Rank difference before and after {name}",
                "Of all methods, as the loss compares the branches.",
                "target less online, directions",
                {
                    f"{arm}, {time}": [result.numbers[time]["difference"] for result in results[arm]]
                    for arm in arms
                    for time in ("untrained", "trained")
                },
                {"equal": 0.0},
            ),
            Dots(
                f"Effective rank of both branches {name}",
                "Of the trained network, as the loss compares them. A constant counts as 1.",
                "effective rank",
                both,
            ),
            Table(
                f"Branches {name}",
                "At the end. Tilt: slope of ln filter on ln eigenvalue, weighted; above 0 is a low pass "
                "online. Rank / d: of the projector's output.",
                ("Arm", "Verdict", "Online", "Target", "Difference", "Tilt", "Rank / d", "k-NN"),
                rows,
            ),
        ],
        LEDES[part],
    )


def _filter_line(results: Results, arm: str) -> Series:
    known = [values for result in results[arm] if (values := result.numbers["trained"]["filter"])]
    d = min(map(len, known), default=0)
    return by_index(arm, [[value if value > 0 else None for value in values[:d]] for values in known])
