"""Ranking of measured candidates, and the sentence about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fullrank.collapse.label_free_score import Relation, Score, score_encoders
from fullrank.errors import UsageError
from fullrank.selection.candidates import Candidate
from fullrank.selection.measuring import Images, Measured


@dataclass(frozen=True)
class Ranked:
    """A candidate in its place.

    Attributes:
        points: expected k-NN accuracy less that of the picked one, in points.
        low, high: 90 % interval of that difference.
        best: probability of being the best of all.
    """

    measured: Measured
    points: float
    low: float
    high: float
    best: float

    @property
    def candidate(self) -> Candidate:
        """What was ranked."""
        return self.measured.candidate

    @property
    def collapsed(self) -> bool:
        """Whether the verdict on its features names a collapse."""
        return self.measured.verdict is not None and self.measured.verdict.collapsed


@dataclass(frozen=True)
class Selection:
    """Candidates from the best to the worst, without a label having been looked at.

    Attributes:
        ranked: best first; the first one is picked.
        unusable: those whose file is damaged or whose features are not finite.
        relation: what the candidates have in common.
        close: probability that the picked one is within `within` points of the best.
        within: points of k-NN accuracy.
        images: that all of them saw.
    """

    ranked: tuple[Ranked, ...]
    unusable: tuple[Measured, ...]
    relation: Relation
    close: float
    within: float
    images: Images

    @property
    def pick(self) -> Ranked:
        """The first one."""
        return self.ranked[0]

    def __str__(self) -> str:
        return f"{self.headline}; {self.sureness}. {self.cost}".strip()

    @property
    def headline(self) -> str:
        """Which one, of how many."""
        picked = self.pick.candidate
        if self.relation == "run" and picked.epoch is not None:
            last = max(r.candidate.epoch or 0 for r in self.ranked)
            return f"epoch {picked.epoch} of {last}"
        return f"{picked.name}, of {len(self.ranked)} encoders"

    @property
    def sureness(self) -> str:
        """How sure it is."""
        share = min(max(100 * self.close, 1), 99)
        points = f"{self.within:g} point{'s' if self.within != 1 else ''}"
        return f"{share:.0f} % sure that it is within {points} of the best"

    @property
    def cost(self) -> str:
        """What the training after the picked epoch took, in a sentence, if on record."""
        picked = self.pick.candidate
        later = [r for r in self.ranked if (r.candidate.epoch or 0) > (picked.epoch or 0)]
        if self.relation != "run" or not later:
            return ""
        last = max(later, key=lambda r: r.candidate.epoch or 0)
        if not (picked.seconds and last.candidate.seconds):
            return ""
        share = 1 - picked.seconds / last.candidate.seconds
        most = max(r.high for r in later)
        perhaps = f"may be worth {most:.1f} points (the upper end of its interval)"
        gave = "bought nothing" if most <= self.within else perhaps
        return f"What came after took {100 * share:.0f} % of the time and {gave}."

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "pick": self.pick.candidate.spec,
            "says": str(self),
            "relation": self.relation,
            "close": self.close,
            "within": self.within,
            "images": self.images.about,
            "ranked": [
                {
                    "name": r.candidate.name,
                    "encoder": r.candidate.spec,
                    "epoch": r.candidate.epoch,
                    "points": r.points,
                    "interval": [r.low, r.high],
                    "best": r.best,
                    "verdict": r.measured.verdict.kind if r.measured.verdict else None,
                    "measures": dict(r.measured.measures),
                    "loss": r.candidate.loss,
                }
                for r in self.ranked
            ],
            "unusable": [{"encoder": m.candidate.spec, "why": m.why} for m in self.unusable],
        }


def rank(measured: Sequence[Measured], images: Images, within: float = 1.0) -> Selection:
    """Rank candidates by the learnt score of their measures.

    One that has collapsed is never picked where another one has not.

    Raises:
        UsageError: none of them can be used.
    """
    usable = [found for found in measured if found.measures]
    if not usable:
        raise UsageError(f"none of the encoders can be used: {measured[0].why}")
    relation = _relation([found.candidate for found in usable])
    sound = [m for m in usable if m.verdict is None or not m.verdict.collapsed] or usable
    score = score_encoders([found.measures for found in sound], relation, within)
    others = [found for found in usable if found not in sound]
    ranked = [_ranked(found, score, place) for place, found in enumerate(sound)]
    ranked.sort(key=lambda r: r.points, reverse=True)
    if others:
        whole = score_encoders([sound[score.pick].measures, *(m.measures for m in others)], relation, within)
        after = [_ranked(found, whole, place + 1) for place, found in enumerate(others)]
        ranked += [_behind(r, ranked[-1].points) for r in sorted(after, key=lambda r: -r.points)]
    unusable = tuple(found for found in measured if not found.measures)
    return Selection(tuple(ranked), unusable, relation, score.close, within, images)


def _ranked(found: Measured, score: Score, place: int) -> Ranked:
    return Ranked(found, score.points[place], score.low[place], score.high[place], score.best[place])


def _behind(collapsed: Ranked, last: float) -> Ranked:
    """One that has collapsed, expected to be no better than the last one that has not."""
    return replace(collapsed, points=min(collapsed.points, last), best=0.0)


def _relation(candidates: Sequence[Candidate]) -> Relation:
    runs = {str(candidate.run.path) if candidate.run else "" for candidate in candidates}
    if len(runs) == 1 and "" not in runs:
        return "run"
    methods = {candidate.run.config().method if candidate.run else "" for candidate in candidates}
    return "method" if len(methods) == 1 and "" not in methods else "any"
