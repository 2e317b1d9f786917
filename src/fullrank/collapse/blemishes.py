"""Blemishes: what is odd about rows whatever the verdict on them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.moments import Moments
from fullrank.collapse.sampling import Copies

TWINS = 0.9999  # correlation from which two dimensions are one
FEW_VALUES = 256  # values that a coordinate takes: one byte
SHOWN = 0.01  # share of rows or dimensions from which a blemish is told
FEW_ROWS = 2.0  # rows a direction

ADVICE = {
    "copies": "look for repeated images; audit each row once to judge the encoder",
    "outliers": "look at these images: means and covariances see little else",
    "dead dimensions": "leave them out of what is built on these rows; in training, lower the rate",
    "twin dimensions": "the head is wider than it need be, or was concatenated",
    "one-sided": "they come from a ReLU or have a large mean: centre before comparing directions",
    "quantised": "small differences between rows are lost: embed again in floating point",
    "bottleneck": "widen that layer; an output as narrow as it says as much",
    "few rows": "embed more images, or take a narrower layer",
    "differs": "see what lies between it and the others, and take features from a healthy one",
}
"""What to do about each blemish."""


@dataclass(frozen=True)
class Blemish:
    """One thing that is odd, beside any verdict.

    Attributes:
        name: copies, outliers, dead dimensions, twin dimensions, one-sided, quantised, bottleneck, few rows,
            differs.
        value: how many rows, dimensions or values.
        of: of how many.
        says: the same in words.
        advice: what to do about it.
    """

    name: str
    value: float
    of: float
    says: str
    advice: str

    def __str__(self) -> str:
        return self.says

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class RowFacts:
    """Counts that moments do not hold.

    Attributes:
        n: rows seen, outliers and all.
        distinct: different rows.
        most_copies: how often the commonest row occurs.
        outliers: rows that were left out of all metrics, for they lie far from all others.
        farthest: distance of the farthest from the middle, over the median distance; 0 where that is 0.
        dead: dimensions that are constant.
        twins: dimensions that repeat an earlier one up to scale and sign.
        one_sided: dimensions that vary without ever changing sign.
        values: different values of a coordinate where there are few of them, else 0.
    """

    n: int
    distinct: int
    most_copies: int
    outliers: int = 0
    farthest: float = 0.0
    dead: int = 0
    twins: int = 0
    one_sided: int = 0
    values: int = 0

    @classmethod
    def of(
        cls,
        moments: Moments,
        sample: Tensor,
        lowest: Tensor,
        highest: Tensor,
        copies: Copies,
        outliers: int,
        farthest: float,
    ) -> RowFacts:
        """Facts of rows from their moments, a sample, and the range of every dimension."""
        variances = moments.variances.cpu()
        live = variances > 0
        sided = live & ((lowest >= 0) | (highest <= 0))
        return cls(
            copies.rows,
            copies.distinct,
            copies.most,
            outliers,
            farthest,
            int((~live).sum()),
            _twins(moments, live),
            int(sided.sum()),
            _few_values(sample[:, live]),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RowFacts:
        """Facts from JSON; what a later version knows besides is passed over."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    @property
    def copied_share(self) -> float:
        """Share of rows that are the commonest row."""
        return self.most_copies / self.n if self.most_copies > 1 else 0.0


def _twins(moments: Moments, live: Tensor) -> int:
    """Dimensions that correlate perfectly with an earlier one."""
    scale = moments.variances.sqrt().cpu()[live]
    correlation = moments.covariance.cpu()[live][:, live].abs() / torch.outer(scale, scale)
    return int((correlation > TWINS).tril(-1).any(dim=1).sum())


def _few_values(sample: Tensor) -> int:
    """Different values of a coordinate, where these are few; else 0."""
    if len(sample) < 2 * FEW_VALUES or not sample.shape[1]:
        return 0
    step = max(sample.shape[1] // 32, 1)
    ordered = sample[:, ::step].sort(dim=0).values
    values = int((ordered.diff(dim=0) != 0).sum(0).median()) + 1
    rows = len(torch.unique(sample, dim=0))
    return values if values <= FEW_VALUES and values * 2 <= rows else 0


def blemishes(facts: RowFacts, d: int, possible: int, narrowest: int | None) -> tuple[Blemish, ...]:
    """What is odd about rows.

    Args:
        facts: of the rows.
        d: their width.
        possible: directions that they could span.
        narrowest: width of the narrowest layer before them, where known or read off the spectrum.

    Example:
        >>> for blemish in blemishes(RowFacts(100, 60, 30, dead=8), d=32, possible=32, narrowest=None):
        ...     print(blemish)
        40 of 100 rows are copies of others; the commonest occurs 30 times
        8 of 32 dimensions are constant
    """
    found = []

    def add(name: str, value: float, of: float, says: str) -> None:
        found.append(Blemish(name, value, of, says, ADVICE[name]))

    n, copied = facts.n, facts.n - facts.distinct
    if copied >= SHOWN * n:
        often = f"; the commonest occurs {facts.most_copies:,} times" if facts.most_copies > 2 else ""
        add("copies", copied, n, f"{copied:,} of {n:,} rows are copies of others{often}")
    if facts.outliers:
        rows = "1 row lies" if facts.outliers == 1 else f"{facts.outliers:,} rows lie"
        far = f"up to {facts.farthest:.3g} times as far out as the median row"
        far = far if facts.farthest else "away from the one point of all others"
        add("outliers", facts.outliers, n, f"{rows} {far}; left out here")
    if facts.dead:
        add("dead dimensions", facts.dead, d, f"{facts.dead:,} of {d:,} dimensions are constant")
    if facts.twins >= SHOWN * d:
        add("twin dimensions", facts.twins, d, f"{facts.twins:,} of {d:,} dimensions repeat another one")
    live = d - facts.dead
    if live > 1 and facts.one_sided >= 0.5 * live:
        says = f"{facts.one_sided:,} of {live:,} dimensions never change sign"
        add("one-sided", facts.one_sided, live, says)
    if facts.values:
        add("quantised", facts.values, FEW_VALUES, f"a coordinate takes {facts.values} values")
    if narrowest is not None and narrowest < d:
        says = (
            f"a layer before these rows is {narrowest:,} wide: {narrowest:,} of {d:,} directions are possible"
        )
        add("bottleneck", narrowest, d, says)
    if n < FEW_ROWS * possible:
        enough = round(5 * possible)
        says = f"{n:,} rows for {possible:,} directions: ranks are estimates; {enough:,} would show all"
        add("few rows", n, FEW_ROWS * possible, says)
    return tuple(found)
