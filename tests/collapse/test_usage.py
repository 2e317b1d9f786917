"""How the use of codes is read from assignments."""

from __future__ import annotations

import pytest
import torch

from fullrank.collapse import CodeUsage, CollapseMonitor, Usage
from fullrank.collapse.metrics.codes import unique_prototypes
from fullrank.errors import UsageError


def usage(scores: torch.Tensor, chunk: int = 1000) -> Usage:
    seen = CodeUsage(scores.shape[1])
    for part in scores.split(chunk):
        seen.update(part)
    return seen.result()


def test_images_that_share_codes_evenly_use_all_of_them() -> None:
    seen = usage(100.0 * torch.eye(8).repeat(5, 1))
    assert seen.perplexity == pytest.approx(8)
    assert (seen.used, seen.dead_share) == (8, 0.0)


def test_one_code_for_all_images_has_perplexity_one() -> None:
    seen = usage(100.0 * torch.eye(8)[:1].repeat(40, 1))
    assert seen.perplexity == pytest.approx(1)
    assert seen.marginal_entropy == pytest.approx(0, abs=1e-9)
    assert seen.dead_share == 7 / 8


def test_all_codes_for_every_image_is_told_from_codes_that_are_shared_out() -> None:
    vague, sharp = usage(torch.zeros(40, 8)), usage(100.0 * torch.eye(8).repeat(5, 1))
    assert vague.perplexity == pytest.approx(sharp.perplexity)
    assert vague.conditional_entropy == pytest.approx(1)
    assert sharp.conditional_entropy == pytest.approx(0, abs=1e-9)


def test_fewer_images_than_codes_are_not_blamed_for_the_codes_they_cannot_use() -> None:
    assert usage(100.0 * torch.eye(64)[:10]).dead_share == 0.0


def test_chunks_give_what_the_whole_gives() -> None:
    scores = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    whole, chunks = usage(scores).as_dict(), usage(scores, chunk=7).as_dict()
    assert chunks == pytest.approx(whole)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UsageError, match="not all finite"):
        usage(torch.full((4, 3), torch.nan))


def test_the_monitor_reports_use_for_codes_and_no_spectrum() -> None:
    monitor = CollapseMonitor()
    monitor.observe({"projector": torch.randn(64, 4), "codes": 9.0 * torch.eye(64)})
    report = monitor.close()
    assert report.usage is not None
    assert report.usage.used == 64
    assert set(report.panels) == {"projector"}


def test_prototypes_closer_than_the_distance_are_duplicates_whatever_their_length() -> None:
    angles = torch.tensor([0.0, 0.2, 1.0, 2.0], dtype=torch.float64)  # 1 - cos 0.2 = 0.0199
    rows = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [9.0], [0.1], [1.0]])
    assert unique_prototypes(rows) == 0.5
    assert unique_prototypes(rows, distance=0.01) == 1.0


def test_the_share_of_unique_prototypes_does_not_depend_on_the_chunk() -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert 0 < unique_prototypes(rows, chunk=7) == unique_prototypes(rows) < 1
    assert unique_prototypes(rows[:1].expand(5, 3), chunk=2) == 0.0
