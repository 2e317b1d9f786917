"""Results of finished jobs by arm and seed; claims, curves and tables from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from fullrank.errors import UnknownNameError
from fullrank.figures import Dots, Lines, Series, Table
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, result_of
from fullrank.labs._common.findings import Claim, Findings, above, spread
from fullrank.report.run.reading import Run, read_run

Read = Callable[["Result"], "float | None"]
"""One value of a result; see `selectors`."""
Curve = Callable[["Result"], Mapping[int, "float | None"]]
"""Values of a result by epoch."""
References: TypeAlias = "Mapping[str, float] | None"


@dataclass(frozen=True)
class Result:
    """A finished job.

    Attributes:
        part, arm, seed: of the job.
        folder: where it lies; `run` in it is the training run's directory.
        numbers: what its `measure` returned.
        seconds: that it took.
    """

    part: str
    arm: str
    seed: int
    folder: Path
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @cached_property
    def run(self) -> Run:
        """Training run; raises UsageError where the job trained nothing."""
        return read_run(self.folder / "run")

    def width(self, tap: str = "projector") -> int:
        """Width d of a layer output (tap); 0 where it was never measured."""
        return self.run.size(tap)[1] or 0

    @cached_property
    def knn(self) -> dict[int, float]:
        """k-NN accuracy on held-out images, by epoch."""
        rows = [(row.epoch, row.accuracy("knn")) for row in self.run.epochs]
        return {epoch: top1 for epoch, top1 in rows if top1 is not None}

    @cached_property
    def loss(self) -> dict[int, float]:
        """Mean training loss, by epoch."""
        return {row.epoch: row.loss for row in self.run.epochs if row.loss is not None}

    @cached_property
    def verdicts(self) -> dict[int, str]:
        """Main verdict of the monitor, by epoch, of the trained network."""
        return {row.epoch: row.verdict["kind"] for row in self.run.epochs if row.epoch > 0}

    @property
    def verdict(self) -> str:
        """Last verdict of the monitor."""
        return str(self.run.verdict["kind"])

    @property
    def collapsed(self) -> bool:
        """Whether the last verdict is a collapse."""
        return self.verdict not in ("healthy", "not decidable")


def finished(job: Job, out: Path) -> Result | None:
    """Result of a job of a lab in the folder `out`; None where it has not ended."""
    found = result_of(job, out)
    if not found:
        return None
    return Result(job.part, job.arm, job.seed or 0, folder_of(job, out), found["numbers"], found["seconds"])


class Results(Sequence[Result]):
    """All results of a lab, or of a part of it.

    Args:
        results: of the finished jobs.
        known: arms of all jobs; where it is given, no other arm can be asked for.

    Example:
        >>> jobs = [(arm, seed) for seed in (0, 1) for arm in "ab"]
        >>> found = Results([Result("", arm, seed, Path(), {"x": float(seed)}) for arm, seed in jobs])
        >>> found.arms, found.values("a", "x"), [r.seed for r in found["b"]]
        (['a', 'b'], [0.0, 1.0], [0, 1])
    """

    def __init__(self, results: Sequence[Result], known: Collection[str] = ()) -> None:
        self._results, self._known = list(results), known

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, key: Any) -> Any:
        """The results of an arm, one a seed; by number, the result at that place."""
        if isinstance(key, str):
            return sorted((r for r in self._results if r.arm == key), key=lambda r: r.seed)
        return self._results[key]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def where(self, holds: Callable[[Result], bool]) -> Results:
        """Those that something holds of."""
        return Results([result for result in self if holds(result)], self._known)

    def of(self, part: str) -> Results:
        """Those of one part."""
        return self.where(lambda result: result.part == part)

    def parts(self, names: Iterable[str]) -> Iterator[tuple[str, Results]]:
        """The parts of these names that have results, with them."""
        return ((part, own) for part in names if len(own := self.of(part)))

    def whole(self) -> Results:
        """Those of seeds whose every arm is there: arms may be compared on them."""
        seeds = self.whole_seeds
        return self.where(lambda result: result.seed in seeds)

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the jobs."""
        return list(dict.fromkeys(result.arm for result in self))

    @property
    def whole_seeds(self) -> list[int]:
        """Seeds whose every arm is there."""
        by_seed: dict[int, set[str]] = {}
        for result in self:
            by_seed.setdefault(result.seed, set()).add(result.arm)
        return sorted(seed for seed, arms in by_seed.items() if len(arms) == len(self.arms))

    def values(self, arm: str, what: str | Read) -> list[float]:
        """Values of an arm by seed: a name among its numbers, or a function of the result.

        Raises:
            UnknownNameError: no job has that arm, finished or not.
        """
        if self._known and arm not in self._known:
            raise UnknownNameError("arm", arm, self._known)
        read = (lambda result: result.numbers.get(what)) if isinstance(what, str) else what
        return [value for result in self[arm] if (value := read(result)) is not None]

    def by_arm(self, what: str | Read) -> dict[str, list[float]]:
        """The same for every arm."""
        return {arm: self.values(arm, what) for arm in self.arms}

    def kinds(self, arm: str) -> str:
        """Final verdicts over an arm's seeds: "healthy", or "1 complete, 2 healthy"."""
        found: list[str] = [result.verdict for result in self[arm]]
        different = list(dict.fromkeys(found))
        if len(different) == 1:
            return different[0]
        return ", ".join(f"{found.count(kind)} {kind}" for kind in different)

    def spreads(self, arm: str, columns: Mapping[str, str | Read]) -> str:
        """Values of an arm in words, as "AUC 0.61 ± 0.02, k-NN 0.55 ± 0.01"."""
        return ", ".join(f"{name} {spread(self.values(arm, what))}" for name, what in columns.items())

    def over(self, arms: Mapping[float, str], name: str, what: Read, dash: str = "solid") -> Series:
        """A value over a setting, one arm per setting, for every seed with that arm."""
        found = [{r.seed: what(r) for r in self[arm]} for arm in arms.values()]
        seeds = sorted({seed for by_seed in found for seed in by_seed})
        return Series(name, list(arms), [[by_seed.get(seed) for by_seed in found] for seed in seeds], dash)

    def curve(self, arm: str, what: Curve, name: str = "", dash: str = "solid") -> Series:
        """An arm's curve over epochs, of all of its seeds."""
        found = [dict(what(result)) for result in self[arm]]
        x = sorted({epoch for seed in found for epoch in seed})
        return Series(name or arm, x, [[seed.get(epoch) for epoch in x] for seed in found], dash)

    def curves(self, what: Curve) -> list[Series]:
        """Every arm's curve."""
        return [self.curve(arm, what) for arm in self.arms]

    def lines(
        self, title: str, note: str, y: str, what: Curve, references: References = None, **how: Any
    ) -> Lines:
        """Every arm's curve over epochs; `how` are further fields of `Lines`."""
        return Lines(title, note, "epoch", y, self.curves(what), references or {}, **how)

    def dots(
        self,
        title: str,
        note: str,
        x: str,
        what: str | Read,
        references: References = None,
        percent: bool = False,
    ) -> Dots:
        """A dot for each arm and seed."""
        return Dots(title, note, x, self.by_arm(what), references or {}, percent)

    def table(
        self,
        title: str,
        note: str,
        columns: Mapping[str, str | Read],
        head: str = "Arm",
        verdict: bool = True,
        arms: Iterable[str] | None = None,
    ) -> Table:
        """A row for each arm (all, or `arms`): name, verdicts and values by seed."""
        rows: list[list[Any]] = [
            [
                arm,
                *([self.kinds(arm)] if verdict else []),
                *(self.values(arm, what) for what in columns.values()),
            ]
            for arm in (self.arms if arms is None else arms)
        ]
        return Table(title, note, (head, *["Verdict"] * verdict, *columns), rows)

    def above(self, text: str, what: str | Read, arm: str, other: str, this: str, that: str) -> Claim:
        """A claim that a value of one arm exceeds that of another, seed by seed."""
        return above(text, self.values(arm, what), self.values(other, what), this, that)

    def ends(self, columns: Mapping[str, str | Read]) -> str:
        """Every arm's last verdict and values, in words."""
        return "; ".join(f"{arm} – {self.kinds(arm)}, {self.spreads(arm, columns)}" for arm in self.arms)


def joined(parts: Iterable[Findings], notes: Sequence[str] = ()) -> Findings:
    """Findings of several parts joined: chapters, claims, sentences, notes, in order."""
    found = list(parts)
    return Findings(
        [chapter for one in found for chapter in one.chapters],
        [claim for one in found for claim in one.claims],
        " ".join(one.seen for one in found),
        [*(note for one in found for note in one.notes), *notes],
    )
