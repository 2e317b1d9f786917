"""Claims, figures and words of the rank difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fullrank.figures import Dots, Lines, Series, Table
from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.findings import Chapter, Findings
from fullrank.labs._common.results import Result, Results
from fullrank.labs.rank_difference.branches import along

__all__ = ["findings"]

TITLES = {"methods": "Methods as they are", "filters": "A fixed filter in place of the predictor"}
LEDES = {
    "methods": "Both branches as the loss compares them, on held-out images.",
    "filters": "RDM's filters of a batch's singular values S, on the online branch or on the target.",
}


def findings(results: Results, collapsing: Sequence[str]) -> Findings:
    """What all arms come to.

    Args:
        results: of both parts.
        collapsing: arms that are known to collapse.
    """
    claims: list[Claim] = []
    chapters: list[Chapter] = []
    for part in TITLES:
        own = results.of(part)
        if not len(own):
            continue
        holding = [arm for arm in own.arms if arm not in collapsing]
        claims += [_higher(own, arm) for arm in holding]
        if part == "methods":
            claims += [_difference(own, arm) for arm in collapsing if arm in own.arms]
            claims += [_low_pass(own, arm) for arm in ("SimSiam", "BYOL") if arm in own.arms]
        chapters.append(_chapter(part, own))
    return Findings(
        chapters,
        claims,
        _words(results),
        [
            "Ranks are of centred rows, like those of every panel. Filters are ratios of standard deviations "
            "on the eigenvectors of both branches' covariances together, clean images in both.",
            "DINO's branches are the student's distribution over prototypes and the teacher's, centred and "
            "sharpened; SwAV's target is the balanced assignment. They have no panels, and so no "
            "curve along training.",
        ],
    )


def _read(side: str) -> Any:
    return lambda result: result.numbers["trained"][side]


def _higher(results: Results, arm: str) -> Claim:
    """Target above online, for an arm that is to work; the verdict is told beside it."""
    target, online = (_ranks(results, arm, side) for side in ("target", "online"))
    claim = above(
        f"{arm}: the target's rank exceeds the online branch's.", target, online, "target", "online"
    )
    return Claim(claim.text, claim.verdict, f"{claim.told}; {_worth(results, arm)}", claim.numbers)


def _worth(results: Results, arm: str) -> str:
    gain = results.values(arm, lambda r: r.knn_gain)
    return f"judged {results.kinds(arm)}, k-NN above untrained by {spread(gain)}"


def _difference(results: Results, arm: str) -> Claim:
    """Of an arm that collapses: no difference worth the name, measured against that of SimSiam itself."""
    own = [float(d or 0.0) for d in (_read("difference")(r) for r in results[arm])]
    whole = [float(d or 0.0) for d in (_read("difference")(r) for r in results["SimSiam"])]
    return holds(
        f"{arm}: the difference is less than a quarter of SimSiam's.",
        [abs(a) < 0.25 * b for a, b in zip(own, whole, strict=False)],
        f"difference {spread(own)}, SimSiam's {spread(whole)}; {_worth(results, arm)}",
        these=own,
        those=whole,
    )


def _low_pass(results: Results, arm: str) -> Claim:
    found, plain = (
        [tilt for r in results[arm] if (tilt := r.numbers["trained"][name]) is not None]
        for name in ("tilt", "plain_tilt")
    )
    # the weighted slope was thought of after the plain one had read about zero: neither decides alone
    return holds(
        f"{arm}: the predictor is a low-pass filter.",
        [weighted > 0 and even > 0 for weighted, even in zip(found, plain, strict=True)],
        f"slope of ln filter on ln eigenvalue, weighted by the eigenvalue {spread(found)}, not weighted "
        f"{spread(plain)}; both are to be positive",
        tilts=found,
    )


def _ranks(results: Results, arm: str, side: str) -> list[float]:
    """A constant counts as rank 1: it has one value."""
    return [float(_read(side)(result) or 1.0) for result in results[arm]]


def _chapter(part: str, results: Results) -> Chapter:
    name = f"({part})"
    both = {
        f"{arm}: {side}": _ranks(results, arm, side) for arm in results.arms for side in ("online", "target")
    }
    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            _ranks(results, arm, "online"),
            _ranks(results, arm, "target"),
            [_read("difference")(r) for r in results[arm]],
            [_read("tilt")(r) for r in results[arm]],
            results.values(arm, lambda r: r.rank_share()),
            results.values(arm, lambda r: r.knn_end),
        ]
        for arm in results.arms
    ]
    return Chapter(
        TITLES[part],
        [
            Lines(
                f"Rank difference along training {name}",
                "Effective rank of the target less that of the online branch, where both have panels.",
                "epoch",
                "directions",
                [curve for arm in results.arms if (curve := results.curve(arm, along)).x],
                {"equal": 0.0},
            ),
            Lines(
                f"Effective rank of the projection {name}",
                "What the difference is to hold up: the projector's output, over its width.",
                "epoch",
                "rank / d",
                results.curves(_share),
                percent=True,
            ),
            Lines(
                f"Spectral filter between the branches {name}",
                "Online over target on common eigenvectors, first one set to 1. Falling: a low pass online.",
                "eigenvector (1 = largest)",
                "filter",
                [_filter_line(results, arm) for arm in results.arms],
                {"no filter": 1.0},
                log_x=True,
                log_y=True,
            ),
            Lines(
                f"k-NN accuracy {name}",
                "On backbone features.",
                "epoch",
                "k-NN top-1",
                results.curves(lambda r: r.knn),
                percent=True,
            ),
            Dots(
                f"Rank difference before and after {name}",
                "Of all methods, as the loss compares the branches.",
                "target less online, directions",
                {
                    f"{arm}, {time}": [result.numbers[time]["difference"] for result in results[arm]]
                    for arm in results.arms
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


def _share(result: Result) -> dict[int, float | None]:
    width = result.width()
    return {e: None if v is None else v / width for e, v in result.along("erank_centred").items()}


def _filter_line(results: Results, arm: str) -> Series:
    found = [result.numbers["trained"]["filter"] for result in results[arm]]
    known = [values for values in found if values]
    d = min(map(len, known), default=0)
    ys = [[value if value > 0 else None for value in values[:d]] for values in known]
    return Series(arm, list(range(1, d + 1)), ys)


def _words(results: Results) -> str:
    told = []
    for arm in results.arms:
        difference = [_read("difference")(r) for r in results[arm]]
        told.append(f"{arm} {spread(difference)} ({results.kinds(arm)})")
    return f"Target less online, at the end: {'; '.join(told)}."
