"""Views: drawn alike everywhere, the same for any slice of a batch, and as the recipe says."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from fullrank.errors import UnknownNameError, UsageError
from fullrank.views import VIEWS, Params, View, Views, save_sheet, sheet

PRESETS = [
    "simsiam",
    "symmetric",
    "byol",
    "tutorial",
    "digits",
    "shapes",
    "swav-multicrop",
    "asym-scalemix",
    "asym-aug",
]
SIZES = [View((0.2, 1.0), flip_p=0.5, blur_p=1.0), View((0.05, 0.14), flip_p=0.5, blur_p=1.0, size=0.5)]
NO_NORM = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def pixels(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def sampled(views: Views, images: Tensor, seed: int = 0) -> Params:
    height, width = images.shape[2:]
    return views.sample(len(images), height, width, torch.Generator().manual_seed(seed))


def one(view: View, images: Tensor, size: int) -> tuple[Tensor, Params]:
    views = Views([view], size, **NO_NORM)
    params = sampled(views, images)
    return views(images, params)[0], params


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (3, 9, 13, 11), (5, 64, 50, 32), (2, 28, 28, 33)])
@pytest.mark.parametrize("name", list(VIEWS))
def test_every_preset_yields_finite_views(name: str, shape: tuple[int, int, int, int]) -> None:
    batch, height, width, size = shape
    views, images = Views(name, size), pixels(batch, height, width)
    before = images.clone()
    made = views(images, sampled(views, images))
    assert len(made) == len(VIEWS[name].views) and VIEWS[name].description and VIEWS[name].source
    for view, side in zip(made, views.sizes, strict=True):
        assert view.shape == (batch, 3, side, side) and view.dtype == torch.float32
        assert view.is_contiguous() and view.isfinite().all() and view.abs().max() <= 1
    assert torch.equal(images, before)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PRESETS), st.integers(2, 37), st.sampled_from([8, 15, 31, 32]), st.data())
def test_rows_are_bitwise_those_of_the_whole_batch(
    name: str, batch: int, size: int, data: st.DataObject
) -> None:
    views, images = Views(name, size), pixels(batch, 17, 21)
    params = sampled(views, images, seed=batch)
    start = data.draw(st.integers(0, batch - 1))
    rows = slice(start, data.draw(st.integers(start + 1, batch)))
    for whole, part in zip(views(images, params), views(images[rows], params.rows(rows)), strict=True):
        assert torch.equal(whole[rows], part)


def test_a_seed_decides_the_views() -> None:
    views, images = Views("symmetric", 32), pixels(16, 32, 32)
    first, again, other = (views(images, sampled(views, images, seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], first[1])
    params = sampled(views, images)
    assert torch.equal(pickle.loads(pickle.dumps(params)).views[1].crop, params.views[1].crop)  # to workers


def test_recipes_share_the_stream() -> None:
    images, after = pixels(4, 32, 32), []
    for name in ("none", "simsiam", "tutorial"):
        generator = torch.Generator().manual_seed(0)
        Views(name, 32).sample(4, 32, 32, generator)
        after.append(generator.get_state())
    assert torch.equal(after[0], after[1]) and torch.equal(after[0], after[2])
    plain, coloured = (
        sampled(Views([v], 32), images).views[0] for v in (View((0.2, 1.0)), View((0.2, 1.0), hue=0.1))
    )
    assert torch.equal(plain.crop, coloured.crop)


def test_samples_differ_from_each_other() -> None:
    views, image = Views("simsiam", 16), pixels(1, 32, 32)
    made = views(image.expand(32, 3, 32, 32), sampled(views, image.expand(32, 3, 32, 32)))
    assert torch.cdist(made[0].flatten(1), made[0].flatten(1)).add(torch.eye(32) * 9).min() > 0.1


def test_views_of_uint8_and_float_agree_and_do_not_alias() -> None:
    images = pixels(6, 24, 24)
    for name in ("simsiam", "none"):
        views = Views(name, 24)
        params = sampled(views, images)
        floats = images.float() / 255
        before = floats.clone()
        for a, b in zip(views(images, params), views(floats, params), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
            b.zero_()
        assert torch.equal(floats, before)


# -- What is drawn -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([(0.08, 1.0), (0.9, 1.0), (0.0001, 0.001)]))
def test_crops_lie_inside(height: int, width: int, area: tuple[float, float]) -> None:
    views = Views([View(crop=area)], 16)
    params = views.sample(64, height, width, torch.Generator().manual_seed(height))
    top, left, h, w = params.views[0].crop.unbind(1)
    assert min(top.min(), left.min()) >= 0 and min(h.min(), w.min()) >= 1
    assert (top + h <= height).all() and (left + w <= width).all()


@pytest.mark.parametrize("shape", [(32, 32), (40, 100), (300, 20)])
def test_crops_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reference = v2.RandomResizedCrop(32, scale=(0.08, 1.0))
    image = torch.zeros(3, *shape)
    theirs = torch.tensor([[*map(float, reference.make_params([image]).values())] for _ in range(1500)])
    views = Views([View(crop=(0.08, 1.0))], 32)
    ours = views.sample(6000, *shape, torch.Generator().manual_seed(0)).views[0].crop
    spread = theirs.std(0) + 0.05
    assert ((ours.float().mean(0) - theirs.mean(0)).abs() < 5 * spread / 1500**0.5).all()
    assert ((ours.float().std(0) - theirs.std(0)).abs() < 0.1 * spread + 0.05).all()


def test_no_crop_fits_so_the_largest_centred_one_is_taken() -> None:
    params = Views([View(crop=(1.0, 1.0))], 32).sample(3, 20, 100, torch.Generator())
    assert params.views[0].crop.tolist() == [[0, 36, 20, 27]] * 3  # 20 x 100 held to a ratio of 4 / 3


def test_probabilities_zero_and_one() -> None:
    on = View(None, flip_p=1.0, jitter_p=1.0, gray_p=1.0, blur_p=1.0, solarize_p=1.0, erase_p=1.0)
    generator = torch.Generator().manual_seed(0)
    never, always = Views([View(), on], 32).sample(500, 32, 32, generator).views
    for name in ("flip", "jitter", "gray", "blur", "solarize"):
        assert not getattr(never, name).any() and getattr(always, name).all()
    assert not never.erase.any() and (always.erase[:, 2:] > 0).all()
    half = Views([View(flip_p=0.5)], 32).sample(4000, 32, 32, generator).views[0]
    assert abs(half.flip.float().mean() - 0.5) < 0.04


def test_drawn_values_stay_in_their_ranges_and_fill_them() -> None:
    view = View(None, jitter_p=1, brightness=0.4, contrast=1.5, hue=0.1, blur_p=1, rotation=15.0, erase_p=1)
    view = replace(view, erase_area=(0.4, 0.5))
    p = Views([view], 32).sample(4000, 32, 32, torch.Generator().manual_seed(0)).views[0]
    for values, low, high in (
        (p.factors[:, 0], 0.6, 1.4),
        (p.factors[:, 1], 0.0, 2.5),
        (p.factors[:, 2], 1.0, 1.0),
        (p.factors[:, 3], -0.1, 0.1),
        (p.sigma, 0.1, 2.0),
        (p.degrees, -15.0, 15.0),
    ):
        assert low - 1e-6 <= values.min() <= low + 0.02 * (high - low) + 1e-6
        assert high - 0.02 * (high - low) - 1e-6 <= values.max() <= high + 1e-6
    assert set(p.order.tolist()) == set(range(24))
    top, left, h, w = p.erase.unbind(1)
    assert (top + h <= 32).all() and (left + w <= 32).all() and max(h.max(), w.max()) < 32
    share = (h * w)[h * w > 0] / 32**2
    assert share.min() > 0.36 and share.max() < 0.54 and (h * w > 0).float().mean() > 0.95


# -- What is applied -----------------------------------------------------------------------------------------


def test_flip_is_exact() -> None:
    images = pixels(4, 16, 16)
    assert torch.equal(one(View(flip_p=1.0), images, 16)[0], (images.float() / 255).flip(-1))


def test_the_stages_follow_the_stated_order() -> None:
    images = pixels(8, 20, 20)
    view = View((0.3, 1.0), flip_p=0.5, gray_p=0.5, blur_p=0.5, solarize_p=0.5, rotation=30.0)
    view = replace(view, rotation_interpolation="bilinear", erase_p=1.0)
    views = Views([view], 16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    params = sampled(views, images)
    made, p, f = views(images, params)[0], params.views[0], v2.functional
    for i, image in enumerate(images.float() / 255):
        box, how = p.crop[i].tolist(), v2.InterpolationMode.BICUBIC
        x = f.resized_crop(image, *box, [16, 16], how, antialias=True).clamp(0, 1)
        x = f.horizontal_flip(x) if p.flip[i] else x
        x = f.rgb_to_grayscale(x, 3) if p.gray[i] else x
        x = f.gaussian_blur(x, [13, 13], [p.sigma[i].item()] * 2) if p.blur[i] else x
        # An edge of solarizing amplifies rounding, so what lies within it is left out of the comparison.
        edge = ((x - 128 / 255).abs() < 1e-5).any(0) & p.solarize[i]
        x = f.solarize(x, 128 / 255) if p.solarize[i] else x
        x = f.rotate(x, p.degrees[i].item(), v2.InterpolationMode.BILINEAR)
        x = f.normalize(x, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
        x = f.erase(x, *p.erase[i].tolist(), v=torch.zeros(1))
        if not edge.any():
            torch.testing.assert_close(made[i], x, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", [(40, 40), (30, 47), (61, 32), (16, 16)])
def test_clean_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int]) -> None:
    images = pixels(2, *shape)
    views = Views("none", 16, **NO_NORM)
    how = v2.InterpolationMode.BICUBIC
    resize = v2.Compose([v2.Resize(16, how, antialias=True), v2.CenterCrop(16)])
    torch.testing.assert_close(
        views.clean(images), resize(images.float() / 255).clamp(0, 1), atol=3e-5, rtol=0
    )
    assert torch.equal(views.clean(images), views(images, sampled(views, images))[0])


@pytest.mark.parametrize("recipe", ["tutorial", SIZES], ids=["tutorial", "two sizes"])
def test_workers_crop_what_the_device_would_have_cropped(recipe: str | list[View]) -> None:
    sizes = [(40, 40), (30, 47), (61, 32)]
    smooth = [
        torch.nn.functional.avg_pool2d(pixels(1, h + 4, w + 4).float(), 5, 1)[0].round().byte()
        for h, w in sizes
    ]
    views = Views(recipe, 16)
    height, width = (torch.tensor(side) for side in zip(*sizes, strict=True))
    params = views.sample(3, height, width, torch.Generator().manual_seed(0))
    rows = [views.crop_in_worker(image, params, row) for row, image in enumerate(smooth)]
    finished = views.finish([torch.stack(crops) for crops in zip(*rows, strict=True)], params)
    for row, image in enumerate(smooth):
        for made, whole in zip(finished, views(image[None], params.rows([row])), strict=True):
            assert (made[row] - whole[0]).abs().mean() < 2.5 / 255  # the worker rounds to uint8


def test_finish_leaves_its_crops_alone() -> None:
    views, crops = Views("simsiam", 8), [torch.rand(4, 3, 8, 8) for _ in range(2)]
    before = [crop.clone() for crop in crops]
    views.finish(crops, views.sample(4, 30, 30, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(before, crops, strict=True))


def test_autocast_does_not_reach_the_pixels() -> None:
    views, images = Views("simsiam", 16), pixels(4, 16, 16)
    params = sampled(views, images)
    plain = views(images, params)
    with torch.autocast("cpu", torch.bfloat16):
        cast = views(images, params)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


# -- Pictures and errors -------------------------------------------------------------------------------------


def test_contact_sheet(tmp_path: Path) -> None:
    views, images = Views([View(crop=(0.2, 1.0)), View(size=0.5)], 32), pixels(2, 32, 32)
    params = sampled(views, images)
    picture = sheet(images, views, params)
    assert picture.shape == (2 * 66, 3 * 66, 3)
    assert (picture[1:65:2, 1:65:2] == images[0].permute(1, 2, 0).numpy()).all()
    small = (views(images, params)[1][0] * 0.5 + 0.5).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    assert (picture[1:65:4, 133:197:4] == small.numpy()).all()  # enlarged to a whole cell
    save_sheet(tmp_path / "views.png", images, views, params)
    with Image.open(tmp_path / "views.png") as written:
        assert written.size == (198, 132)


def test_small_views_that_do_not_fill_a_cell_lie_in_its_middle() -> None:
    views, images = Views([View(size=96 / 224)], 224), torch.zeros(1, 3, 32, 32)
    picture = sheet(images, views, views.sample(1, 32, 32, torch.Generator()))
    cell = picture[1:225, 227:451, 0]
    assert picture.shape == (226, 452, 3) and (cell[16:208, 16:208] == 0).all()
    assert (cell == 0).sum() == 192**2 and (cell == 255).sum() == 224**2 - 192**2


WRONG: dict[str, list[Any]] = {
    "crop": [(0.0, 1.0), (0.5, 1.5), (0.8, 0.2)], "ratio": [(0.0, 1.0)], "hue": [0.6], "brightness": [-0.1],
    "blur_sigma": [(0.0, 1.0)], "erase_area": [(0.1, 2.0)], "rotation": [181.0], "gray_p": [1.1],
    "jitter_p": [float("nan")], "interpolation": ["nearest"], "rotation_interpolation": ["bicubic"],
    "size": [0.0, 1.1], "role": ["teacher"], "randaugment": [-1, 1.5], "randaugment_magnitude": [10.5],
    "randaugment_std": [-0.1], "randaugment_p": [2.0],
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_a_recipe_checks_itself(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(UsageError, match=name):
            View(**{name: value})


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'simsiam'"):
        Views("simsam", 32)
    good: dict[str, Any] = {"recipe": "none", "image_size": 8}
    for key, wrong in (("recipe", []), ("image_size", 0), ("mean", (0.5,)), ("std", (0.0, 1.0, 1.0))):
        with pytest.raises(UsageError):
            Views(**good | {key: wrong})
    views, images = Views("none", 8), pixels(4, 8, 8)
    params = sampled(views, images)
    for bad in (pixels(3, 8, 8), pixels(4, 9, 8), images[:, :1], images[0]):
        with pytest.raises(UsageError, match="images are"):
            views(bad, params)
    with pytest.raises(UsageError, match="crops are"):
        views.finish([pixels(4, 9, 9)] * 2, params)
    with pytest.raises(UsageError, match="crops are 3 tensors; give 2"):
        views.finish([pixels(4, 8, 8)] * 3, params)
    with pytest.raises(UsageError, match="no pixels"):
        views.sample(2, 0, 8, torch.Generator())


@pytest.mark.parametrize("preset", ["simsiam", "asym-multicrop", "asym-scalemix"])
def test_a_batch_alone_is_enough_for_its_views(preset: str) -> None:
    views = Views(preset, image_size=32)
    images = torch.randint(0, 256, (4, 3, 40, 48), dtype=torch.uint8)
    one, again = (views(images, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert [tuple(view.shape) for view in one] == [(4, 3, side, side) for side in views.sizes]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    torch.manual_seed(7)
    assert torch.equal(views(images)[0], one[0]), "without a generator, PyTorch's own"
    assert not torch.equal(views(images)[0], one[0])
    with pytest.raises(UsageError, match=r"images are \(3, 40, 48\)"):
        views(images[0])
