"""The probability of a collapse changes a little where a rank, rows or a width do, never the wrong way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from collapse.verdicts_of import Rows, power_law, randn
from expect import known
from fullrank.collapse import Moments, Panel, judge
from fullrank.collapse.spectrum_ends import abrupt_end, standing_out


def probability(rows: Rows) -> float:
    """By the spectrum alone: clusters are not sought."""
    return known(judge(Panel.from_moments("rows", Moments.of(rows.double()))).probability)


def largest_step(found: list[float]) -> float:
    return max(abs(after - before) for before, after in pairwise(found))


def low_rank(rank: int, n: int, d: int, noise: float = 0.0) -> Rows:
    rows: Rows = randn(n, rank) @ randn(rank, d, seed=3) / float(rank) ** 0.5 + noise * randn(n, d, seed=5)
    return rows


@pytest.mark.parametrize(("n", "d"), [(400, 128), (600, 256), (250, 512)])
@pytest.mark.parametrize("noise", [0.0, 1e-4, 3e-3])
def test_one_direction_more_makes_a_collapse_a_little_less_probable(n: int, d: int, noise: float) -> None:
    found = [probability(low_rank(rank, n, d, noise)) for rank in (4, *range(8, 49))]
    assert all(after <= before + 0.02 for before, after in pairwise(found))
    assert largest_step(found) < 0.2
    assert found[0] > 0.9
    assert found[-1] < 0.15


@pytest.mark.parametrize("rank", [8, 20, 31, 33, 64])
def test_more_noise_beside_a_low_rank_never_makes_a_collapse_more_probable(rank: int) -> None:
    found = [probability(low_rank(rank, 400, 128, noise)) for noise in torch.logspace(-4, 0, 33).tolist()]
    assert all(after <= before + 0.02 for before, after in pairwise(found))
    assert largest_step(found) < 0.3


@pytest.mark.parametrize("d", [64, 256])
def test_a_steeper_spectrum_is_the_likelier_collapsed(d: int) -> None:
    found = [probability(power_law(0.1 * k, 300, d)) for k in range(51)]
    assert all(after >= before - 1e-3 for before, after in pairwise(found))
    assert largest_step(found) < 0.2
    assert found[0] < 0.01
    assert found[-1] > 0.99


FAMILIES: dict[str, Callable[[int, int], Rows]] = {
    "k^-1": lambda n, d: power_law(1.0, n, d),
    "k^-2": lambda n, d: power_law(2.0, n, d),
    "k^-2.5": lambda n, d: power_law(2.5, n, d),
    "k^-2.75": lambda n, d: power_law(2.75, n, d),
    "k^-3": lambda n, d: power_law(3.0, n, d),
    "k^-4": lambda n, d: power_law(4.0, n, d),
    "a large mean": lambda n, d: randn(n, d) + 3.0,
    "isotropic": randn,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_more_or_fewer_change_the_probability_a_little(family: str) -> None:
    rows = FAMILIES[family](560, 128)
    found = [probability(rows[:n]) for n in (80, 100, 120, 128, 129, 140, 170, 220, 255, 257, 350, 511, 550)]
    assert largest_step(found) < 0.2
    assert max(found) - min(found) < 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_wider_rows_of_one_spectrum_change_the_probability_a_little(family: str) -> None:
    rows = FAMILIES[family](300, 400)
    found = [probability(rows[:, :d]) for d in (96, 112, 128, 149, 151, 192, 256, 299, 301, 400)]
    assert largest_step(found) < 0.2
    assert max(found) - min(found) < 0.35


@pytest.mark.parametrize("rank", [31, 32, 33])
def test_a_rank_of_about_a_narrow_layer_is_said_to_be_near_the_border(rank: int) -> None:
    verdict = judge(Panel.from_moments("rows", Moments.of(low_rank(rank, 1000, 1024).double())))
    assert verdict.near_border
    assert f"{rank} are the width of a layer" in verdict.why


def test_a_layer_is_read_off_with_a_probability_that_rises_with_its_width() -> None:
    ends = [abrupt_end(torch.cat([torch.ones(r), torch.zeros(300 - r)]).numpy(), 900) for r in range(14, 128)]
    weights = [0.0 if end is None else end.weight for end in ends]
    assert weights == sorted(weights)
    assert largest_step(weights) < 0.1
    assert [end.width for end in ends if end] == [
        r for r, end in zip(range(14, 128), ends, strict=True) if end
    ]


def test_few_directions_above_noise_are_a_signal_the_less_the_more_they_are() -> None:
    spectra = [torch.cat([torch.ones(r), torch.full((300 - r,), 1e-3)]).numpy() for r in range(2, 90)]
    weights = [0.0 if (found := standing_out(s)) is None else found.weight for s in spectra]
    assert all(after <= before + 1e-6 for before, after in pairwise(weights))
    assert largest_step(weights) < 0.1
