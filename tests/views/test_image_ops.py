"""Every operation against torchvision's, one sample at a time, with the same parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from fullrank.errors import UsageError
from fullrank.views import colour_ops as colour
from fullrank.views import image_ops as ops

TOLERANCE = 1e-5  # of values in [0, 1]; both sides are float32 and sum in different orders


def images(batch: int = 6, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Noise, with grey, black, white and saturated pixels among it."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.rand(batch, 3, height, width, generator=generator)
    out[:, :, 0, :] = out[:, :1, 0, :]
    out[:, :, 1, 0], out[:, :, 1, 1] = 0, 1
    out[:, 0, 2, :], out[:, 1, 2, :] = 1, 0
    return out


def assert_close(ours: Tensor, theirs: list[Tensor], tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, torch.stack(theirs), atol=tolerance, rtol=0)


def crop(
    batch: Tensor, box: tuple[int, int, int, int], size: int, kind: ops.Interpolation, flip: bool
) -> Tensor:
    top, left, height, width = (torch.full((len(batch),), v) for v in box)
    rows = ops.resample_matrix(batch.shape[2], size, top, height, None, kind)
    columns = ops.resample_matrix(batch.shape[3], size, left, width, torch.full((len(batch),), flip), kind)
    return ops.separable(batch, rows, columns)


@settings(deadline=None, max_examples=60)
@given(st.data())
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_resized_crop_and_flip(kind: ops.Interpolation, data: st.DataObject) -> None:
    high, wide, size = (data.draw(st.integers(1, 70)) for _ in range(3))
    h, w = data.draw(st.integers(1, high)), data.draw(st.integers(1, wide))
    top, left = data.draw(st.integers(0, high - h)), data.draw(st.integers(0, wide - w))
    flip, batch = data.draw(st.booleans()), images(2, 70, 70)[..., :high, :wide]
    theirs = tv.resized_crop(batch, top, left, h, w, [size, size], InterpolationMode(kind), antialias=True)
    theirs = (tv.horizontal_flip(theirs) if flip else theirs).clamp(0, 1)
    torch.testing.assert_close(crop(batch, (top, left, h, w), size, kind, flip), theirs, atol=3e-5, rtol=0)


def test_boxes_may_differ_within_a_batch() -> None:
    batch = images(4, 20, 24)
    top, left = torch.tensor([0, 3, 5, 19]), torch.tensor([0, 23, 2, 7])
    height, width = torch.tensor([20, 10, 3, 1]), torch.tensor([24, 1, 13, 9])
    flip = torch.tensor([False, True, True, False])
    ours = ops.separable(
        batch, ops.resample_matrix(20, 16, top, height), ops.resample_matrix(24, 16, left, width, flip)
    )
    for i in range(4):
        box = (int(top[i]), int(left[i]), int(height[i]), int(width[i]))
        assert torch.equal(ours[i : i + 1], crop(batch[i : i + 1], box, 16, "bicubic", bool(flip[i])))


@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_weights_sum_to_one_and_stay_in_the_box(kind: ops.Interpolation) -> None:
    weights = ops.resample_matrix(64, 8, torch.tensor([5, 0]), torch.tensor([40, 64]), interpolation=kind)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 8))
    assert not weights[0, :, :5].any() and not weights[0, :, 45:].any()


def test_downsampling_is_antialiased() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert (crop(stripes, (0, 0, 64, 64), 8, "bicubic", False) - 0.5).abs().max() < 0.02


def test_same_size_is_the_identity_and_flip_is_exact() -> None:
    batch = images(2, 9, 9)
    assert torch.equal(crop(batch, (0, 0, 9, 9), 9, "bicubic", False), batch)
    assert torch.equal(crop(batch, (0, 0, 9, 9), 9, "bicubic", True), batch.flip(-1))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("flip", [False, True])
def test_weights_that_are_looked_up_are_those_that_are_computed(kind: ops.Interpolation, flip: bool) -> None:
    start, last = torch.triu_indices(12, 12)
    box = start, last - start + 1, torch.full_like(start, flip, dtype=torch.bool)
    looked_up = ops.crop_matrix(12, 9, *box, kind)
    assert torch.equal(looked_up, ops.resample_matrix(12, 9, *box, kind))


def test_weights_of_large_images_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_every_crop", None)
    box = torch.tensor([3]), torch.tensor([70]), torch.tensor([True])
    large = ops.crop_matrix(96, 64, *box, "bicubic")
    assert torch.equal(large, ops.resample_matrix(96, 64, *box))


def test_a_window_of_a_resized_image() -> None:
    batch, start, length = images(1, 30, 30), torch.tensor([0]), torch.tensor([30])
    whole = ops.resample_matrix(30, 21, start, length)
    window = ops.resample_matrix(30, 12, start, length, full=21, offset=4)
    assert torch.equal(window, whole[:, 4:16])
    mirrored = ops.resample_matrix(30, 12, start, length, torch.tensor([True]), full=21, offset=4)
    assert torch.equal(ops.separable(batch, window, mirrored), ops.separable(batch, window, window).flip(-1))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colour(name: str) -> None:
    batch = images(9)
    values = torch.linspace(-0.5, 0.5, 9) if name == "hue" else torch.linspace(0, 2, 9)
    theirs = [getattr(tv, f"adjust_{name}")(x, v.item()) for x, v in zip(batch, values, strict=True)]
    assert_close(getattr(colour, f"{name}_")(batch.clone(), values), theirs)


def test_colour_jitter_follows_each_samples_order() -> None:
    batch = images(24, 8, 8)
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(24, 4, generator=generator) + torch.tensor([0.5, 0.5, 0.5, -0.5])
    picked = torch.rand(24, generator=generator) < 0.8
    theirs = []
    for i, x in enumerate(batch):
        for which in colour.JITTER_ORDERS[i] if picked[i] else ():
            name = ("brightness", "contrast", "saturation", "hue")[which]
            x = getattr(tv, f"adjust_{name}")(x, factors[i, which].item())
        theirs.append(x)
    ours = colour.color_jitter(batch.clone(), picked, torch.arange(24), factors)
    assert_close(ours, theirs, 5e-5)  # contrast by up to 1.5 widens what hue's rounding left
    assert torch.equal(ours[~picked], batch[~picked])


def test_neutral_jitter_changes_no_bit() -> None:
    batch = images()
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(6, 4)
    jittered = colour.color_jitter(batch.clone(), torch.ones(6, dtype=torch.bool), torch.arange(6), neutral)
    assert torch.equal(jittered, batch)


def test_grayscale_and_solarize() -> None:
    batch = images()
    assert_close(colour.grayscale(batch), [tv.rgb_to_grayscale(x, 3) for x in batch])
    assert_close(colour.solarize(batch), [tv.solarize(x, 128 / 255) for x in batch])
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    ours = colour.solarize(ops.to_float(levels)).mul(255).round().to(torch.uint8)
    assert torch.equal(ours, tv.solarize(levels, 128))


@pytest.mark.parametrize(("size", "radius"), [(32, 6), (9, 3), (7, 6), (2, 1)])
def test_blur(size: int, radius: int) -> None:
    batch, sigma = images(6, 32, 32)[..., :size, :size], torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0])
    kernel = [2 * radius + 1] * 2
    weights = ops.blur_matrix(size, sigma, radius)
    theirs = [tv.gaussian_blur(x, kernel, [s.item()] * 2) for x, s in zip(batch, sigma, strict=True)]
    assert_close(ops.separable(batch, weights, weights), theirs)
    assert torch.equal(ops.blur_matrix(1, sigma[:1], 6), torch.ones(1, 1, 1))


@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("shape", [(32, 32), (9, 14)])
def test_rotation(kind: ops.Interpolation, shape: tuple[int, int]) -> None:
    degrees = torch.tensor([-15.0, -3.3, 0.0, 7.7, 14.9, 141.0])
    batch = images(6, *shape)
    how = InterpolationMode(kind)
    theirs = torch.stack([tv.rotate(x, d.item(), how) for x, d in zip(batch, degrees, strict=True)])
    far = (ops.rotate(batch, degrees, kind) - theirs).abs() > 5e-5
    assert far.float().mean() < (2e-3 if kind == "nearest" else 1e-9)  # nearest: ties may round either way


def test_erase_and_normalize() -> None:
    batch, mean, std = images(3, 8, 10), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    assert_close(ops.normalize(batch, mean, std), [tv.normalize(x, [*mean], [*std]) for x in batch], 2e-6)
    boxes = torch.tensor([[0, 0, 8, 10], [2, 3, 4, 5], [1, 1, 0, 6]])
    theirs = [tv.erase(x, *b.tolist(), v=torch.zeros(1)) for x, b in zip(batch, boxes, strict=True)]
    assert_close(ops.erase(batch.clone(), *boxes.unbind(1)), theirs, 0)


def test_no_operation_but_those_named_so_writes_to_its_input() -> None:
    batch, factor = images(), torch.full((6,), 0.4)
    before, eye = batch.clone(), torch.eye(32).expand(6, 32, 32)
    ops.rotate(batch, factor)
    for result in (colour.grayscale(batch), colour.solarize(batch), ops.separable(batch, eye, eye)):
        assert result.data_ptr() != batch.data_ptr()
    ops.normalize(batch, (0.1,) * 3, (0.2,) * 3)
    assert torch.equal(batch, before)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UsageError, match="uint8"):
        ops.to_float(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(UsageError, match="use 'bicubic' or 'bilinear'"):
        ops.resample_matrix(4, 4, torch.tensor([0]), torch.tensor([4]), interpolation="nearest")
    with pytest.raises(UsageError, match="use 'nearest' or 'bilinear'"):
        ops.rotate(images(1), torch.zeros(1), "bicubic")
