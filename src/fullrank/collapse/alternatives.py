"""Alternatives: ranks of rows without some of them, or without their lengths.

Whether a tenth of the rows is garbage beside a low rank, or a part of the cloud, no border decides without a
jump at it. So near a border both are measured, and each counts for how probable it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fullrank.collapse.metrics import Spectra
from fullrank.collapse.metrics.ranks import effective_rank, numerical_rank, participation_ratio
from fullrank.collapse.moments import Moments
from fullrank.collapse.spectrum_ends import standing_out


class Hypothesis(NamedTuple):
    """Hypothesis on which rows and directions count, and the ranks under it.

    Attributes:
        weight: its probability, in [0, 1].
        n: rows.
        possible: directions that they could span.
        values: the ranks, without an even rest where that counts for nothing.
        measured: the ranks as they are.
        says: what was left out, in words; empty for nothing.
    """

    weight: float
    n: int
    possible: int
    values: Mapping[str, float | None]
    measured: Mapping[str, float | None]
    says: str = ""


@dataclass(frozen=True)
class Alternative:
    """Ranks of some of the rows, or of their directions.

    Attributes:
        weight: how much it counts, in [0, 1]; those of all alternatives add up to 1.
        n: rows that it is of.
        values: a rank each, by the names of `fullrank.collapse.decay.VIEWS`.
        says: which rows or directions these are, in words; empty for all as they are.
        signal: directions that stand out of an even rest; None where none do.
        signal_weight: how probable it is that the rest is noise.
    """

    weight: float
    n: int
    values: Mapping[str, float | None]
    says: str = ""
    signal: int | None = None
    signal_weight: float = 1.0

    @classmethod
    def of(cls, moments: Moments, weight: float, says: str, directions: bool = False) -> Alternative:
        """Ranks of moments; with `directions` those of rows at unit length."""
        spectra = Spectra(moments)
        centred = moments.unit.singular_values() if directions else spectra.centred
        signal = standing_out(centred)
        values = {
            "erank_centred": effective_rank(centred),
            "rankme_unit": effective_rank(spectra.unit),
            "participation_ratio": participation_ratio(np.square(centred)),
            "numerical_rank": float(numerical_rank(centred)),
        }
        if signal is None:
            return cls(weight, moments.count, values, says)
        return cls(weight, moments.count, values, says, signal.directions, signal.weight)

    def split(self, possible: int) -> Iterator[Hypothesis]:
        """Ranks with an even rest left out and with it, each weighted."""
        possible = min(possible, self.n - 1)
        if self.signal is None:
            yield Hypothesis(self.weight, self.n, possible, self.values, self.values, self.says)
            return
        limited = {
            # the mean of unit rows is a direction, too
            name: value if value is None else min(value, self.signal + float(name == "rankme_unit"))
            for name, value in self.values.items()
        }
        stands = f"{self.signal} {'stands' if self.signal == 1 else 'stand'} out of an even rest"
        lower = self.signal < (self.values.get("erank_centred") or 0.0)
        says = "; ".join(filter(None, (self.says, stands if lower else "")))
        yield Hypothesis(self.weight * self.signal_weight, self.n, possible, limited, self.values, says)
        yield Hypothesis(
            self.weight * (1 - self.signal_weight), self.n, possible, self.values, self.values, self.says
        )
