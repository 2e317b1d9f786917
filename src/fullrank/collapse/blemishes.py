"""Blemishes: what is odd about rows whatever the verdict on them is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.moments import Moments
from fullrank.collapse.row_sums import RowSums
from fullrank.collapse.sampling import Copies

TWINS = 0.9999  # correlation from which two dimensions are one
FEW_VALUES = 256  # values that a coordinate takes: one byte
SHOWN = 0.01  # share of rows or dimensions from which a blemish is told
FEW_ROWS = 2.0  # rows a direction that is in use, below which ranks read a quarter low or more
BINDING = 0.25  # of a narrow layer's directions in use, from which it may be what limits the rank
NAMED = 3  # outliers that are named
ALL_OUTLIERS = "outlier_rows of audit.json"  # and of an `Audit`
MOSTLY_DEAD = 0.5  # of the dimensions, above which a headline says of how many living ones a verdict is
CLUSTERED = 0.2  # share of rows in tight clusters from which that is said; a line has more by chance

ADVICE = {
    "copies": "look for repeated images; audit each row once to judge the encoder",
    "outliers": "look at these images: means and covariances see little else",
    "heavy tails": "compare directions (unit rows), for the longest rows decide means and covariances",
    "dead dimensions": "leave them out of what is built on these rows; in training, lower the rate",
    "twin dimensions": "the head is wider than it need be, or was concatenated",
    "one-sided": "they come from a ReLU or have a large mean: centre before comparing directions",
    "quantised": "small differences between rows are lost: embed again in floating point",
    "bottleneck": "widen that layer for more directions; without that an output of its width holds the same",
    "clustered rows": "see which images these are, and whether several views of an image are among them",
    "few rows": "embed more images, or take a narrower layer",
    "unlike other taps": "see what lies between it and the others, and take features from a healthy one",
}
"""What to do about each blemish."""


@dataclass(frozen=True)
class Blemish:
    """One thing that is odd, beside any verdict.

    Attributes:
        name: copies, outliers, heavy tails, dead dimensions, twin dimensions, one-sided, quantised,
            bottleneck, clustered rows, few rows, unlike other taps.
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
        off_plane: rows, estimated from the sample, that lie off the few directions of all others; ranks are
            without them.
        far: rows far out that were taken in, for they are more than a twentieth.
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
    off_plane: int = 0
    far: int = 0

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
        far: int = 0,
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
            # of long rows two dimensions are one already where the longest row has both
            _twins(moments.unit if far else moments, live),
            int(sided.sum()),
            _few_values(sample[:, live]),
            far=far,
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


def _twins(moments: RowSums, live: Tensor) -> int:
    """Dimensions that correlate perfectly with an earlier one."""
    scale = moments.variances.sqrt().cpu()[live]
    correlation = moments.covariance.cpu()[live][:, live].abs() / torch.outer(scale, scale)
    return int((correlation > TWINS).tril(-1).any(dim=1).sum())


def _few_values(sample: Tensor) -> int:
    """Different values of a coordinate, where these are few; else 0.

    The commonest value does not count, for most coordinates of a sparse row are zero.
    """
    if len(sample) < 2 * FEW_VALUES or not sample.shape[1]:
        return 0
    step = max(sample.shape[1] // 32, 1)
    values, others = [], []
    for column in sample[:, ::step].T:
        counts = torch.unique(column, return_counts=True)[1]
        values.append(len(counts))
        others.append(len(column) - int(counts.max()))
    typical, repeated = sorted(values)[len(values) // 2], sorted(others)[len(others) // 2]
    rows = len(torch.unique(sample, dim=0))
    few = typical <= FEW_VALUES and 4 * (typical - 1) <= repeated
    return typical if few and 2 * typical <= rows else 0


def blemishes(
    facts: RowFacts,
    d: int,
    possible: int,
    narrowest: int | None,
    clustered: float = 0.0,
    rank: float | None = None,
) -> tuple[Blemish, ...]:
    """What is odd about rows.

    Args:
        facts: of the rows.
        d: their width.
        possible: directions that they could span.
        narrowest: width of the narrowest layer before them, where known or read off the spectrum.
        clustered: share of them in tight clusters, where the verdict is not of these.
        rank: directions in use, by the centred effective rank; where None all that are possible may be.

    Example:
        >>> for blemish in blemishes(RowFacts(100, 60, 30, dead=8), d=32, possible=32, narrowest=None):
        ...     print(blemish)
        40 of 100 rows are copies of others; the commonest occurs 30 times
        8 of 32 dimensions are constant
    """
    used = possible if rank is None else min(rank, possible)
    found = (*_of_rows(facts, clustered), *_of_dimensions(facts, d, narrowest, used))
    if facts.n < FEW_ROWS * used:
        enough = f"{5 * min(d, narrowest or d):,} would show all"
        says = f"{facts.n:,} rows, of which ranks are estimates that are too low; {enough}"
        found += (_blemish("few rows", facts.n, FEW_ROWS * used, says),)
    return found


def with_outlier_rows(
    found: Iterable[Blemish], rows: Sequence[int], name: Callable[[int], str] | None = None
) -> tuple[Blemish, ...]:
    """The same blemishes, outliers with the first rows that these are.

    Args:
        rows: places of all outliers that are known.
        name: what to call a row, as the path of its image; its number, where None.

    Example:
        >>> odd = Blemish("outliers", 5, 400, "5 rows are left out", "")
        >>> with_outlier_rows([odd], [5, 77, 301, 302, 399])[0].says
        '5 rows are left out: rows 5, 77, 301 (the first is 0) and 2 more; all are outlier_rows of audit.json'
    """
    names = [str(row) if name is None else name(row) for row in rows[:NAMED]]
    listed = ", ".join(names)
    listed = f"row{'s' * (len(rows) > 1)} {listed}" if name is None else listed
    listed += " (the first is 0)" if listed.startswith("row") else ""
    listed += f" and {len(rows) - NAMED:,} more; all are {ALL_OUTLIERS}" if len(rows) > NAMED else ""
    named = [odd for odd in found if odd.name == "outliers"][:1] if rows else []
    return tuple(replace(odd, says=f"{odd.says}: {listed}") if odd in named else odd for odd in found)


def of_living(found: Iterable[Blemish]) -> str:
    """Of how many columns a verdict is, where most are dead but not all; else empty.

    Example:
        >>> of_living(blemishes(RowFacts(400, 400, 1, dead=108), d=128, possible=128, narrowest=None))
        'of 20 living of 128 columns'
    """
    dead = next((odd for odd in found if odd.name == "dead dimensions"), None)
    if dead is None or not MOSTLY_DEAD * dead.of < dead.value < dead.of:
        return ""
    return f"of {dead.of - dead.value:,.0f} living of {dead.of:,.0f} columns"


def _blemish(name: str, value: float, of: float, says: str) -> Blemish:
    return Blemish(name, value, of, says, ADVICE[name])


def _of_rows(facts: RowFacts, clustered: float) -> Iterator[Blemish]:
    n, copied = facts.n, facts.n - facts.distinct
    if copied >= SHOWN * n:
        often = f"; the commonest occurs {facts.most_copies:,} times" if facts.most_copies > 2 else ""
        yield _blemish("copies", copied, n, f"{copied:,} of {n:,} rows are copies of others{often}")
    if facts.outliers:
        rows = "1 row lies" if facts.outliers == 1 else f"{facts.outliers:,} rows lie"
        far = f"up to {facts.farthest:.3g} times as far out as the median row"
        far = far if facts.farthest else "away from the one point of all others"
        yield _blemish("outliers", facts.outliers, n, f"{rows} {far}; left out here")
    if facts.off_plane:
        rows = "1 row lies" if facts.off_plane == 1 else f"about {facts.off_plane:,} rows lie"
        says = f"{rows} off the few directions of all others; left out here, and ranks are of a sample"
        yield Blemish("outliers", facts.off_plane, n, says, "look at these images")
    if facts.far:
        says = f"heavy tails: {facts.far / n:.0%} of the rows are more than 10 times as far out as the median"
        yield _blemish("heavy tails", facts.far, n, f"{says} row; ranks are judged by directions")
    if clustered >= CLUSTERED:
        says = f"{clustered:.0%} of the rows lie in tight clusters"
        yield _blemish("clustered rows", round(clustered * n), n, says)


def _of_dimensions(facts: RowFacts, d: int, narrowest: int | None, used: float) -> Iterator[Blemish]:
    live = d - facts.dead
    if facts.dead:
        yield _blemish("dead dimensions", facts.dead, d, f"{facts.dead:,} of {d:,} dimensions are constant")
    if facts.twins >= SHOWN * d:
        says = f"{facts.twins:,} of {d:,} dimensions repeat another one"
        yield _blemish("twin dimensions", facts.twins, d, says)
    if live > 1 and facts.one_sided >= 0.5 * live:
        says = f"{facts.one_sided:,} of {live:,} dimensions never change sign"
        yield _blemish("one-sided", facts.one_sided, live, says)
    if facts.values:
        yield _blemish(
            "quantised", facts.values, FEW_VALUES, f"the typical coordinate takes {facts.values} values"
        )
    if narrowest is not None and narrowest < d and used >= BINDING * narrowest:
        says = (
            f"a layer before these rows is {narrowest:,} wide: {narrowest:,} of {d:,} directions are possible"
        )
        yield _blemish("bottleneck", narrowest, d, says)
