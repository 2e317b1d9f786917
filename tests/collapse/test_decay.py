"""The exponent of a power law is read back from its rows, few or many."""

from __future__ import annotations

import numpy as np
import pytest

from fullrank.collapse.decay import corrected, decay_of, exponent, reading
from fullrank.collapse.metrics.ranks import effective_rank, participation_ratio


def spectrum(a: float, n: int, d: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((n, d)) * np.arange(1, d + 1) ** (-a / 2)
    rows -= rows.mean(0)
    gram = rows @ rows.T if n < d else rows.T @ rows
    values: np.ndarray = np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0, None))
    return values[: min(n - 1, d)]


@pytest.mark.parametrize(("n", "d"), [(64, 512), (100, 128), (200, 128), (300, 1024), (4000, 64)])
@pytest.mark.parametrize("a", [1.5, 2.0, 2.5, 3.0, 4.0])
def test_the_exponent_of_a_power_law_is_read_from_few_rows_and_many(n: int, d: int, a: float) -> None:
    s = spectrum(a, n, d)
    rank, participation = effective_rank(s), participation_ratio(s**2)
    assert rank is not None
    assert participation is not None
    assert exponent("effective_rank", rank, n, d) == pytest.approx(a, abs=0.2)
    assert exponent("participation_ratio", corrected(participation, n), 0, d) == pytest.approx(a, abs=0.6)


def test_reading_is_the_inverse_of_the_exponent() -> None:
    for a in (0.5, 1.3, 2.9, 4.4):
        assert exponent("effective_rank", reading("effective_rank", a, 500, 100), 500, 100) == pytest.approx(
            a
        )


def test_one_direction_has_no_decay() -> None:
    assert decay_of({"erank_centred": 1.0}, 100, 1) is None
    assert decay_of({"erank_centred": None}, 100, 10) is None


def test_the_mean_rises_with_every_view() -> None:
    base = {"erank_centred": 40.0, "rankme_unit": 40.0, "participation_ratio": 10.0, "numerical_rank": 100.0}
    flat = decay_of(base, 10_000, 128)
    assert flat is not None
    for name in ("rankme_unit", "participation_ratio", "numerical_rank"):
        steeper = decay_of({**base, name: base[name] / 5}, 10_000, 128)
        assert steeper is not None
        assert steeper.mean >= flat.mean
