"""Label-free measures of views: what they read on rows whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fullrank.collapse.label_free import FEWEST_IMAGES, LABEL_FREE, label_free_measures
from fullrank.errors import UsageError


def views_of(n: int = 120, q: int = 4, d: int = 16, noise: float = 0.1, seed: int = 0) -> Tensor:
    """Views [n, q, d] of isotropic images."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, d, generator=generator)
    return images + noise * torch.randn(n, q, d, generator=generator)


def test_every_measure_is_given_by_its_name() -> None:
    assert set(label_free_measures(views_of())) == set(LABEL_FREE)


def test_views_without_noise_are_found_again_and_keep_their_neighbours() -> None:
    seen = label_free_measures(views_of(noise=0.0))
    assert seen["view_retrieval"] == 1
    assert seen["neighbour_coherence"] == pytest.approx(1)
    assert seen["view_share"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [50, 200])
def test_views_that_have_nothing_in_common_read_as_chance(n: int) -> None:
    z = torch.randn(n, 6, 16, generator=torch.Generator().manual_seed(1))
    seen = label_free_measures(z)
    assert seen["view_retrieval"] == pytest.approx(1 / n, abs=3 / math.sqrt(30 * n))
    assert seen["neighbour_coherence"] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("name", ["view_retrieval", "neighbour_coherence"])
def test_agreement_falls_as_views_differ_more(name: str) -> None:
    seen = [label_free_measures(views_of(noise=noise))[name] for noise in (0.1, 0.5, 1.0, 2.0, 4.0)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1] + 0.3


def test_rows_that_are_all_the_same_have_no_measure_of_agreement() -> None:
    seen = label_free_measures(torch.ones(20, 3, 8))
    assert all(math.isnan(seen[name]) for name in ("view_retrieval", "neighbour_coherence", "lidar"))


def test_encoders_that_map_to_few_points_find_no_view_again() -> None:
    points = torch.eye(4).repeat(30, 1)[:, None].repeat(1, 4, 1)
    assert label_free_measures(points)["view_retrieval"] == pytest.approx(1 / 30)


def test_more_images_tell_the_same_of_an_encoder() -> None:
    few, many = (
        [label_free_measures(views_of(n=n, noise=0.7, seed=seed)) for seed in range(4)] for n in (200, 800)
    )
    for name in ("view_retrieval", "neighbour_coherence", "view_share"):
        seen = [sum(found[name] for found in every) / 4 for every in (few, many)]
        assert seen[0] == pytest.approx(seen[1], abs=0.03)
        assert 0.05 < seen[0] < 0.95


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_unit_of_the_rows_does_not_matter(scale: float) -> None:
    seen, scaled = (label_free_measures(views_of(noise=0.7) * factor) for factor in (1.0, scale))
    assert scaled == pytest.approx(seen, rel=1e-3)


def test_the_order_of_images_does_not_matter() -> None:
    z = views_of(noise=0.7)
    assert label_free_measures(z.flip(0)) == pytest.approx(label_free_measures(z), rel=1e-6)


@pytest.mark.parametrize("z", [torch.ones(FEWEST_IMAGES - 1, 2, 4), torch.ones(20, 1, 4), torch.ones(20, 4)])
def test_too_few_images_or_views_are_refused_with_what_is_needed(z: Tensor) -> None:
    with pytest.raises(UsageError, match=r"\[images, views, d\] of at least 8 images and two views"):
        label_free_measures(z)


def test_numbers_that_are_not_finite_are_refused() -> None:
    z = views_of()
    z[3, 1, 2] = math.nan
    with pytest.raises(UsageError, match="finite"):
        label_free_measures(z)
