"""What finished cells left, gathered by arm and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.figures import Series
from fullrank.report.run.reading import Run, read_run

__all__ = ["Result", "Results"]

Read = Callable[["Result"], "float | None"]
Curve = Callable[["Result"], Mapping[int, "float | None"]]


@dataclass(frozen=True)
class Result:
    """A finished cell.

    Attributes:
        part, arm, seed: of the cell.
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
        """The training run; raises UsageError where the cell trained nothing."""
        return read_run(self.folder / "run")

    def along(self, measure: str, tap: str = "projector") -> dict[int, float | None]:
        """A measure of the panel on held-out images, by epoch; 0 is the untrained network."""
        return {point.epoch: point.value for point in self.run.measures(tap, measure)}

    @property
    def collapsed(self) -> bool:
        """Whether the monitor's last verdict is a collapse."""
        return self.verdict not in ("healthy", "not decidable")

    def last(self, measure: str, tap: str = "projector") -> float | None:
        """The measure at the end."""
        points = self.run.measures(tap, measure)
        return points[-1].value if points else None

    def width(self, tap: str = "projector") -> int:
        """d of a tap; 0 where it was never measured."""
        return self.run.size(tap)[1] or 0

    def rank_share(self, tap: str = "projector") -> float | None:
        """The centred effective rank at the end over d."""
        rank = self.last("erank_centred", tap)
        return None if rank is None else rank / self.width(tap)

    @cached_property
    def knn(self) -> dict[int, float]:
        """k-NN accuracy on held-out images, by epoch."""
        rows = [(row.epoch, row.accuracy("knn")) for row in self.run.epochs]
        return {epoch: top1 for epoch, top1 in rows if top1 is not None}

    @cached_property
    def loss(self) -> dict[int, float]:
        """The mean training loss, by epoch."""
        return {row.epoch: row.loss for row in self.run.epochs if row.loss is not None}

    @property
    def knn_end(self) -> float | None:
        """k-NN accuracy at the end."""
        return self.knn[max(self.knn)] if self.knn else None

    @property
    def knn_gain(self) -> float | None:
        """The same less that of the untrained network."""
        return self.knn[max(self.knn)] - self.knn[0] if 0 in self.knn else None

    @property
    def loss_end(self) -> float | None:
        """The mean training loss of the last epoch."""
        return self.loss[max(self.loss)] if self.loss else None

    @cached_property
    def verdicts(self) -> dict[int, str]:
        """The monitor's main verdict, by epoch, of the trained network."""
        return {row.epoch: row.verdict["kind"] for row in self.run.epochs if row.epoch > 0}

    @property
    def verdict(self) -> str:
        """The monitor's last verdict."""
        return str(self.run.verdict["kind"])


class Results(Sequence[Result]):
    """All results of a lab, or of a part of it.

    Example:
        >>> cells = [(arm, seed) for seed in (0, 1) for arm in "ab"]
        >>> found = Results([Result("", arm, seed, Path(), {"x": float(seed)}) for arm, seed in cells])
        >>> found.arms, found.values("a", "x"), [r.seed for r in found["b"]]
        (['a', 'b'], [0.0, 1.0], [0, 1])
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = list(results)

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, key: Any) -> Any:
        """The results of an arm, one a seed; by number, the result at that place."""
        if isinstance(key, str):
            return sorted((r for r in self._results if r.arm == key), key=lambda r: r.seed)
        return self._results[key]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def of(self, part: str) -> Results:
        """Those of one part."""
        return Results([result for result in self if result.part == part])

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the cells."""
        return list(dict.fromkeys(result.arm for result in self))

    @property
    def whole_seeds(self) -> list[int]:
        """Seeds whose every arm is there: those that arms may be compared on."""
        by_seed: dict[int, set[str]] = {}
        for result in self:
            by_seed.setdefault(result.seed, set()).add(result.arm)
        return sorted(seed for seed, arms in by_seed.items() if len(arms) == len(self.arms))

    def values(self, arm: str, what: str | Read) -> list[float]:
        """One value of an arm for each seed: a name among its numbers, or a function of the result."""
        read = (lambda result: result.numbers.get(what)) if isinstance(what, str) else what
        return [value for result in self[arm] if (value := read(result)) is not None]

    def by_arm(self, what: str | Read) -> dict[str, list[float]]:
        """The same for every arm."""
        return {arm: self.values(arm, what) for arm in self.arms}

    def kinds(self, arm: str) -> str:
        """The last verdicts of an arm's seeds, in words: "healthy", or "1 complete, 2 healthy"."""
        found: list[str] = [result.verdict for result in self[arm]]
        different = list(dict.fromkeys(found))
        if len(different) == 1:
            return different[0]
        return ", ".join(f"{found.count(kind)} {kind}" for kind in different)

    def curve(self, arm: str, what: Curve, name: str = "", dash: str = "solid") -> Series:
        """An arm's curve over epochs, of all of its seeds."""
        found = [dict(what(result)) for result in self[arm]]
        x = sorted({epoch for seed in found for epoch in seed})
        return Series(name or arm, x, [[seed.get(epoch) for epoch in x] for seed in found], dash)

    def curves(self, what: Curve) -> list[Series]:
        """Every arm's curve."""
        return [self.curve(arm, what) for arm in self.arms]

    def spectrum(self, arm: str, form: str = "centred", tap: str = "projector", name: str = "") -> Series:
        """An arm's last singular values by their index, as many as are positive on every seed.

        `form` is `centred`, or `unit` for unit rows that are not centred.
        """
        found = [result.run.spectra(tap, form) for result in self[arm]]
        last = [np.asarray(spectra[max(spectra)], float) for spectra in found if spectra]
        d = min((int((values > 0).sum()) for values in last), default=0)
        ys = [values[:d].tolist() for values in last]
        return Series(name or arm, list(range(1, d + 1)), ys)
