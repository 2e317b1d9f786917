"""What the results of the benchmark come to: cured cases, proofs, and the order that they set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from run import Case, Row

from fullrank.collapse.treatments import Proof
from fullrank.cures.plan import UNTREATED, Arm
from fullrank.training.treatments import prescriptions

CURED_OF_FAILURES = 0.8  # the share of failures that are to have a treatment that cures them
FIRST_RIGHT = 0.7  # the share of failures left out of which the first advice is to be one that cures


@dataclass(frozen=True)
class Trial:
    """A treatment of a case, over seeds.

    Attributes:
        arm: its name.
        kinds: verdicts, by seed.
        healthy: seeds that were healthy.
        gains: in k-NN accuracy over the untreated arm, by seed.
        knn, rank: means over seeds.
        of: seeds that were asked for.
    """

    arm: str
    kinds: Counter[str]
    healthy: int
    gains: Sequence[float]
    knn: float
    rank: float
    of: int

    @property
    def ended(self) -> bool:
        """Whether all seeds have ended."""
        return len(self.gains) == self.of

    @property
    def decided(self) -> bool:
        """Whether it is known if it cured: all seeds have ended, or one can no longer."""
        return self.ended or self.healthy < len(self.gains) or min(self.gains, default=1.0) <= 0

    @property
    def cured(self) -> bool:
        """Whether every seed is healthy, and above the untreated arm."""
        return self.ended and self.healthy == self.of and min(self.gains) > 0


@dataclass(frozen=True)
class CaseResult:
    """A case with its trials, the untreated one first where it has ended, and the rows of all of them."""

    case: Case
    untreated: Trial | None = None
    trials: Sequence[Trial] = field(default_factory=tuple)
    rows: Sequence[Row] = field(default_factory=tuple)

    @property
    def induced(self) -> bool:
        """Whether most untreated seeds are collapsed."""
        found = self.untreated
        if found is None or not found.ended:
            return False
        fine = found.kinds["healthy"] + found.kinds["not decidable"]
        return 2 * (found.of - fine) > found.of

    @property
    def kinds(self) -> list[str]:
        """Kinds of collapse of the untreated seeds."""
        return (
            [kind for kind in self.untreated.kinds if kind not in ("healthy", "not decidable")]
            if self.untreated
            else []
        )

    @property
    def cures(self) -> list[str]:
        """Names of the treatments that cured it."""
        return [trial.arm for trial in self.trials if trial.cured]

    @property
    def tried(self) -> bool:
        """Whether it is collapsed, and of at least one treatment it is known whether it cured."""
        return self.induced and any(trial.decided for trial in self.trials)


def read_cases(every: Sequence[Case], rows: Sequence[Row], seeds: Sequence[int]) -> list[CaseResult]:
    """The rows of the benchmark, case by case."""
    found = []
    for case in every:
        own = [row for row in rows if (row["failure"], row["data"]) == (case.failure, case.data)]
        base = {row["seed"]: row["knn"] for row in own if row["arm"] == UNTREATED}
        arms = dict.fromkeys(row["arm"] for row in own)
        trials = [_trial(arm, [row for row in own if row["arm"] == arm], base, len(seeds)) for arm in arms]
        untreated = next((trial for trial in trials if trial.arm == UNTREATED), None)
        treated = [trial for trial in trials if trial.arm != UNTREATED]
        found.append(CaseResult(case, untreated, treated, own))
    return found


def _trial(arm: str, rows: Sequence[Row], base: Mapping[int, float], of: int) -> Trial:
    gains = [row["knn"] - base[row["seed"]] for row in rows if row["seed"] in base and row["knn"] is not None]
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    return Trial(
        arm,
        Counter(row["kind"] for row in rows),
        sum(row["healthy"] for row in rows),
        gains,
        mean(row["knn"] for row in rows),
        mean(ranks) if ranks else float("nan"),
        of,
    )


def proofs(results: Sequence[CaseResult], without: Collection[str] = ()) -> dict[str, Proof]:
    """How each treatment did over the collapsed cases, some failures left out."""
    trials: dict[str, list[tuple[CaseResult, Trial]]] = {}
    for result in results:
        if result.induced and result.case.failure not in without:
            for trial in result.trials:
                if trial.decided:
                    trials.setdefault(trial.arm, []).append((result, trial))
    return {
        name: Proof(
            sum(trial.cured for _, trial in found),
            len(found),
            round(mean(gain for _, trial in found for gain in trial.gains), 4),
            tuple(sorted({kind for result, trial in found if trial.cured for kind in result.kinds})),
        )
        for name, found in sorted(trials.items())
    }


def first_advice(result: CaseResult, known: Mapping[str, Proof]) -> str:
    """The treatment that would be named first for a case, by what is known."""
    config = result.case.job(Arm(UNTREATED), 0).config()
    found = prescriptions(config, result.kinds, known)
    return found[0].treatment.name if found else ""


def score(results: Sequence[CaseResult]) -> dict[str, Any]:
    """The shares that the benchmark is to reach, of cases that collapsed and were treated."""
    tried = [result for result in results if result.tried]
    failures = list(dict.fromkeys(result.case.failure for result in tried))
    known = {name: proofs(results, without=[name]) for name in failures}
    first = {(r.case.failure, r.case.data): first_advice(r, known[r.case.failure]) for r in tried}
    right = [r for r in tried if first[r.case.failure, r.case.data] in r.cures]
    everywhere = [n for n in failures if all(r.cures for r in tried if r.case.failure == n)]
    return {
        "cases": len(tried),
        "cured": sum(bool(result.cures) for result in tried),
        "first right": len(right),
        "failures": len(failures),
        "failures cured everywhere": len(everywhere),
        "first": {f"{failure} on {data}": name for (failure, data), name in first.items()},
    }
