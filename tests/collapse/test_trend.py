"""A measure on its way to its threshold is told of before it is there."""

from __future__ import annotations

import pytest
import torch

from fullrank.collapse import CollapseMonitor, Moments, Panel
from fullrank.collapse.trend import warnings


def panels(means: list[float], d: int = 8) -> list[Panel]:
    z = torch.randn(500, d, generator=torch.Generator().manual_seed(0))
    return [Panel.from_moments("projector", Moments.of(z + mean)) for mean in means]


def test_a_falling_level_is_told_of_while_it_is_above_its_threshold() -> None:
    *past, now = panels([0.5, 0.9, 1.3, 1.8])
    (warning,) = [w for w in warnings(now, past) if w.startswith("level")]
    assert "it passes 0.293 in about 3 panels" in warning


@pytest.mark.parametrize("factor", [0.75, 0.8, 0.85, 0.95])
def test_a_collapse_by_a_falling_level_is_warned_of_before_it_is_named(factor: float) -> None:
    monitor, z = CollapseMonitor(), torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    warned = False
    for k in range(80):
        level = 0.99 * factor**k
        monitor.observe({"projector": z + (1 / level**2 - 1) ** 0.5})
        report = monitor.close()
        if report.verdict.collapsed:
            break
        warned |= any("level" in warning for warning in report.warnings)
    assert report.verdict.kind == "complete"
    assert warned


def test_a_level_that_stands_or_rises_is_not_warned_of() -> None:
    for means in ([1.0] * 4, [8.0, 4.0, 2.0, 1.0], [1.0, 2.0, 1.0, 2.0]):
        *past, now = panels(means)
        assert not [w for w in warnings(now, past) if w.startswith("level")]


def test_a_slow_fall_is_not_warned_of_yet() -> None:
    *past, now = panels([0.10, 0.11, 0.12, 0.13])
    assert not warnings(now, past)


def test_three_panels_are_no_trend() -> None:
    *past, now = panels([2.0, 4.0, 8.0])
    assert not warnings(now, past)


def test_the_monitor_passes_warnings_on_with_their_tap() -> None:
    monitor, z = CollapseMonitor(), torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    for mean in (0.5, 0.9, 1.5, 2.4):
        monitor.observe({"projector": z + mean})
        report = monitor.close()
    assert any(warning.startswith("projector: level") for warning in report.warnings)
    assert report.as_dict()["warnings"]


def test_the_rank_difference_is_that_of_target_and_predictor() -> None:
    monitor, z = CollapseMonitor(), torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    monitor.observe({"projector": z, "predictor": z * (torch.arange(8) < 4), "target": z})
    difference = monitor.close().rank_difference
    assert difference is not None
    assert 3.8 < difference < 4.2
