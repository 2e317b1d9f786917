"""Verdicts on rows as strangers make them: partly clustered, of uneven length, with garbage, with noise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from collapse.verdicts_of import Rows, blemishes_of, power_law, randn, verdict_of
from fullrank.collapse import Panel, judge
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UsageError


@pytest.mark.parametrize("share", [0.3, 0.45, 0.55, 0.6, 0.63, 0.66, 0.7, 0.8])
def test_the_verdict_on_partly_clustered_rows_is_that_of_their_mirror_image(
    share: float,
) -> None:
    rows, inside = randn(1200, 32, seed=3), int(share * 1200)
    rows[:inside] = randn(10, 32, seed=1)[torch.arange(inside) % 10] + 0.02 * randn(inside, 32, seed=9)
    rotation = torch.linalg.qr(randn(32, 32, seed=4)).Q
    found = [verdict_of(z) for z in (rows, -rows, rows @ rotation, rows.flip(1))]
    assert max(v.probability or 0 for v in found) - min(v.probability or 0 for v in found) < 0.5
    for verdict in found:
        said = verdict.collapsed or "clustered rows" in {b.name for b in verdict.blemishes}
        assert said, "clusters were passed over in silence"


@pytest.mark.parametrize("spread", [0.001, 0.01, 0.1])
def test_the_more_rows_lie_at_nearly_one_point_the_more_probable_is_a_collapse(spread: float) -> None:
    found = []
    for share in (0.2, 0.4, 0.58, 0.65, 0.72, 0.8, 0.9):
        rows, inside = randn(1500, 64, seed=3), int(share * 1500)
        rows[:inside] = randn(1, 64, seed=9) + spread * randn(inside, 64, seed=4)
        found.append(verdict_of(rows).probability or 0.0)
    assert all(later > earlier - 0.05 for earlier, later in pairwise(found))
    assert found[-1] > 0.9


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.04, 0.1])
@pytest.mark.parametrize(("n", "d"), [(1000, 128), (400, 512)])
def test_a_few_directions_and_an_even_floor_of_noise_are_dimensional(
    rank: int, noise: float, n: int, d: int
) -> None:
    rows = randn(n, rank) @ randn(rank, d, seed=3) + noise * randn(n, d, seed=7)
    assert verdict_of(rows).kind == "dimensional"


def test_no_healthy_verdict_is_given_for_a_reason_that_speaks_against_it() -> None:
    verdict = verdict_of(power_law(2.5, 4000, 128))
    assert verdict.kind == "healthy"
    assert "its decay score 2.4 (a collapse from 2.9)" in verdict.why


@pytest.mark.parametrize("sd", [0.3, 0.5, 1.0, 2.0])
def test_lengths_that_vary_neither_hide_clusters_nor_make_a_collapse(sd: float) -> None:
    lengths = (sd * randn(2000, 1, seed=3)).exp()
    clusters = randn(10, 128, seed=1)[torch.arange(2000) % 10] + 0.05 * randn(2000, 128)
    assert verdict_of(clusters * lengths).kind == "cluster"
    assert verdict_of(randn(2000, 128) * lengths).kind == "healthy"


@pytest.mark.parametrize("share", [0.03, 0.06, 0.2])
@pytest.mark.parametrize("factor", [5, 11, 30, 100])
def test_a_minority_of_long_rows_makes_no_collapse(share: float, factor: float) -> None:
    rows = randn(2000, 128)
    rows[: int(share * 2000)] *= factor
    assert verdict_of(rows).kind == "healthy"


@pytest.mark.parametrize("garbage", [1, 10, 20, 32, 60])
@pytest.mark.parametrize("size", [1.0, 4.0])
def test_a_few_rows_of_garbage_do_not_hide_a_low_rank(garbage: int, size: float) -> None:
    rows = randn(2000, 4) @ randn(4, 256, seed=3)
    rows[:garbage] = size * 2.0 * randn(garbage, 256, seed=9)
    verdict = verdict_of(rows)
    assert verdict.kind == "dimensional"
    assert "bottleneck" not in {blemish.name for blemish in verdict.blemishes}
    assert "outliers" in {blemish.name for blemish in verdict.blemishes}


def test_a_few_tiny_rows_are_no_layer() -> None:
    rows = randn(2000, 4) @ randn(4, 256, seed=3)
    rows[:40] = 1e-4 * randn(40, 256, seed=9)
    assert "bottleneck" not in blemishes_of(rows)


def test_two_groups_far_apart_are_healthy_or_said_to_be_two_sources() -> None:
    for share in (0.03, 0.05, 0.1, 0.5):
        rows, minority = randn(2000, 64), int(share * 2000)
        rows[:minority] += 9 * randn(1, 64, seed=9)
        verdict = verdict_of(rows)
        assert verdict.kind == "healthy" or "two sources of data" in verdict.why


def test_several_views_of_each_image_are_said_to_look_like_clusters() -> None:
    verdict = verdict_of(randn(500, 128).repeat_interleave(4, 0) + 0.1 * randn(2000, 128, seed=4))
    assert "several views of each image" in verdict.why


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_one_number_a_row_that_varies_is_no_collapse(shift: float) -> None:
    assert verdict_of(randn(500, 1) + shift).kind == "healthy"


def test_sparse_rows_are_not_quantised() -> None:
    assert "quantised" not in blemishes_of((randn(2000, 512) - 1.6).relu())
    assert "quantised" in blemishes_of((randn(2000, 64) * 8).round())
    assert "quantised" in blemishes_of((randn(2000, 64) * 8).round().relu())


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("points", [3, 10, 40])
def test_clusters_are_counted_beside_scattered_rows(points: int, share: float) -> None:
    rows, scattered = randn(points, 64, seed=1)[torch.arange(3000) % points], int(share * 3000)
    rows[:scattered] = randn(scattered, 64, seed=5)
    verdict = verdict_of(rows)
    assert f" {points} points" in verdict.why
    assert verdict.why.startswith("the rows are" if not share else ("70%", "71%", "69%", "72%", "68%"))


def test_a_lower_border_of_clusters_finds_more_of_them() -> None:
    rows = randn(10, 32, seed=1)[torch.arange(1000) % 10] + 0.33 * randn(1000, 32)
    seen = EmbeddingStatistics(32)
    seen.update(rows)
    seen.finish()
    panel = Panel.from_statistics("rows", seen)
    found = [judge(panel, (), Thresholds(jump=jump)).probability or 0.0 for jump in (0.9, 0.75, 0.6, 0.4)]
    assert found == sorted(found)
    assert found[-1] > 0.9


@pytest.mark.parametrize("scale", [1e-50, 1e-31, 1e31, 1e39])
def test_numbers_beyond_single_precision_are_refused_in_a_line(scale: float) -> None:
    with pytest.raises(UsageError, match="scale them to about 1"):
        verdict_of(randn(600, 32).double() * scale)


def test_rows_one_at_a_time_are_merged_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    merges = 0
    whole = Reservoir._merged

    def counted(self: Reservoir) -> tuple[Rows, Rows, Rows]:
        nonlocal merges
        merges += bool(self._waiting)
        return whole(self)

    monkeypatch.setattr(Reservoir, "_merged", counted)
    sample = Reservoir(4, capacity=10_000)
    for row in randn(4000, 4).split(1):
        sample.add(row)
    assert len(sample.rows) == 4000
    assert merges < 20
