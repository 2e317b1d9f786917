"""A run's past: what fell from its best is judged otherwise than what was always low, without a jump."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from expect import known
from fullrank.collapse import Moments, Panel, judge

Rows = Callable[..., torch.Tensor]


def panel_of(z: torch.Tensor) -> Panel:
    return Panel.from_moments("projector", Moments.of(z), points=z[:256])


def with_means(means: Sequence[float], n: int = 300, d: int = 32) -> list[Panel]:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [panel_of(z + mean) for mean in means]


@pytest.mark.parametrize("best", [0.0, 0.5, 1.0, 2.0])
def test_rows_that_draw_together_are_the_likelier_complete_the_further_they_do(best: float) -> None:
    first, *later = with_means([best, *(best + 0.1 * k for k in range(1, 80))])
    found = [known(judge(panel, [first]).probability) for panel in later]
    assert all(after >= before - 1e-9 for before, after in pairwise(found))
    assert max(after - before for before, after in pairwise(found)) < 0.2
    assert found[-1] > 0.99


def test_a_level_that_fell_is_named_where_the_same_level_from_the_start_is_healthy() -> None:
    high, low = with_means([0.0, 5.0])
    fallen = judge(low, [high])
    assert judge(low).kind == judge(low, [low]).kind == "healthy"
    assert fallen.kind == "complete"
    assert "from its best" in fallen.why
    assert "draw together" in fallen.why


def test_directions_that_die_are_no_rows_that_draw_together(gaussian: Rows) -> None:
    high, few = (panel_of(gaussian(1000, 64) * (torch.arange(64) < k)) for k in (64, 4))
    assert known(few.value("level")) < 0.3
    assert judge(few, [high]).kind == "dimensional"


def test_a_few_long_rows_are_no_rows_that_draw_together(gaussian: Rows) -> None:
    z = gaussian(1000, 64)
    longer = z + torch.where(torch.arange(1000) < 50, 30.0, 0.0)[:, None]
    assert judge(panel_of(longer), [panel_of(z)]).kind != "complete"


def test_a_rank_that_falls_further_never_makes_a_collapse_less_probable(gaussian: Rows) -> None:
    d = 64
    history = [panel_of(gaussian(1000, d))]
    panels = [
        panel_of(gaussian(1000, d)[:, :k] @ torch.eye(k, d, dtype=torch.float64)) for k in range(40, 4, -1)
    ]
    found = [known(judge(panel, history).probability) for panel in panels]
    assert found == sorted(found)
    assert max(after - before for before, after in pairwise(found)) < 0.25


def powers(a: float, mean: float = 0.0, n: int = 1000, d: int = 128) -> Panel:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return panel_of(z * torch.arange(1, d + 1) ** (-a / 2) + mean)


@pytest.mark.parametrize("a", [2.0, 2.5, 3.0, 3.1, 3.5])
def test_few_directions_from_the_start_are_less_suspect_than_where_no_past_is_known(a: float) -> None:
    now = powers(a)
    assert known(judge(now, [now, now]).probability) < known(judge(now).probability)


def test_directions_that_are_few_beyond_doubt_are_named_whatever_the_past_was() -> None:
    now = powers(4.0)
    assert judge(now, [now] * 5).kind == "dimensional"


@pytest.mark.parametrize("a", [2.0, 2.5, 2.9])
def test_few_directions_are_the_more_suspect_the_more_of_the_centred_share_is_lost(a: float) -> None:
    start = powers(a)
    found = [known(judge(powers(a, mean), [start]).probability) for mean in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)]
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_the_border_that_a_reason_names_is_the_one_after_the_past() -> None:
    now = powers(2.0)
    assert "a collapse from 2.9" in judge(now).why
    assert "a collapse from 3.3" in judge(now, [now]).why
