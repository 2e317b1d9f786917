"""Crops, blurs and boxes on whole batches, every image with parameters of its own.

Images are float [B, 3, H, W] in [0, 1], on any device; per-image parameters are [B] on the same device.
Crops, resizing and blurs are linear and separable: a dense weight matrix per axis, two matrix products.
The results are those of `torchvision.transforms.v2.functional`, the oracle in the tests, and no row's result
depends on the other rows of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fullrank.errors import UsageError

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Range = tuple[float, float]

STAGED = 2**16  # bytes that a GPU's driver sets aside at once; more of unpinned memory waits for its turn
TABLE = 2**27  # most bytes of weights that are kept to be looked up: sides of 64 pixels fit


def to_float(images: Tensor) -> Tensor:
    """Cast images to float32: uint8 is divided by 255; UsageError for integers.

    Example:
        >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255)
    if images.is_floating_point():
        return images.to(torch.float32)
    raise UsageError(f"images are {images.dtype}; give uint8 in 0..255 or floats in [0, 1]")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Send a small CPU tensor without waiting for the device."""
    if device.type == "cuda" and values.nbytes > STAGED:
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def random_sizes(
    areas: Tensor, ratios: Tensor, height: Tensor, width: Tensor, area: Range, ratio: Range, margin: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Sides of random boxes: the first of T tries that fits, as in torchvision.

    The share `area` of `height * width` (int64 [B], pixels) and the `ratio` of width over height, on a log
    scale, lie in (low, high) where the uniform numbers `areas` and `ratios` [T, B] say. Boxes must be smaller
    by `margin` pixels on each axis. Returned are heights, widths, int64 [B], and bool [B]: whether a try
    fitted.

    Example:
        >>> half, ten = torch.full((1, 1), 0.5), torch.tensor([10])
        >>> random_sizes(half, half, ten, ten, area=(0.0, 0.5), ratio=(0.5, 2.0))
        (tensor([5]), tensor([5]), tensor([True]))
    """
    root = (height * width * (area[0] + (area[1] - area[0]) * areas)).sqrt_()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    stretch = (low + (high - low) * ratios).div_(2).exp_()
    h, w = (root / stretch).round_().long(), (root * stretch).round_().long()
    fits = (h > 0) & (w > 0) & (h <= height - margin) & (w <= width - margin)
    first = fits.int().argmax(0, keepdim=True)
    return h.gather(0, first)[0], w.gather(0, first)[0], fits.any(0)


def resample_matrix(
    size_in: int,
    size_out: int,
    start: Tensor,
    length: Tensor,
    flip: Tensor | None = None,
    interpolation: Interpolation = "bicubic",
    full: int | None = None,
    offset: int = 0,
) -> Tensor:
    """Weights of an antialiased crop and resize along one axis, mirrored where asked.

    Pixels `start` to `start + length` become `size_out` pixels. The kernel widens where it shrinks the image
    and never looks outside the box: a crop and then a resize with `antialias=True`, as one linear map.

    Args:
        size_in: pixels of the images along this axis, of which `size_out` are wanted.
        start: [B] first pixel of each box, whole numbers from 0 on.
        length: [B] pixels of each box, at least 1; `start + length <= size_in`.
        flip: [B] bool, where to mirror; None mirrors nothing.
        interpolation: "bicubic" (Keys, a = -0.5) or "bilinear"; else UsageError.
        full: pixels the box is resized to where only a window, from `offset` on, is wanted; None: `size_out`.

    Returns:
        float32 [B, size_out, size_in] on the device of `start`; every row sums to 1.

    Example:
        >>> resample_matrix(4, 2, torch.tensor([0]), torch.tensor([4]), interpolation="bilinear")
        tensor([[[0.4286, 0.4286, 0.1429, 0.0000],
                 [0.0000, 0.1429, 0.4286, 0.4286]]])
    """
    device = start.device
    start, length = (v.to(torch.float32).view(-1, 1, 1) for v in (start, length))
    scale = length / (full or size_out)
    row = torch.arange(size_out, device=device, dtype=torch.float32).view(1, -1, 1)
    if flip is not None:
        row = torch.where(flip.view(-1, 1, 1), size_out - 1 - row, row)
    pixel = torch.arange(size_in, device=device, dtype=torch.float32) - start  # [B, 1, size_in], in the box
    pixel.masked_fill_((pixel < 0) | (pixel >= length), math.inf)  # so far off that they weigh nothing
    distance = (pixel + 0.5 - scale * (row + (offset + 0.5))).abs_().div_(scale.clamp(min=1))
    if interpolation == "bilinear":
        weights = distance.neg_().add_(1).clamp_(min=0)
    elif interpolation == "bicubic":
        near, far = distance.clamp(max=1), distance.clamp_(1, 2)  # each polynomial is 0 at its clamped ends
        weights = near.mul(1.5).sub_(2.5).mul_(near).mul_(near).add_(1)
        weights.sub_((far - 1).mul_(far.sub_(2).square_()).mul_(0.5))
    else:
        raise UsageError(f"cannot resample by {interpolation!r}; use 'bicubic' or 'bilinear'")
    return weights.div_(weights.sum(-1, keepdim=True))


def crop_matrix(
    size_in: int, size_out: int, start: Tensor, length: Tensor, flip: Tensor, interpolation: Interpolation
) -> Tensor:
    """Look up the weights of `resample_matrix`: small images have few boxes.

    Arguments and result [B, size_out, size_in] are as there.
    """
    entries = size_in * (size_in + 1) * size_out * size_in
    if 4 * entries > TABLE or torch.compiler.is_compiling():  # a compiler would make the table at every call
        return resample_matrix(size_in, size_out, start, length, flip, interpolation)
    table = _every_crop(size_in, size_out, interpolation, start.device)
    shorter_starts = start * size_in - start * (start - 1) // 2  # boxes that begin before `start`
    return table.index_select(0, 2 * (shorter_starts + length - 1) + flip)


@lru_cache(maxsize=8)
def _every_crop(size_in: int, size_out: int, interpolation: Interpolation, device: torch.device) -> Tensor:
    """Weights of all boxes, by start, then length, plain and then mirrored."""
    start, last = torch.triu_indices(size_in, size_in, device=device).repeat_interleave(2, dim=1)
    mirrored = torch.arange(len(start), device=device) % 2 == 1
    return resample_matrix(size_in, size_out, start, last - start + 1, mirrored, interpolation)


@lru_cache(maxsize=16)
def _reflections(size: int, radius: int, device: torch.device) -> Tensor:
    """Count pixels, or mirror images, at each distance: [radius + 1, size * size]."""
    i, o = torch.arange(size, device=device), torch.arange(size, device=device).view(-1, 1)
    at, last = torch.arange(radius + 1, device=device).view(-1, 1, 1), size - 1
    before, behind = (at == i + o) & (i > 0), (at == 2 * last - i - o) & (i < last)
    return ((at == (i - o).abs()).float() + before + behind).flatten(1)


def blur_matrix(size: int, sigma: Tensor, radius: int) -> Tensor:
    """Weights of a Gaussian blur along an axis, borders reflected: [B, size, size].

    `sigma` [B] is in pixels; the kernel reaches `radius` pixels to either side, at most `size - 1`. It equals
    a torchvision `gaussian_blur` of kernel size `2 * radius + 1`.

    Example:
        >>> blur_matrix(3, torch.tensor([1e-3]), 2)[0].diagonal()
        tensor([1., 1., 1.])
    """
    radius = min(radius, size - 1)
    step = torch.arange(radius + 1, device=sigma.device, dtype=torch.float32) / sigma.view(-1, 1)
    kernel = step.square_().mul_(-0.5).exp_()
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - 1)  # both sides; the centre is 1 and counts once
    return (kernel @ _reflections(size, radius, sigma.device)).view(-1, size, size)


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Map rows and columns of every image [B, C, H, W] linearly, clamped to [0, 1].

    Weights are `rows` [B, H_out, H] and `columns` [B, W_out, W].

    Example:
        >>> image = torch.rand(1, 3, 4, 4)
        >>> mirror = resample_matrix(4, 4, torch.tensor([0]), torch.tensor([4]), flip=torch.tensor([True]))
        >>> torch.equal(separable(image, torch.eye(4)[None], mirror), image.flip(-1))
        True
    """
    down, right = -images.shape[2] % 16, -images.shape[3] % 16
    if down or right:  # every matrix starts on 64 bytes: else its place in the batch decides how MKL rounds
        images = functional.pad(images, (0, right, 0, down))
        rows, columns = functional.pad(rows, (0, down)), functional.pad(columns, (0, right))
    batch, channels, height, width = images.shape
    along = torch.bmm(images.reshape(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows.unsqueeze(1), along.view(batch, channels, height, -1)).clamp_(0, 1)


def rotate(images: Tensor, degrees: Tensor, interpolation: Interpolation = "nearest") -> Tensor:
    """Turn images [B, C, H, W] by `degrees` [B], counter-clockwise, over zeros.

    Raises:
        UsageError: the interpolation is neither "nearest" nor "bilinear".

    Example:
        >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([90.0]))
        tensor([[[[2., 4.],
                  [1., 3.]]]])
    """
    if interpolation == "bicubic":
        raise UsageError("rotation cannot be 'bicubic'; use 'nearest' or 'bilinear'")
    height, width = images.shape[-2:]
    angle = degrees.to(torch.float32).mul(math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos / width, -sin / width, sin / height, cos / height], 1).mul_(2).view(-1, 2, 2)
    x = torch.arange(width, device=images.device, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=torch.float32) - (height - 1) / 2
    centred = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(1, -1, 2)
    grid = torch.matmul(centred, matrix.transpose(1, 2)).view(-1, height, width, 2)
    return functional.grid_sample(images, grid, interpolation, padding_mode="zeros", align_corners=False)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(images - mean) / std` per channel, as a new tensor.

    Example:
        >>> normalize(torch.ones(1, 3, 1, 1), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0)).flatten()
        tensor([2.0000, 1.0000, 0.5000])
    """
    shift, scale = to_device(torch.tensor([[*mean], [*std]]), images.device).view(2, -1, 1, 1)
    return images.sub(shift).div_(scale)


def box_mask(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Pixels of images that lie in their boxes: bool [B, 1, H, W]."""
    y = torch.arange(images.shape[-2], device=images.device).view(1, -1, 1)
    x = torch.arange(images.shape[-1], device=images.device).view(1, 1, -1)
    top, left, height, width = (v.view(-1, 1, 1) for v in (top, left, height, width))
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return inside.unsqueeze(1)


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set a box of every image [B, C, H, W] to 0 in place, unless it is empty.

    Example:
        >>> erase(torch.ones(1, 1, 2, 3), *(torch.tensor([v]) for v in (0, 1, 1, 2)))
        tensor([[[[1., 0., 0.],
                  [1., 1., 1.]]]])
    """
    return images.masked_fill_(box_mask(images, top, left, height, width), 0)


def paste(images: Tensor, others: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Paste a box of each of `others` [B, C, H, W] into a copy of `images`.

    Example:
        >>> paste(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3), *torch.tensor([[0], [1], [1], [2]]))
        tensor([[[[0., 1., 1.],
                  [0., 0., 0.]]]])
    """
    return torch.where(box_mask(images, top, left, height, width), others, images)
