"""RandAugment (arXiv 1909.13719) on whole batches, with timm's operations.

It follows timm's `rand-m10-n2-mstd0.5` (not "increasing"): each of n operations is drawn anew from the
fifteen, used half the time, at a magnitude from a normal distribution clamped to [0, 10]. As there, the
geometric ones leave middle grey where nothing comes in, and some do less at a higher magnitude. Unlike there,
values are not rounded to 256 levels in between, and the geometric ones are always bilinear (timm: that, or
bicubic).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fullrank.views import colour_ops as colour
from fullrank.views import image_ops as ops

MAX_LEVEL = 10.0
FILL = 128 / 255


def random_ops(u: Tensor, magnitude: float, std: float, p: float) -> tuple[Tensor, Tensor]:
    """Choose the operations of each image and their magnitudes, from uniform numbers.

    Of `u`, [4 n, B] in [0, 1), n say which operation, n whether, n the magnitude and n its sign. Magnitudes
    are normal (`magnitude`, `std`), clamped to [0, 10]; an operation is used with probability `p`. Returned
    are indices into `OPS`, int64 [B, n], -1 where none is used, and magnitudes in [-10, 10], float32 [B, n].

    Example:
        >>> random_ops(torch.tensor([[0.0], [0.3], [0.5], [0.9]]), 9.0, 0.5, 0.5)
        (tensor([[0]]), tensor([[9.]]))
    """
    if not len(u):  # most recipes: they should not pay for it
        return torch.empty(u.shape[1], 0, dtype=torch.int64), torch.empty(u.shape[1], 0)
    which, used, level, sign = u.view(4, len(u) // 4, u.shape[1]).transpose(1, 2)
    number = (which * len(OPS)).long().clamp(max=len(OPS) - 1)
    # the lower bound: no normal number is infinite, which a std of 0 would turn into a NaN
    level = (magnitude + std * torch.special.ndtri(level.clamp(min=1e-12))).clamp(0, MAX_LEVEL)
    return torch.where(used < p, number, -1), torch.where(sign < 0.5, -level, level).float()


def rand_augment(images: Tensor, which: Tensor, levels: Tensor) -> Tensor:
    """Apply each image's operations to [B, 3, H, W] in [0, 1], in place.

    Indices into `OPS` (`which`, -1 does nothing) and magnitudes (`levels`, in [-10, 10], whose sign matters
    to the geometric ones alone) are [B, n] **on the CPU**.

    Example:
        >>> invert = torch.tensor([[list(OPS).index("invert")], [-1]])
        >>> rand_augment(torch.full((2, 3, 4, 4), 0.25), invert, torch.zeros(2, 1))[:, 0, 0, 0]
        tensor([0.7500, 0.2500])
    """
    operations = tuple(OPS.values())
    for numbers, level in zip(which.unbind(1), levels.unbind(1), strict=True):
        for number in sorted(set(numbers.tolist())):
            if number >= 0:
                rows = torch.nonzero(numbers == number).view(-1)  # on the CPU, where it costs no sync
                there, strength = (ops.to_device(v, images.device) for v in (rows, level[rows]))
                images.index_copy_(0, there, operations[number](images.index_select(0, there), strength))
    return images


# -- The operations: images [N, 3, H, W] and magnitudes [N] in [-10, 10] to images ---------------------------


def _share(level: Tensor) -> Tensor:
    return level.abs() / MAX_LEVEL


def _by_torchvision(images: Tensor, _: Tensor, name: str) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    changed: Tensor = getattr(tv, name)(images)
    return changed


def _posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keep 0 to 4 of the 8 bits of a value."""
    step = torch.exp2(8 - (4 * _share(level)).floor()).view(-1, 1, 1, 1)
    return images.mul(255).round_().div_(step).floor_().mul_(step).div_(255)


def _solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert values from a threshold on: magnitude 0 inverts all, 10 none."""
    return colour.solarize(images, (256 * _share(level)).floor_().div_(255).view(-1, 1, 1, 1))


def _solarize_add(images: Tensor, level: Tensor) -> Tensor:
    """Add up to 110/255 to the values below 128/255."""
    lift = (110 * _share(level)).floor_().div_(255).view(-1, 1, 1, 1)
    return torch.where(images < 128 / 255, (images + lift).clamp_(max=1), images)


def _factor(level: Tensor) -> Tensor:
    return 0.1 + 1.8 * _share(level)


def _sharpness(images: Tensor, level: Tensor) -> Tensor:
    """Move pixels from their smoothed values; the border stays, as in PIL."""
    if min(images.shape[-2:]) < 3:
        return images
    out, inner = images.clone(), images[..., 1:-1, 1:-1]
    # PIL's kernel: 5 in the middle, 1 around it
    smooth = functional.avg_pool2d(images, 3, 1).mul_(9).add_(inner, alpha=4).div_(13)
    out[..., 1:-1, 1:-1] = smooth + _factor(level).view(-1, 1, 1, 1) * (inner - smooth)
    return out.clamp_(0, 1)


def _warp(images: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor, x0: Tensor, y0: Tensor) -> Tensor:
    """Take pixel (x, y) from (xx x + xy y + x0, yx x + yy y + y0), bilinearly.

    As in PIL, a pixel is grey where that point lies outside, and what it mixes never is.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device).add(0.5).view(1, 1, -1)
    y = torch.arange(height, device=images.device).add(0.5).view(1, -1, 1)
    xx, xy, yx, yy, x0, y0 = (v.view(-1, 1, 1) for v in (xx, xy, yx, yy, x0, y0))
    column, row = xx * x + xy * y + x0, yx * x + yy * y + y0
    grid = torch.stack([column * (2 / width) - 1, row * (2 / height) - 1], -1)
    out = functional.grid_sample(images, grid, "bilinear", padding_mode="border", align_corners=False)
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    return out.masked_fill_(outside.unsqueeze(1), FILL).clamp_(0, 1)


def _rotate(images: Tensor, level: Tensor) -> Tensor:
    """Up to 30 degrees, counter-clockwise where the magnitude is positive."""
    angle = level * (math.radians(30) / MAX_LEVEL)
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[-1] / 2, images.shape[-2] / 2
    return _warp(images, cos, -sin, sin, cos, x - cos * x + sin * y, y - sin * x - cos * y)


def _shear(images: Tensor, level: Tensor, axis: int) -> Tensor:
    zero, slope = torch.zeros_like(level), level * (0.3 / MAX_LEVEL)
    off_diagonal = (slope, zero) if axis == 0 else (zero, slope)
    return _warp(images, zero + 1, *off_diagonal, zero + 1, zero, zero)


def _translate(images: Tensor, level: Tensor, axis: int) -> Tensor:
    zero, shift = torch.zeros_like(level), level * (0.45 / MAX_LEVEL * images.shape[-1 - axis])
    return _warp(images, zero + 1, zero, zero, zero + 1, *((shift, zero) if axis == 0 else (zero, shift)))


#: The fifteen, by name, in the order that `ViewParams.which` indexes.
OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": partial(_by_torchvision, name="autocontrast"),
    "equalize": partial(_by_torchvision, name="equalize"),
    "invert": lambda images, level: 1 - images,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda images, level: colour.saturation_(images, _factor(level)),
    "contrast": lambda images, level: colour.contrast_(images, _factor(level)),
    "brightness": lambda images, level: colour.brightness_(images, _factor(level)),
    "sharpness": _sharpness,
    "shear_x": partial(_shear, axis=0),
    "shear_y": partial(_shear, axis=1),
    "translate_x": partial(_translate, axis=0),
    "translate_y": partial(_translate, axis=1),
}
