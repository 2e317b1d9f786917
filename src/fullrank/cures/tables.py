"""Rows of a cure's table, in the words that terminal and page share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fullrank.cures.plan import UNTREATED, CurePlan
from fullrank.cures.result import ArmResult, Cure
from fullrank.figures.style import VerdictStyle, counted, duration, style_of
from fullrank.report.compare.estimates import Estimate, as_number, as_percent
from fullrank.report.verdicts import probable

LABELLED = ("Arm", "Verdict", "Collapse", "Rank", "k-NN", "Gain in k-NN", "Known")
UNLABELLED = ("Arm", "Verdict", "Collapse", "Rank", "RankMe", "Gain in rank", "Known")


@dataclass(frozen=True)
class Row:
    """One arm of a cure in words.

    Attributes:
        arm: its result.
        cells: of the columns after the arm's name.
        styles: of its verdicts, with how many seeds where they differ.
        cured: whether it cured.
    """

    arm: ArmResult
    cells: Sequence[str]
    styles: Sequence[tuple[VerdictStyle, str]]
    cured: bool


def columns(cure: Cure) -> Sequence[str]:
    """Headings of the table."""
    return LABELLED if cure.compared_by == "knn" else UNLABELLED


def rows(cure: Cure) -> list[Row]:
    """A row for each arm, the untreated one first, then by gain."""
    treated = sorted(cure.treated, key=lambda arm: (-cure.cured(arm), -(_gain(cure, arm).mean or -1e9)))
    return [_row(cure, arm) for arm in (cure.untreated, *treated)]


def _gain(cure: Cure, arm: ArmResult) -> Estimate:
    return arm.gain(cure.untreated, cure.compared_by)


def _row(cure: Cure, arm: ArmResult) -> Row:
    probability, advised = arm.value("probability").mean, arm.arm.advice
    labelled = cure.compared_by == "knn"
    value = as_percent(arm.value("knn")) if labelled else as_number(arm.value("rankme"))
    gain = "–" if arm.name == UNTREATED else signed(_gain(cure, arm), labelled)
    verdict = ", ".join(
        kind if len(arm.kinds) == 1 else f"{times} {kind}" for kind, times in arm.kinds.most_common()
    )
    if arm.failed:
        verdict = "; ".join([*([verdict] if verdict else []), f"{len(arm.failed)} failed"])
    if arm.left_out:
        verdict = "; ".join([*([verdict] if verdict else []), few_seeds(arm)])
    cells = (
        verdict,
        "–" if probability is None else probable(probability),
        as_number(arm.value("rank")),
        value,
        gain,
        advised.standing if advised else "–",
    )
    styles = [
        (style_of(kind), f"{times} of {len(arm.outcomes)}" if len(arm.kinds) > 1 else "")
        for kind, times in arm.kinds.most_common()
    ]
    return Row(arm, cells, styles, arm.name != UNTREATED and cure.cured(arm))


def few_seeds(arm: ArmResult) -> str:
    """How many of its seeds an arm was trained with, where some were left out."""
    seeds = len(arm.outcomes) + len(arm.failed) + len(arm.left_out)
    return f"{seeds - len(arm.left_out)} of {seeds} seeds" if arm.left_out else ""


def signed(found: Estimate, share: bool) -> str:
    """A difference with sign and 95 % interval, in points where it is of shares.

    Example:
        >>> from fullrank.report.compare.estimates import estimate
        >>> signed(estimate([0.1, 0.12, 0.11]), True), signed(estimate([]), True)
        ('+11.0 ± 2.5 points', '–')
    """
    if found.mean is None:
        return "–"
    scale, unit = (100.0, " points") if share else (1.0, "")
    half = "" if found.half is None else f" ± {scale * found.half:.1f}"
    return f"{scale * found.mean:+.1f}{half}{unit}"


def begin_words(plan: CurePlan) -> str:
    """Where the arms go on from, and how far, in words."""
    seeds = counted(len(plan.seeds), "seed")
    span = f"to epoch {plan.until}" if plan.begins else f"{counted(plan.until, 'epoch')} each"
    last = f"from the checkpoint of epoch {plan.begins}, the last healthy one"
    start = last if plan.begins else "from the start"
    return f"{counted(len(plan.arms), 'arm')} × {seeds}, {start}, {span}"


def cost_words(plan: CurePlan) -> str:
    """About how long it takes, in words."""
    return f"about {duration(plan.seconds)}" if plan.seconds is not None else "no record tells how long"


def onset_words(plan: CurePlan) -> str:
    """When the collapse began, in a sentence."""
    found = plan.diagnosis
    kinds = " and ".join(found.kinds)
    if found.healthy is None:
        return f"{kinds} collapse since epoch {found.onset}; the run never was healthy"
    return f"{kinds} collapse since epoch {found.onset}; healthy until epoch {found.healthy}"
