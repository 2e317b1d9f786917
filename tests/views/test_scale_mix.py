"""ScaleMix: a box of a second version in the first, both of the same image and drawn apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fullrank.views import Params, View, Views
from fullrank.views.image_ops import paste
from fullrank.views.params import mix_boxes
from views.test_views import pixels, sampled

PLAIN = View(crop=(0.2, 1.0), flip_p=0.5, jitter_p=0.8, brightness=0.4, hue=0.1, erase_p=0.5, randaugment=1)
MIXED = replace(PLAIN, scale_mix=True)


def mixed(batch: int, side: int = 16) -> tuple[Views, Tensor, Params]:
    views, images = Views([MIXED], side), pixels(batch, 24, 24)
    return views, images, views.sample(batch, 24, 24, torch.Generator().manual_seed(1))


def versions(images: Tensor, params: Params, side: int = 16) -> list[Tensor]:
    """Each version as a view of its own."""
    plain = Views([PLAIN], side)
    return [plain(images, replace(params, views=(v,)))[0] for v in params.views[0].versions]


def inside(params: Params, side: int = 16) -> Tensor:
    """Bool [B, 1, side, side], box by box."""
    mask = torch.zeros(len(params), 1, side, side, dtype=torch.bool)
    for row, (top, left, height, width) in enumerate(params.views[0].mix.tolist()):
        mask[row, :, top : top + height, left : left + width] = True
    return mask


def test_it_is_bitwise_the_second_version_inside_the_box_and_the_first_outside() -> None:
    views, images, params = mixed(32)
    made, (first, second) = views(images, params)[0], versions(images, params)
    box = inside(params).expand_as(made)
    assert torch.equal(made, torch.where(box, second, first)) and box.any() and not box.all()


def test_the_second_version_is_drawn_apart_from_the_first() -> None:
    first, second = (
        Views([MIXED], 224).sample(4000, 224, 224, torch.Generator().manual_seed(0)).views[0].versions
    )
    both = torch.stack([first.crop[:, 2].double(), second.crop[:, 2].double()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.05
    assert ((first.flip == second.flip).float().mean() - 0.5).abs() < 0.03


def test_the_first_version_is_what_the_view_would_be_without_mixing() -> None:
    plain, mix = (
        Views([view], 16).sample(8, 24, 24, torch.Generator().manual_seed(0)).views[0]
        for view in (PLAIN, MIXED)
    )
    for name in ("crop", "flip", "factors", "erase", "which", "levels"):
        assert torch.equal(getattr(plain, name), getattr(mix, name))


def test_a_view_that_mixes_leaves_the_draws_of_the_others_alone() -> None:
    plain, mix = (
        Views([first, PLAIN], 16).sample(8, 24, 24, torch.Generator().manual_seed(0)).views[1].crop
        for first in (replace(PLAIN, randaugment=0), replace(MIXED, randaugment=0))
    )
    assert torch.equal(plain, mix)


def test_the_generator_moves_as_far_whatever_is_drawn() -> None:
    after = []
    for seed, side in ((0, 24), (0, 300)):
        generator = torch.Generator().manual_seed(seed)
        Views([MIXED, PLAIN], 16).sample(8, side, side, generator)
        after.append(generator.get_state())
    assert torch.equal(after[0], after[1])


def test_mean_area_of_the_box_is_the_analytic_one() -> None:
    # with s = 1 - lambda uniform: E (sqrt(s) - s / 4)^2 = 1/2 - 1/5 + 1/48
    boxes = mix_boxes(torch.rand(3, 200_000, generator=torch.Generator().manual_seed(0)).double(), 2048)
    share = (boxes[:, 2] * boxes[:, 3]).double().mean() / 2048**2
    assert share.item() == pytest.approx(77 / 240, abs=0.003)


@pytest.mark.parametrize("side", [1, 8, 33])
def test_boxes_lie_inside(side: int) -> None:
    top, left, height, width = mix_boxes(torch.rand(3, 5000).double(), side).unbind(1)
    assert min(top.min(), left.min(), height.min(), width.min()) >= 0
    assert (top + height).max() <= side and (left + width).max() <= side


def test_the_box_covers_one_minus_lambda_where_it_is_not_clipped() -> None:
    lam = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    boxes = mix_boxes(torch.stack([lam, *[torch.full_like(lam, 0.5)] * 2]), 4096)
    share = (boxes[:, 2] * boxes[:, 3]).double() / 4096**2
    torch.testing.assert_close(share, 1 - lam, atol=1e-3, rtol=0)


def test_paste_writes_to_neither() -> None:
    one, other, whole = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.tensor([0, 0])
    assert paste(one, other, whole, whole, whole + 4, whole + 2).mean() == 0.5
    assert not one.any() and other.all()


def test_a_worker_cuts_two_crops_that_finish_makes_one_view() -> None:
    uncropped = [replace(view, crop=None) for view in (MIXED, PLAIN)]  # so that workers round nothing
    views, images = Views(uncropped, 24), pixels(6, 24, 24)
    params = sampled(views, images)
    rows = [views.crop_in_worker(image, params, row) for row, image in enumerate(images)]
    assert [len(crops) for crops in rows] == [3] * 6
    finished = views.finish([torch.stack(crops) for crops in zip(*rows, strict=True)], params)
    for made, expected in zip(finished, views(images, params), strict=True):
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
