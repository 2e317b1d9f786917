"""RandAugment: each operation against torchvision's and timm's, and what is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from fullrank.views import View, Views, image_ops
from fullrank.views.randaugment import FILL, OPS, rand_augment, random_ops

LEVELS = (2.5, 5.0, 7.3, 10.0)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")  # the operations that move pixels
TIMM = dict(zip(OPS, timm_ops._RAND_TRANSFORMS, strict=True))  # both in one order


def photos(batch: int = 4, side: int = 32) -> Tensor:
    """Smooth images of 256 levels, as float."""
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return smooth.mul(255).round().div(255)


def factor(level: float) -> float:
    return 0.1 + 0.18 * level


def posterized(x: Tensor, level: float) -> Tensor:
    bits: Tensor = tv.posterize(x.mul(255).round().byte(), int(level * 0.4))
    return bits.float() / 255


TORCHVISION: dict[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": lambda x, _: tv.autocontrast(x),
    "equalize": lambda x, _: tv.equalize(x),
    "invert": lambda x, _: tv.invert(x),
    "posterize": posterized,
    "solarize": lambda x, level: tv.solarize(x, int(25.6 * level) / 255) if level < 10 else x,
    "color": lambda x, level: tv.adjust_saturation(x, factor(level)),
    "contrast": lambda x, level: tv.adjust_contrast(x, factor(level)),
    "brightness": lambda x, level: tv.adjust_brightness(x, factor(level)),
    "sharpness": lambda x, level: tv.adjust_sharpness(x, factor(level)),
}


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_a_colour_operation_is_torchvisions_with_each_rows_magnitude(name: str) -> None:
    ours = OPS[name](photos(), torch.tensor(LEVELS))
    theirs = torch.stack([TORCHVISION[name](x, v) for x, v in zip(photos(), LEVELS, strict=True)])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def affine(x: Tensor, name: str, level: float) -> Tensor:
    """torchvision's, which states where pixels go; ours states where they come from."""
    bilinear, side = InterpolationMode.BILINEAR, x.shape[-1]
    moved: Tensor
    if name == "rotate":
        moved = tv.rotate(x, 3 * level, bilinear)
        return moved
    tilt, shift = math.degrees(math.atan(0.03 * level)), -0.045 * level * side
    shear = {"shear_x": [tilt, 0.0], "shear_y": [0.0, tilt]}.get(name, [0.0, 0.0])
    move = {"translate_x": [shift, 0.0], "translate_y": [0.0, shift]}.get(name, [0.0, 0.0])
    moved = tv.affine(x, 0.0, move, 1.0, shear, bilinear, center=[0.0, 0.0])
    return moved


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_operation_is_torchvisions_where_the_image_reaches(name: str, sign: int) -> None:
    levels = [sign * level for level in LEVELS]
    ours = OPS[name](photos(), torch.tensor(levels))
    for made, x, level in zip(ours, photos(), levels, strict=True):
        reached = affine(torch.ones_like(x), name, level) > 1 - 1e-6
        torch.testing.assert_close(made[reached], affine(x, name, level)[reached], atol=1e-4, rtol=0)
        assert reached.float().mean() > 0.4


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_operation_leaves_grey_where_nothing_comes_in_and_there_alone(name: str) -> None:
    made = OPS[name](torch.ones(1, 3, 32, 32), torch.tensor([10.0]))[0]
    missing, grey = affine(torch.ones(3, 32, 32), name, 10.0) < 1e-6, made == torch.tensor(FILL)
    assert missing.any() and grey[missing].all()
    assert (grey | (made > 1 - 1e-6)).all()  # none is mixed in


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_operation_of_magnitude_zero_is_the_identity(name: str) -> None:
    torch.testing.assert_close(OPS[name](photos(), torch.zeros(4)), photos(), atol=1e-5, rtol=0)


def test_solarize_add_lifts_the_dark_half() -> None:
    values = torch.tensor([0.0, 100.0, 127.0, 128.0, 255.0]).div(255).expand(1, 3, 1, 5)
    lifted = OPS["solarize_add"](values, torch.tensor([10.0]))[0, 0, 0]
    torch.testing.assert_close(lifted * 255, torch.tensor([110.0, 210.0, 237.0, 128.0, 255.0]))


@pytest.mark.parametrize("name", list(OPS))
def test_an_operation_is_timms_on_8_bit_images(name: str) -> None:
    for level in LEVELS:
        to_arg: Any = timm_ops.LEVEL_TO_ARG[TIMM[name]]
        operation: Any = timm_ops.NAME_TO_OP[TIMM[name]]
        args = to_arg(level, timm_ops._HPARAMS_DEFAULT) if to_arg else ()
        args = [abs(arg) for arg in args]  # timm draws the sign in there
        ours = OPS[name](photos(), torch.full((4,), level))
        for made, x in zip(ours, photos(), strict=True):
            image = Image.fromarray(x.mul(255).round().byte().permute(1, 2, 0).numpy())
            how = {"fillcolor": (128,) * 3, "resample": Image.Resampling.BILINEAR}
            theirs = torch.from_numpy(np.array(operation(image, *args, **how)))
            assert (made * 255 - theirs.permute(2, 0, 1)).abs().max() < 1.5


# -- What is drawn -------------------------------------------------------------------------------------------


def drawn(count: int = 30_000, n: int = 2, **changes: float) -> tuple[Tensor, Tensor]:
    u = torch.rand(4 * n, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return random_ops(u, **{"magnitude": 10.0, "std": 0.5, "p": 0.5, **changes})


def test_an_operation_is_used_half_the_time_and_signs_are_even() -> None:
    which, levels = drawn()
    assert (which >= 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (levels < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_all_operations_are_as_likely() -> None:
    which, _ = drawn(p=1.0)
    shares = torch.bincount(which.flatten(), minlength=len(OPS)) / which.numel()
    assert len(shares) == 15 and (shares * 15 - 1).abs().max() < 0.08


def test_magnitudes_are_normal_and_clamped() -> None:
    _, levels = drawn()
    assert (levels.abs() == 10).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert levels.abs().mean().item() == pytest.approx(10 - 0.5 / math.sqrt(2 * math.pi), abs=0.005)
    assert drawn(magnitude=0.3, std=2.0)[1].abs().min() == 0
    assert levels.abs().max() == 10
    assert (drawn(magnitude=4.0, std=0.0)[1].abs() == 4).all()
    assert [part.shape for part in drawn(count=0)] == [(0, 2)] * 2


# -- What is applied -----------------------------------------------------------------------------------------


def test_operations_follow_one_another() -> None:
    first, second = (list(OPS).index(name) for name in ("posterize", "rotate"))
    made = rand_augment(photos(), torch.tensor([[first, second]] * 4), torch.tensor([[5.0, -8.0]] * 4))
    by_hand = OPS["rotate"](OPS["posterize"](photos(), torch.full((4,), 5.0)), torch.full((4,), -8.0))
    assert torch.equal(made, by_hand)


def test_each_row_gets_its_own_bitwise() -> None:
    which, levels = drawn(count=40, p=1.0)
    images = photos(40)
    whole = rand_augment(images.clone(), which, levels)
    for row in range(40):
        alone = rand_augment(images[row : row + 1].clone(), which[row : row + 1], levels[row : row + 1])
        assert torch.equal(whole[row : row + 1], alone)


def test_rows_without_an_operation_keep_every_bit() -> None:
    which, images = torch.tensor([[-1, -1], [2, 2], [-1, 2], [-1, -1]]), photos()
    made = rand_augment(images.clone(), which, torch.zeros(4, 2))
    assert torch.equal(made[[0, 3]], images[[0, 3]]) and torch.equal(made[2], 1 - images[2])


def test_it_comes_after_the_colours_and_before_normalising() -> None:
    view = View(gray_p=1.0, blur_p=1.0, solarize_p=1.0, randaugment=2, randaugment_p=1.0)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    views, before = (
        Views([view], 32, mean, std),
        Views([replace(view, randaugment=0)], 32, (0,) * 3, (1,) * 3),
    )
    params = views.sample(4, 32, 32, torch.Generator().manual_seed(0))
    p = params.views[0]
    assert (p.which >= 0).all()
    plain = replace(params, views=(replace(p, which=p.which[:, :0], levels=p.levels[:, :0]),))
    by_hand = rand_augment(before(photos(), plain)[0], p.which, p.levels)
    torch.testing.assert_close(views(photos(), params)[0], image_ops.normalize(by_hand, mean, std))


def test_values_stay_in_range_at_every_magnitude_and_size() -> None:
    for operation in OPS.values():
        for level, side in ((-10.0, 9), (0.0, 9), (0.1, 9), (10.0, 9), (10.0, 1)):
            made = operation(photos(2, side), torch.full((2,), level))
            assert made.shape == (2, 3, side, side) and made.min() >= 0 and made.max() <= 1
