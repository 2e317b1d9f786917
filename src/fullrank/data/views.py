"""Views: random augmentations of whole batches, drawn on the CPU and applied on the device.

`Views.sample` draws every random parameter from a generator, so that a seed decides the views whatever the
device, and whichever rows a process keeps. `Views` applies them in the literature's order: crop and flip,
colour jitter, grey, blur, solarize, rotation, normalise, erase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fullrank.data import image_ops as ops
from fullrank.data.view_presets import VIEWS, View, ViewSet
from fullrank.errors import UsageError

__all__ = ["VIEWS", "Params", "View", "ViewParams", "ViewSet", "Views", "save_sheet", "sheet"]

TRIES = 10  # rejected boxes before the fallback, as in torchvision
DRAWS = 60  # uniform numbers per sample and view, used or not: recipes share the stream; later draws go last


@dataclass(frozen=True)
class ViewParams:
    """What was drawn for one view of a batch: CPU tensors of B rows.

    Attributes:
        crop: int64 [B, 4] top, left, height, width, in pixels of the image.
        flip: bool [B]; so are `jitter`, `gray`, `blur` and `solarize`: whether to.
        order: int64 [B], indexes `image_ops.JITTER_ORDERS`.
        factors: float32 [B, 4] brightness, contrast, saturation and hue.
        sigma: float32 [B] of the blur, in pixels of the view.
        degrees: float32 [B], counter-clockwise.
        erase: int64 [B, 4] top, left, height, width, in pixels of the view; without area where nothing goes.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    factors: Tensor
    gray: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor
    degrees: Tensor
    erase: Tensor


@dataclass(frozen=True)
class Params:
    """What was drawn for every view of a batch of images whose sizes are `height` and `width`, int64 [B]."""

    height: Tensor
    width: Tensor
    views: tuple[ViewParams, ...]

    def __len__(self) -> int:
        return len(self.height)

    def rows(self, index: slice | Sequence[int] | Tensor) -> Params:
        """Those of some rows: their views are bitwise the ones that the whole batch would give them.

        Example:
            >>> params = Views("none", 4).sample(6, 4, 4, torch.Generator())
            >>> len(params.rows(slice(1, 3))), len(params.rows([5]))
            (2, 1)
        """
        at = index if isinstance(index, slice) else torch.as_tensor(index)
        views = (ViewParams(**{f.name: getattr(v, f.name)[at] for f in fields(v)}) for v in self.views)
        return Params(self.height[at], self.width[at], tuple(views))


def _place(u: Tensor, room: Tensor) -> Tensor:
    """A whole number from 0 to `room`, each as likely."""
    return torch.minimum((u * (room + 1)).long(), room)


def _draw(view: View, u: Tensor, height: Tensor, width: Tensor, size: int) -> ViewParams:
    """Parameters from uniform numbers `u` [DRAWS, B]. Their order is fixed: it decides what a seed means."""
    crop_areas, crop_ratios, erase_areas, erase_ratios = u[: 4 * TRIES].view(4, TRIES, -1)
    row = iter(u[4 * TRIES :].unbind())

    def chance(p: float) -> Tensor:
        return next(row) < p

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * next(row)).float()

    area = view.crop or (1.0, 1.0)
    h, w, found = ops.random_sizes(crop_areas, crop_ratios, height, width, area, view.ratio)
    # torchvision's fallback: the largest centred box whose ratio is allowed.
    h = torch.where(found, h, torch.minimum(height, (width / view.ratio[0]).round().long()))
    w = torch.where(found, w, torch.minimum(width, (height * view.ratio[1]).round().long()))
    top, left = (torch.where(found, _place(next(row), r), r // 2) for r in (height - h, width - w))
    whole = (torch.zeros_like(height), torch.zeros_like(width), height, width)
    crop = torch.stack(whole if view.crop is None else (top, left, h, w), 1)
    flip, jitter = chance(view.flip_p), chance(view.jitter_p)
    order = _place(next(row), torch.tensor(len(ops.JITTER_ORDERS) - 1))
    scales = [uniform(max(0.0, 1 - s), 1 + s) for s in (view.brightness, view.contrast, view.saturation)]
    factors = torch.stack([*scales, uniform(-view.hue, view.hue)], 1)
    gray, blur, sigma = chance(view.gray_p), chance(view.blur_p), uniform(*view.blur_sigma)
    solarize, degrees = chance(view.solarize_p), uniform(-view.rotation, view.rotation)
    side, area, ratio = torch.full_like(height, size), view.erase_area, view.erase_ratio
    # The erased box states height over width, and torchvision keeps it smaller than the view on both sides.
    w, h, found = ops.random_sizes(erase_areas, erase_ratios, side, side, area, ratio, margin=1)
    erased = chance(view.erase_p) & found
    box = torch.stack([*(_place(next(row), (side - v).clamp(min=0)) for v in (h, w)), h, w], 1)
    return ViewParams(
        crop, flip, jitter, order, factors, gray, blur, sigma, solarize, degrees, box * erased.view(-1, 1)
    )


class Views:
    """Turns a batch of images into its random views, normalised.

    Args:
        recipe: the name of a preset (`VIEWS`), a `ViewSet`, or the views themselves.
        image_size: side S of the views, in pixels.
        mean: per channel, subtracted from values in [0, 1].
        std: per channel, divided by.

    Raises:
        UnknownNameError: no such preset.
        UsageError: no view, no size, or a mean and std that are not three numbers (std above 0).

    Example:
        >>> views = Views("simsiam-cifar", image_size=32)
        >>> images = torch.randint(0, 256, (8, 3, 40, 48), dtype=torch.uint8)
        >>> params = views.sample(8, 40, 48, torch.Generator().manual_seed(0))
        >>> [tuple(view.shape) for view in views(images, params)]
        [(8, 3, 32, 32), (8, 3, 32, 32)]
    """

    def __init__(
        self,
        recipe: str | ViewSet | Sequence[View],
        image_size: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        views = VIEWS[recipe] if isinstance(recipe, str) else recipe
        self.recipe = views.views if isinstance(views, ViewSet) else tuple(views)
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        if not self.recipe:
            raise UsageError("no views to make; give at least one View or a preset's name")
        if image_size < 1:
            raise UsageError(f"image_size is {image_size}; give the side of the views in pixels, at least 1")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise UsageError(f"mean {self.mean} and std {self.std}: give three numbers each, std above 0")

    def sample(
        self, batch_size: int, height: int | Tensor, width: int | Tensor, generator: torch.Generator
    ) -> Params:
        """Draws all parameters of all views; how far the generator moves depends on B and their number only.

        Args:
            batch_size: B.
            height: of the images in pixels; one number, or [B] where they differ.
            width: likewise.
            generator: on the CPU; seeded by whoever calls.

        Raises:
            UsageError: an image without pixels.
        """
        h, w = (torch.as_tensor(v, dtype=torch.int64).expand(batch_size) for v in (height, width))
        if batch_size and not (h.min() > 0 and w.min() > 0):
            raise UsageError("an image has no pixels; heights and widths start at 1")
        u = torch.rand(len(self.recipe), DRAWS, batch_size, generator=generator, dtype=torch.float64)
        drawn = (_draw(view, u[i], h, w, self.image_size) for i, view in enumerate(self.recipe))
        return Params(h, w, tuple(drawn))

    @torch.no_grad()
    def __call__(self, images: Tensor, params: Params) -> list[Tensor]:
        """The views of a batch: float32 [B, 3, S, S] each, normalised, new memory, on the images' device.

        Args:
            images: uint8, or float in [0, 1], [B, 3, H, W].
            params: from `sample`, for this B, H and W.

        Raises:
            UsageError: the images are of another shape or type than that.
        """
        height, width = self._check(images, params)
        if not bool((params.height == height).all() and (params.width == width).all()):
            raise UsageError(f"images are {height}x{width}, but the views were sampled for another size")
        with torch.autocast(images.device.type, enabled=False):
            images = ops.to_float(images)
            pairs = [*zip(self.recipe, params.views, strict=True)]
            return [self._finish(self._crop(images, view, p.crop, p.flip), view, p) for view, p in pairs]

    @torch.no_grad()
    def clean(self, images: Tensor) -> Tensor:
        """The view for evaluation, float32 [B, 3, S, S]: shortest side resized, centre kept, normalised.

        Args:
            images: uint8, or float in [0, 1], [B, 3, H, W].
        """
        batch, _, height, width = images.shape
        whole = torch.tensor([[0, 0, height, width]]).expand(batch, 4)
        view = View(interpolation=self.recipe[0].interpolation)
        with torch.autocast(images.device.type, enabled=False):
            return ops.normalize(self._crop(ops.to_float(images), view, whole, None), self.mean, self.std)

    def crop_in_worker(self, image: Tensor, params: Params, row: int) -> list[Tensor]:
        """Crop and flip of one image by torchvision, for loader workers whose images differ in size.

        Args:
            image: uint8 [3, h, w].
            params: from `sample`, with this image's size in its row.
            row: which row of the batch the image is.

        Returns:
            uint8 [3, S, S] per view; stack them over the batch and hand them to `finish`.
        """
        from torchvision.transforms import v2

        how, size = v2.functional, [self.image_size] * 2
        out = []
        for view, p in zip(self.recipe, params.views, strict=True):
            kernel = v2.InterpolationMode(view.interpolation)
            if view.crop is None:
                cut = how.center_crop(how.resize(image, size[:1], kernel, antialias=True), size)
            else:
                cut = how.resized_crop(image, *p.crop[row].tolist(), size, kernel, antialias=True)
            out.append(how.horizontal_flip(cut) if p.flip[row] else cut)
        return out

    @torch.no_grad()
    def finish(self, crops: Sequence[Tensor], params: Params) -> list[Tensor]:
        """What remains after `crop_in_worker`, on the device: crops [B, 3, S, S] per view to views."""
        out, side = [], self.image_size
        for view, p, crop in zip(self.recipe, params.views, crops, strict=True):
            if self._check(crop, params) != (side, side):
                raise UsageError(f"crops are {tuple(crop.shape)}; give [{len(params)}, 3, {side}, {side}]")
            with torch.autocast(crop.device.type, enabled=False):
                pixels = ops.to_float(crop)
                out.append(self._finish(pixels.clone() if pixels is crop else pixels, view, p))
        return out

    def _check(self, images: Tensor, params: Params) -> tuple[int, int]:
        if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(params):
            raise UsageError(f"images are {tuple(images.shape)}; give [{len(params)}, 3, height, width]")
        return images.shape[2], images.shape[3]

    def _crop(self, images: Tensor, view: View, box: Tensor, flip: Tensor | None) -> Tensor:
        """Boxes [B, 4] of float images as [B, 3, S, S]; for a view without crop, the middle of the whole."""
        size, device, (height, width) = self.image_size, images.device, images.shape[-2:]
        full_h, full_w = size, size
        if view.crop is None:
            full_h, full_w = (size * side // min(height, width) for side in (height, width))
        top, left, h, w = ops.to_device(box, device).unbind(1)
        flip = None if flip is None else ops.to_device(flip, device)
        off_h, off_w = round((full_h - size) / 2), round((full_w - size) / 2)
        rows = ops.resample_matrix(height, size, top, h, None, view.interpolation, full_h, off_h)
        columns = ops.resample_matrix(width, size, left, w, flip, view.interpolation, full_w, off_w)
        return ops.separable(images, rows, columns)

    def _finish(self, images: Tensor, view: View, p: ViewParams) -> Tensor:
        """Everything after crop and flip. Overwrites `images`."""
        device, size = images.device, self.image_size

        def on_rows(picked: Tensor, op: Callable[[Tensor, Tensor], Tensor]) -> None:
            rows = torch.nonzero(picked).view(-1)  # on the CPU, where it costs no sync
            if len(rows):
                there = ops.to_device(rows, device)
                images.index_copy_(0, there, op(images.index_select(0, there), rows))

        def blur(chosen: Tensor, rows: Tensor) -> Tensor:
            sigma = ops.to_device(p.sigma[rows], device)
            weights = ops.blur_matrix(size, sigma, radius=math.ceil(3 * view.blur_sigma[1]))
            return ops.separable(chosen, weights, weights)

        ops.color_jitter(images, p.jitter, p.order, p.factors)
        on_rows(p.gray, lambda chosen, _: ops.grayscale(chosen))
        on_rows(p.blur, blur)
        on_rows(p.solarize, lambda chosen, _: ops.solarize(chosen))
        if view.rotation:
            images = ops.rotate(images, ops.to_device(p.degrees, device), view.rotation_interpolation)
        out = ops.normalize(images, self.mean, self.std)
        return ops.erase(out, *ops.to_device(p.erase, device).unbind(1)) if view.erase_p else out


def sheet(images: Tensor, views: Views, params: Params, cell: int = 64) -> NDArray[np.uint8]:
    """A picture of sampled views: a row per image, first the un-augmented one, then its views.

    Args:
        images: uint8, or float in [0, 1], [B, 3, H, W].
        views: makes them.
        params: from `views.sample`, for this batch.
        cell: least side of a cell in pixels; smaller views are enlarged by a whole factor.

    Returns:
        [height, width, 3], un-normalised, with white lines between the cells.

    Example:
        >>> views, images = Views("none", 32), torch.zeros(2, 3, 32, 32)
        >>> sheet(images, views, views.sample(2, 32, 32, torch.Generator())).shape
        (132, 198, 3)
    """
    cells = torch.stack([views.clean(images), *views(images, params)], 1).cpu()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (views.mean, views.std))
    pixels = (cells * std + mean).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    zoom = math.ceil(cell / views.image_size)
    pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    pixels = torch.nn.functional.pad(pixels, (1, 2, 1, 2), value=255)[..., :-1, :-1]
    rows, columns, _, high, wide = pixels.shape
    return pixels.permute(0, 3, 1, 4, 2).reshape(rows * high, columns * wide, 3).numpy()


def save_sheet(path: str | Path, images: Tensor, views: Views, params: Params, cell: int = 64) -> None:
    """Writes `sheet(...)` as an image file of the type that the path's suffix names."""
    from PIL import Image

    Image.fromarray(sheet(images, views, params, cell)).save(path)
