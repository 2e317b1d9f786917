"""Verdicts hold on embeddings that nobody rehearsed: families around each of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from collapse.verdicts_of import blemishes_of, power_law, randn, verdict_of
from fullrank.collapse import Panel, judge
from fullrank.collapse.sampling import Copies, row_hash
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import UsageError


@pytest.mark.parametrize(("n", "d"), [(2000, 32), (3000, 128), (1500, 300)])
@pytest.mark.parametrize("points", [2, 13, 50, 180, 500])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05, 0.15])
def test_points_and_tight_clusters_of_any_number_are_a_collapse(
    n: int, d: int, points: int, spread: float
) -> None:
    place = torch.randint(points, (n,), generator=torch.Generator().manual_seed(1))
    verdict = verdict_of(randn(points, d, seed=2)[place] + spread * randn(n, d))
    assert verdict.kind in ("cluster", "intra-cluster")


def test_wider_clusters_are_less_severe_and_less_probable() -> None:
    centres = randn(30, 64, seed=2)[torch.arange(1500) % 30]
    verdicts = [
        verdict_of(centres + spread * randn(1500, 64)) for spread in (0.0, 0.05, 0.1, 0.2, 0.3, 0.6, 1.0)
    ]
    for values in ([v.severity for v in verdicts], [v.probability or 0.0 for v in verdicts]):
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("share", [0.8, 0.9, 0.98, 0.999])
@pytest.mark.parametrize("jitter", [0.0, 1e-4])
def test_rows_that_are_mostly_one_row_have_collapsed(share: float, jitter: float) -> None:
    rows = randn(3000, 64)
    same = int(share * len(rows))
    rows[:same] = rows[0] + jitter * randn(same, 64, seed=3)
    assert verdict_of(rows[torch.randperm(3000, generator=torch.Generator().manual_seed(0))]).collapsed


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_copies_are_told_where_they_are_no_collapse(share: float) -> None:
    rows = randn(3000, 64)
    same = int(share * len(rows))
    rows[:same] = rows[0]
    assert verdict_of(rows).kind == "healthy"
    assert f"{same - 1:,} of 3,000 rows are copies" in blemishes_of(rows)["copies"]


@pytest.mark.parametrize("factor", [20.0, 1e3, 1e5, 1e8])
@pytest.mark.parametrize("count", [1, 5, 60])
@pytest.mark.parametrize("first", [True, False])
def test_rows_far_away_are_counted_and_the_others_judged(factor: float, count: int, first: bool) -> None:
    rows = randn(3000, 32)
    rows[:count] *= factor
    verdict = verdict_of(rows if first else rows.flip(0))
    assert verdict.kind == "healthy"
    assert verdict.evidence[0].value == pytest.approx(1.0, abs=0.05)
    (outliers,) = [blemish for blemish in verdict.blemishes if blemish.name == "outliers"]
    assert outliers.value == count


def test_a_collapse_is_not_hidden_by_a_few_rows_far_away() -> None:
    rows = torch.ones(2000, 32) + 1e-3 * randn(2000, 32)
    rows[:3] = 1e4 * randn(3, 32)
    assert verdict_of(rows).kind == "complete"


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize(
    ("a", "kind"), [(1.0, "healthy"), (2.0, "healthy"), (3.2, "dimensional"), (4.0, "dimensional")]
)
def test_a_spectrum_is_judged_by_how_fast_it_decays(a: float, d: int, kind: str) -> None:
    assert verdict_of(power_law(a, 4000, d)).kind == kind


@pytest.mark.parametrize("d", [512, 2048])
@pytest.mark.parametrize("n", [100, 300])
@pytest.mark.parametrize(
    ("a", "kind"), [(0.0, "healthy"), (1.0, "healthy"), (2.0, "healthy"), (4.0, "dimensional")]
)
def test_few_rows_of_a_wide_tap_are_decided(n: int, d: int, a: float, kind: str) -> None:
    verdict = verdict_of(power_law(a, n, d))
    assert verdict.collapsed == (kind != "healthy")


@pytest.mark.parametrize(("a", "n", "few"), [(0.0, 100, True), (1.0, 300, True), (2.0, 300, False)])
def test_rows_are_few_beside_the_directions_in_use_and_not_beside_the_width(
    a: float, n: int, few: bool
) -> None:
    blemishes = {blemish.name for blemish in verdict_of(power_law(a, n, 2048)).blemishes}
    assert ("few rows" in blemishes) is few


def test_a_narrow_layer_that_rows_hardly_use_is_no_bottleneck() -> None:
    rows = power_law(2.0, 100, 512)
    assert "bottleneck" not in {blemish.name for blemish in verdict_of(rows, 256).blemishes}


@pytest.mark.parametrize("rank", [2, 5, 8, 12, 14])
def test_an_exactly_low_rank_is_dimensional(rank: int) -> None:
    assert verdict_of(randn(3000, rank) @ randn(rank, 128, seed=1)).kind == "dimensional"


def test_the_probability_falls_as_the_rank_grows_without_a_cliff() -> None:
    found = [
        verdict_of(randn(3000, rank) @ randn(rank, 128, seed=1)).probability or 0.0
        for rank in range(6, 30, 2)
    ]
    assert found == sorted(found, reverse=True)
    assert max(a - b for a, b in pairwise(found)) < 0.25


@pytest.mark.parametrize(("inside", "d"), [(64, 2048), (192, 2048), (48, 256)])
def test_a_narrow_layer_upstream_is_a_bottleneck_and_no_collapse(inside: int, d: int) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.Linear(64, inside), nn.BatchNorm1d(inside), nn.ReLU(), nn.Linear(inside, d)
    ).eval()
    with torch.no_grad():
        rows = head(randn(1500, 64))
    for narrowest in (inside, None):  # known from the network, and read off the spectrum
        verdict = verdict_of(rows, narrowest)
        assert verdict.kind == "healthy"
        assert f"{inside} wide" in " ".join(blemish.says for blemish in verdict.blemishes)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_dead_dimensions_are_told(share: float) -> None:
    rows, dead = randn(2000, 100), int(100 * share)
    rows[:, :dead] = 0.25
    assert verdict_of(rows).kind == "healthy"
    assert blemishes_of(rows)["dead dimensions"] == f"{dead} of 100 dimensions are constant"


def test_repeated_one_sided_and_quantised_dimensions_are_told() -> None:
    rows = randn(2000, 40)
    assert not blemishes_of(rows)
    assert "20 of 60" in blemishes_of(torch.cat([rows, -3 * rows[:, :20]], 1))["twin dimensions"]
    assert "40 of 40" in blemishes_of(rows.relu())["one-sided"]
    assert "quantised" in blemishes_of((20 * rows).round())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scale_and_precision_change_no_verdict(dtype: torch.dtype, scale: float) -> None:
    healthy, points = scale * randn(1000, 32), scale * randn(9, 32)[torch.arange(1000) % 9]
    assert verdict_of(healthy.to(dtype)).kind == "healthy"
    assert verdict_of(points.to(dtype)).kind == "cluster"


@pytest.mark.parametrize("chunk", [1, 7, 256, 5000])
def test_chunks_change_nothing(chunk: int) -> None:
    rows = randn(1000, 16)
    rows[3] *= 1e4
    rows[500:600] = rows[0]
    found = []
    for size in (chunk, 1000):
        seen = EmbeddingStatistics(16)
        for part in rows.split(size):
            seen.update(part)
        seen.finish()
        found.append(seen)
    # the middle is that of the first rows
    assert found[0].facts.farthest == pytest.approx(found[1].facts.farthest, rel=0.05)
    assert replace(found[0].facts, farthest=0.0) == replace(found[1].facts, farthest=0.0)
    assert found[0].moments.count == found[1].moments.count
    torch.testing.assert_close(found[0].moments.covariance, found[1].moments.covariance)
    assert torch.equal(found[0].sample.places, found[1].sample.places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8, torch.int64, torch.uint8])
@pytest.mark.parametrize(("low", "high", "width"), [(0, 2, 64), (-5, 5, 16), (0, 200, 8)])
def test_rows_of_few_numbers_are_told_apart(dtype: torch.dtype, low: int, high: int, width: int) -> None:
    numbers = torch.randint(low, high, (3000, width), generator=torch.Generator().manual_seed(0))
    rows = numbers.to(dtype)
    copies = Copies()
    copies.add(row_hash(rows))
    assert copies.distinct == len(torch.unique(rows, dim=0))


def test_signs_that_flip_in_pairs_are_no_copies() -> None:
    rows = randn(600, 8).double()
    copies = Copies()
    copies.add(row_hash(torch.cat([rows, -rows])))
    assert copies.distinct == 1200


def test_a_buffer_that_is_written_over_does_not_change_what_was_seen() -> None:
    rows, buffer = randn(200, 16), torch.empty(50, 16)
    seen = EmbeddingStatistics(16)
    for part in rows.split(50):
        seen.update(buffer.copy_(part))
    seen.finish()
    assert judge(Panel.from_statistics("z", seen)).kind == "healthy"
    torch.testing.assert_close(seen.moments.mean, rows.double().mean(0))


@pytest.mark.parametrize("order", ["whole", "shuffled", "last", "first"])
@pytest.mark.parametrize("chunk", [100, 1000, 20_000])
def test_a_second_cloud_is_no_outlier_in_any_order_and_chunks(order: str, chunk: int) -> None:
    rows = torch.cat([randn(8000, 16), randn(2000, 16, seed=1) + 200])
    if order in ("shuffled", "whole"):
        rows = rows[torch.randperm(10_000, generator=torch.Generator().manual_seed(2))]
    if order == "first":
        rows = rows.flip(0)
    seen = EmbeddingStatistics(16)
    for part in rows.split(chunk):
        seen.update(part)
    seen.finish()
    assert (seen.facts.outliers, seen.moments.count) == (0, 10_000)


def test_the_commonest_of_very_many_rows_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullrank.collapse.sampling._KEPT", 1024)
    for seed in range(6):
        rows = randn(20_000, 4, seed=seed)
        rows[:16_000] = rows[0]
        copies = Copies()
        for part in rows.split(3000):
            copies.add(row_hash(part))
        assert copies.most == 16_000
        assert copies.distinct == pytest.approx(4001, rel=0.15)


@pytest.mark.parametrize("scale", [1e-200, 1e300])
def test_numbers_whose_squares_are_none_are_refused_in_a_line(scale: float) -> None:
    with pytest.raises(UsageError, match="scale them to about 1"):
        verdict_of(scale * randn(600, 8).double())


def test_finished_statistics_take_no_more_rows_and_empty_ones_say_so() -> None:
    seen = EmbeddingStatistics(4)
    seen.update(torch.empty(0, 4))
    with pytest.raises(UsageError, match="no embedding rows"):
        seen.finish()
    full = EmbeddingStatistics(4)
    full.update(randn(40, 4))
    full.finish()
    with pytest.raises(UsageError, match="finished"):
        full.update(randn(4, 4))


def test_a_panel_of_a_later_version_is_read() -> None:
    seen = EmbeddingStatistics(4)
    seen.update(randn(40, 4))
    seen.finish()
    saved = Panel.from_statistics("z", seen).as_dict()
    saved["facts"]["of_tomorrow"] = 1
    assert judge(Panel.from_dict(saved)).kind == "healthy"
    saved["measures"].pop("level")
    assert judge(Panel.from_dict(saved)).kind == "healthy"
