"""Decay of a spectrum: the exponent of the power law that reads the same.

Several measures see different ends of a spectrum: the participation ratio its head, effective ranks its body,
the share of directions above noise its tail. Each is turned into the exponent a of the covariance eigenvalues
`k^-a` that would read the same for as many rows and directions, so values of any n and d compare, and
few rows are no excuse. Their weighted mean is held against one border.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fullrank.collapse.metrics._spectrum import isotropic_singular_values
from fullrank.collapse.metrics.ranks import effective_rank, participation_ratio

EXPONENTS = np.arange(0.0, 8.01, 0.25)
ENOUGH = 4.0  # rows a direction, from which a spectrum is that of the covariance; from half of it nearly
ABOVE = 1e-3  # of the largest singular value, that `numerical_rank` counts from
KNOWN_TO = 0.2  # that an exponent scatters by

BODY, UNIT, TAIL = 0.5, 0.5, 0.4  # fitted on the encoders of docs/verdict.md, TAIL so that exact ranks count

VIEWS = ("erank_centred", "rankme_unit", "participation_ratio", "numerical_rank")
"""The measures that are combined."""


@dataclass(frozen=True)
class Decay:
    """Exponents of one spectrum.

    Attributes:
        exponents: by measure; for `numerical_rank` the logarithm of how many more directions above noise a
            power law of the body's exponent has.
        mean: `0.5 min(a_P, a_E) + 0.5 a_U + 0.4 a_N` of participation ratio P, centred effective rank E,
            RankMe of unit rows U and directions above noise N. The lesser of P and E, for one strong
            direction lowers P alone and a few even ones lower E alone, and encoders of full worth have
            either.
        possible: directions that the rows could span.
    """

    exponents: Mapping[str, float]
    mean: float
    possible: int


def decay_of(values: Mapping[str, float | None], n: int, possible: int) -> Decay | None:
    """Exponents of measured values, and their mean.

    Args:
        values: by name of `VIEWS`; of a missing one the others take the place.
        n: rows.
        possible: directions that they could span.

    Returns:
        None with fewer than two possible directions, or without any value.

    Example:
        >>> steep = decay_of({"erank_centred": 5.0, "participation_ratio": 1.2}, n=10_000, possible=128)
        >>> flat = decay_of({"erank_centred": 100.0, "participation_ratio": 60.0}, n=10_000, possible=128)
        >>> round(steep.mean, 1), round(flat.mean, 1)
        (3.8, 0.6)
    """
    if possible < 2:
        return None
    exponents: dict[str, float] = {}
    for name in VIEWS:
        value = values.get(name)
        if value is None:
            continue
        if name == "participation_ratio":
            exponents[name] = exponent("participation_ratio", corrected(value, n), 0, possible)
        elif name != "numerical_rank":
            exponents[name] = exponent("effective_rank", value, n, possible)
    body = [exponents[name] for name in ("participation_ratio", "erank_centred") if name in exponents]
    if not body and "rankme_unit" not in exponents:
        return None
    unit = exponents.get("rankme_unit", min(body, default=0.0))
    above = values.get("numerical_rank")
    if above is not None:
        exponents["numerical_rank"] = _tail(above, min(body, default=unit), possible)
    mean = BODY * min(body, default=unit) + UNIT * unit + TAIL * exponents.get("numerical_rank", 0.0)
    return Decay(exponents, mean, possible)


def _tail(above: float, a: float, possible: int) -> float:
    """Logarithm by which directions above noise are fewer than of a power law.

    Beside all that are possible a power law has the fewer the wider the rows are, and an exponent would
    depend on their number and width. What ends exactly has few beside its law's, which are all.
    """
    law = math.exp(min(-2 * math.log(ABOVE) / max(a - KNOWN_TO, 1e-3), 50.0))
    return max(math.log(min(law, possible) / max(above, 1.0)), 0.0)


def corrected(participation: float, n: int) -> float:
    """Participation ratio of the covariance behind n Gaussian rows' own.

    Formula: `E tr S^2 = ((m + 1) tr C^2 + tr(C)^2) / m` for m = n - 1 degrees of freedom, solved for C.
    """
    m = n - 1
    if m < 3:
        return participation
    inverse = (m / participation - 1) / (m + 1)
    return 1 / max(inverse, 1e-9)


def exponent(measure: str, value: float, n: int, possible: int) -> float:
    """Exponent, 0 to 8, of the power law of which n rows read `value`."""
    curve = readings(measure, n if n < ENOUGH * possible else 0, possible)
    return float(np.interp(-math.log(max(value, 1.0)), -np.log(curve), EXPONENTS))


def reading(measure: str, a: float, n: int, possible: int) -> float:
    """What n rows of the power law of exponent `a` read, the inverse of `exponent`."""
    curve = readings(measure, n if n < ENOUGH * possible else 0, possible)
    return float(np.exp(np.interp(a, EXPONENTS, np.log(curve))))


@lru_cache(maxsize=64)
def readings(measure: str, n: int, possible: int) -> np.ndarray:
    """What n rows of each power law read; 0 rows: what its covariance does."""
    spectra = _spectra(n, possible)
    if measure == "effective_rank":
        found = [effective_rank(values) for values in spectra]
    else:
        found = [participation_ratio(values**2) for values in spectra]
    falling: np.ndarray = np.minimum.accumulate(np.array(found, dtype=float))
    strictly: np.ndarray = np.maximum(falling - 1e-9 * np.arange(len(falling)), 1.0)
    return strictly


@lru_cache(maxsize=8)
def _spectra(n: int, possible: int) -> tuple[np.ndarray, ...]:
    """Singular values of n centred rows of each power law, to some percent."""
    k = np.arange(1, possible + 1, dtype=float)
    scales = [k ** (-a / 2) for a in EXPONENTS]
    if not n:
        return tuple(scales)
    # so few rows take from both ends of an even spectrum, and hardly from the head of a steep one
    lost = isotropic_singular_values(n, possible)
    few = math.log2(ENOUGH * possible / n)  # from 1, at two rows a direction, it fades to 0
    lost = (lost / lost.mean()) ** min(max(few, 0.0), 1.0)
    return tuple(
        scale[: len(lost)] * lost ** (1 / (1 + a)) for a, scale in zip(EXPONENTS, scales, strict=True)
    )
