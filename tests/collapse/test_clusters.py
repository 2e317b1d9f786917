"""Tight clusters of any number are found, and nothing else is taken for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fullrank.collapse import Moments, Panel, judge, tight_clusters
from fullrank.collapse.audit import audit
from fullrank.errors import UsageError

N = 600


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def clustered(count: int, spread: float, d: int = 48) -> torch.Tensor:
    return gaussian(count, d, seed=1)[torch.arange(N) % count] + spread * gaussian(N, d)


@pytest.mark.parametrize("count", [2, 3, 10, 50])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.1])
def test_tight_clusters_are_counted(count: int, spread: float) -> None:
    found = tight_clusters(clustered(count, spread))
    assert found is not None
    assert found.found
    assert found.number == count


def test_the_share_within_is_that_of_the_spread() -> None:
    found = tight_clusters(clustered(10, 0.1))
    assert found is not None
    assert found.within_share == pytest.approx(0.01 / 1.01, rel=0.3)


@pytest.mark.parametrize(
    "rows",
    [
        gaussian(N, 48),
        gaussian(N, 48) + 9.0,
        gaussian(N, 48) * torch.arange(1, 49) ** -0.75,
        gaussian(N, 48) / gaussian(N, 3, seed=2).square().mean(1, keepdim=True).sqrt(),
        torch.relu(gaussian(N, 48)),
        torch.tanh(gaussian(N, 6) @ gaussian(6, 64, seed=3)) @ gaussian(64, 48, seed=4),
        gaussian(10, 48, seed=1)[torch.arange(N) % 10] + gaussian(N, 48),
        gaussian(N // 2, 48).repeat(2, 1),
        gaussian(N, 48).bfloat16().float(),
    ],
    ids=[
        "isotropic", "large mean", "power law", "heavy tails", "relu", "curved", "overlapping classes",
        "every row twice", "bf16",
    ],
)  # fmt: skip
def test_a_cloud_is_not_taken_for_clusters(rows: torch.Tensor) -> None:
    found = tight_clusters(rows)
    assert found is not None
    assert not found.found


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("n", [64, N])
def test_a_line_that_falls_into_pieces_is_not_taken_for_clusters(rank: int, n: int) -> None:
    rows = gaussian(n, rank) @ gaussian(rank, 48, seed=1)
    verdict = judge(Panel.from_moments("z", Moments.of(rows), points=rows))
    assert verdict.kind == "dimensional"


@pytest.mark.parametrize("change", ["shuffled", "rotated", "scaled", "moved"])
def test_what_changes_no_distance_changes_no_count(change: str) -> None:
    rows = clustered(7, 0.05)
    turn = torch.linalg.qr(gaussian(48, 48, seed=5)).Q
    changed = {
        "shuffled": rows[torch.randperm(N, generator=torch.Generator().manual_seed(6))],
        "rotated": rows @ turn,
        "scaled": 1e4 * rows,
        "moved": rows + 5.0,
    }[change]
    before, after = tight_clusters(rows), tight_clusters(changed)
    assert before is not None
    assert after is not None
    assert (after.number, after.found) == (before.number, before.found)


def test_wide_rows_are_sketched_and_still_counted() -> None:
    found = tight_clusters(clustered(12, 0.05, d=1500))
    assert found is not None
    assert (found.number, found.found) == (12, True)


def test_nothing_is_said_of_a_constant_or_of_few_rows() -> None:
    assert tight_clusters(torch.ones(100, 4)) is None
    assert tight_clusters(gaussian(7, 4)) is None


def test_a_vector_is_refused() -> None:
    with pytest.raises(UsageError):
        tight_clusters(torch.ones(10))


def test_few_points_are_a_cluster_collapse_and_many_a_collapse_within() -> None:
    for count, kind in ((5, "cluster"), (80, "intra-cluster")):
        rows = clustered(count, 0.01)
        assert judge(Panel.from_moments("z", Moments.of(rows), points=rows)).kind == kind


@pytest.mark.parametrize("count", [2, 7, 40, 180, 700, 1300])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05, 0.2])
def test_clusters_of_any_number_up_to_a_third_of_the_rows_are_seen(count: int, spread: float) -> None:
    n = 4000
    place = torch.randint(count, (n,), generator=torch.Generator().manual_seed(2))
    found = tight_clusters(gaussian(count, 64, seed=1)[place] + spread * gaussian(n, 64))
    assert found is not None
    assert found.found
    clusters = int((torch.bincount(place, minlength=count) > 2).sum())  # a pair is none
    assert found.number == pytest.approx(clusters, rel=0.15)


def test_the_jump_falls_as_clusters_widen() -> None:
    spreads = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    jumps = []
    for spread in spreads:
        found = tight_clusters(clustered(20, spread))
        assert found is not None
        jumps.append(found.jump)
    assert jumps == sorted(jumps, reverse=True)


def test_it_says_how_many_clusters_so_many_rows_could_show() -> None:
    found = tight_clusters(gaussian(300, 16))
    assert found is not None
    assert found.most == 100


def test_every_row_thrice_is_a_third_as_many_points_and_every_row_twice_none() -> None:
    rows = gaussian(200, 48)
    twice, thrice = tight_clusters(rows.repeat(2, 1)), tight_clusters(rows.repeat(3, 1))
    assert twice is not None
    assert thrice is not None
    assert not twice.found
    assert thrice.number == 200


def test_eight_rows_are_the_fewest_that_clusters_are_looked_for_in() -> None:
    assert tight_clusters(gaussian(8, 4)) is not None
    assert tight_clusters(gaussian(7, 4)) is None


def two_sources(n: int, apart: float, share: float) -> tuple[Tensor, Tensor]:
    """Rows of two clouds of power-law spectra, the first around zero, and of which each is."""
    g = torch.Generator().manual_seed(0)
    cloud = torch.randn(n, 64, generator=g) * torch.arange(1, 65) ** -0.5
    direction = torch.nn.functional.normalize(torch.randn(64, generator=g), dim=0)
    second = torch.rand(n, generator=g) < share
    return cloud + apart * second[:, None] * direction, second


@pytest.mark.parametrize("share", [0.5, 0.4, 0.3, 0.2])
@pytest.mark.parametrize("apart", [20.0, 30.0, 60.0, 1000.0])
def test_two_sources_are_clusters_although_one_lies_around_zero(apart: float, share: float) -> None:
    rows, _ = two_sources(2000, apart, share)
    found = audit(rows, metrics=[]).verdict
    assert found.kind in ("cluster", "intra-cluster")
    assert "two sources of data" in found.why
    assert not {odd.name for odd in found.blemishes} & {"heavy tails", "outliers"}


@pytest.mark.parametrize("apart", [11.0, 12.0, 13.0, 20.0, 60.0])
@pytest.mark.parametrize("order", ["by source", "alternating", "random"])
def test_the_order_of_two_sources_changes_nothing(order: str, apart: float) -> None:
    rows, second = two_sources(2048, apart, 0.5)
    places = {
        "by source": second.int().argsort(stable=True),
        "alternating": torch.cat([(~second).nonzero(), second.nonzero()])[:2000].reshape(2, -1).T.flatten(),
        "random": torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)),
    }[order]
    kept = rows[places.sort().values]
    probabilities = [audit(z, metrics=[]).verdict.probability or 0.0 for z in (kept, rows[places])]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=0.01)


@pytest.mark.parametrize("scales", [(1, 100), (1, 10, 100), (1, 10, 100, 1000)])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_lengths_of_several_scales_make_no_clusters(scales: tuple[int, ...], share: float) -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2000, 64, generator=g), dim=1)
    first = torch.rand(2000, generator=g) < share
    others = torch.tensor(scales[1:])[torch.randint(len(scales) - 1, (2000,), generator=g)]
    lengths = torch.where(first, scales[0], others)
    assert audit(rows * lengths[:, None], metrics=[]).verdict.kind == "healthy"
