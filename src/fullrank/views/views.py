"""Random views of batches, drawn on the CPU and applied on the device.

`Views.sample` draws every random parameter from a generator, so that a seed decides the views whatever the
device, and whichever rows a process keeps. `Views` applies them in the literature's order: crop and flip,
colour jitter, grey, blur, solarize, RandAugment, rotation, normalise, erase, mix of scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.views import colour_ops as colour
from fullrank.views import image_ops as ops
from fullrank.views.params import Params, RandomNumbers, ViewParams, draw_numbers, draw_params
from fullrank.views.presets import VIEWS, Role, View, ViewSet
from fullrank.views.randaugment import rand_augment


class Views:
    """Random views of batches of images, normalised.

    Args:
        recipe: the name of a preset (`VIEWS`), a `ViewSet`, or the views themselves.
        image_size: side S of a view of size 1, in pixels.
        mean: per channel, subtracted from values in [0, 1]; `std` divides them.

    Raises:
        UnknownNameError: no such preset.
        UsageError: no view, no size, or a mean and std that are not three numbers (std above 0).

    Example:
        >>> images = torch.randint(0, 256, (8, 3, 40, 48), dtype=torch.uint8)
        >>> [tuple(view.shape) for view in Views("simsiam-cifar", image_size=32)(images)]
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

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each view in pixels: see `View.side`."""
        return tuple(view.side(self.image_size) for view in self.recipe)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Branch of a method that sees each view: "source", "target" or "both"."""
        return tuple(view.role for view in self.recipe)

    def sample(
        self, batch_size: int, height: int | Tensor, width: int | Tensor, generator: torch.Generator
    ) -> Params:
        """Draw all parameters of all views of a batch of B images.

        How far the generator, on the CPU, moves depends on B and the recipe only, and where no view mixes
        scales or uses RandAugment, on B and the number of views: such recipes share the stream. Heights and
        widths in pixels are one number, or [B] where the images differ.

        Raises:
            UsageError: an image without pixels.
        """
        return self._params(self.random_numbers(batch_size, generator), height, width)

    def random_numbers(self, batch_size: int, generator: torch.Generator) -> RandomNumbers:
        """Draw the random numbers of a batch, before its images are known; see `sample`."""
        return draw_numbers(self.recipe, batch_size, generator)

    def make(self, images: Tensor | Sequence[Tensor], numbers: RandomNumbers) -> list[Tensor]:
        """Make the views that `sample` and a call, or `finish`, would make of images.

        The images are [B, 3, H, W], or the crops that workers cut, [B, 3, s, s] each.

        Raises:
            UsageError: the images are of another shape or type than that.

        Example:
            >>> views, images = Views("simsiam-cifar", image_size=32), torch.rand(8, 3, 40, 48)
            >>> made = views.make(images, views.random_numbers(8, torch.Generator().manual_seed(0)))
            >>> params = views.sample(8, 40, 48, torch.Generator().manual_seed(0))
            >>> torch.equal(made[1], views(images, params)[1])
            True
        """
        if isinstance(images, Tensor):
            return self(images, self._params(numbers, *images.shape[2:]))
        return self.finish(images, self._params(numbers, *images[0].shape[2:]))

    def _params(self, numbers: RandomNumbers, height: int | Tensor, width: int | Tensor) -> Params:
        h, w = (torch.as_tensor(v, dtype=torch.int64).expand(len(numbers)) for v in (height, width))
        if len(numbers) and not (h.min() > 0 and w.min() > 0):
            raise UsageError("an image has no pixels; heights and widths start at 1")
        return draw_params(self.recipe, self.sizes, h, w, numbers)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, params: Params | None = None, *, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Make the views of images [B, 3, H, W], uint8 or float in [0, 1].

        Each is float32 [B, 3, s, s] for its side s, normalised, in new memory.

        Args:
            images: a batch, on any device.
            params: from `sample`; None draws new ones.
            generator: on the CPU, that these are drawn from; None is PyTorch's own.

        Raises:
            UsageError: the images are of another shape or type than that.

        Example:
            >>> views, images = Views("simsiam-cifar", image_size=32), torch.rand(8, 3, 40, 48)
            >>> one = views(images, generator=torch.Generator().manual_seed(0))
            >>> same = views(images, views.sample(8, 40, 48, torch.Generator().manual_seed(0)))
            >>> torch.equal(one[0], same[0])
            True
        """
        if params is None:
            self._check(images, len(images))
            return self.make(images, self.random_numbers(len(images), generator or torch.default_generator))
        height, width = self._check(images, len(params))
        if not bool((params.height == height).all() and (params.width == width).all()):
            raise UsageError(f"images are {height}x{width}, but the views were sampled for another size")
        with torch.autocast(images.device.type, enabled=False):
            images = ops.to_float(images)
            out = []
            for view, p, side in zip(self.recipe, params.views, self.sizes, strict=True):
                crops = (self._crop(images, view, v.crop, v.flip, side) for v in p.versions)
                out.append(self._finish(crops, view, p))
            return out

    @torch.no_grad()
    def clean(self, images: Tensor) -> Tensor:
        """Make the view for evaluation, [B, 3, S, S]: centre of the resized images."""
        batch, _, height, width = images.shape
        whole = torch.tensor([[0, 0, height, width]]).expand(batch, 4)
        view = View(interpolation=self.recipe[0].interpolation)
        with torch.autocast(images.device.type, enabled=False):
            crop = self._crop(ops.to_float(images), view, whole, None, self.image_size)
            return ops.normalize(crop, self.mean, self.std)

    def crop_in_worker(self, image: Tensor, params: Params, row: int) -> list[Tensor]:
        """Crop and flip one image, uint8 [3, h, w], by torchvision, for loader workers.

        Its size is that of its row in `params`, from `sample`. Returned are uint8 [3, s, s] per view in their
        order, and two in a row for a view that mixes scales; stack each over the batch for `finish`.
        """
        from torchvision.transforms import v2

        how, out = v2.functional, []
        for view, p, side in zip(self.recipe, params.views, self.sizes, strict=True):
            kernel, size = v2.InterpolationMode(view.interpolation), [side] * 2
            for version in p.versions:
                if view.crop is None:
                    cut = how.center_crop(how.resize(image, size[:1], kernel, antialias=True), size)
                else:
                    cut = how.resized_crop(image, *version.crop[row].tolist(), size, kernel, antialias=True)
                out.append(how.horizontal_flip(cut) if version.flip[row] else cut)
        return out

    @torch.no_grad()
    def finish(self, crops: Sequence[Tensor], params: Params) -> list[Tensor]:
        """Make views of the crops [B, 3, s, s] that `crop_in_worker` cut.

        Raises:
            UsageError: the crops are of another number, shape or type than that.
        """
        needed = sum(len(p.versions) for p in params.views)
        if len(crops) != needed:
            raise UsageError(f"crops are {len(crops)} tensors; give {needed}, one for each that a worker cut")
        out, left = [], iter(crops)
        for view, p, side in zip(self.recipe, params.views, self.sizes, strict=True):
            mine = [next(left) for _ in p.versions]
            for crop in mine:
                if self._check(crop, len(params)) != (side, side):
                    expected = f"[{len(params)}, 3, {side}, {side}]"
                    raise UsageError(f"crops are {tuple(crop.shape)}; give {expected}")
            with torch.autocast(mine[0].device.type, enabled=False):
                fresh = (crop.clone() if crop.dtype == torch.float32 else ops.to_float(crop) for crop in mine)
                out.append(self._finish(fresh, view, p))
        return out

    def _check(self, images: Tensor, batch: int) -> tuple[int, int]:
        if images.ndim != 4 or images.shape[1] != 3 or len(images) != batch:
            raise UsageError(f"images are {tuple(images.shape)}; give [{batch}, 3, height, width]")
        return images.shape[2], images.shape[3]

    def _crop(self, images: Tensor, view: View, box: Tensor, flip: Tensor | None, size: int) -> Tensor:
        """Resize boxes [B, 4] of images; without crop, the middle of the whole."""
        device, (height, width) = images.device, images.shape[-2:]
        top, left, h, w = ops.to_device(box, device).unbind(1)
        flip = None if flip is None else ops.to_device(flip, device)
        if view.crop is not None and flip is not None:
            upright = torch.zeros_like(flip)
            rows = ops.crop_matrix(height, size, top, h, upright, view.interpolation)
            columns = ops.crop_matrix(width, size, left, w, flip, view.interpolation)
            return ops.separable(images, rows, columns)
        full_h, full_w = (size * side // min(height, width) for side in (height, width))
        off_h, off_w = round((full_h - size) / 2), round((full_w - size) / 2)
        rows = ops.resample_matrix(height, size, top, h, None, view.interpolation, full_h, off_h)
        columns = ops.resample_matrix(width, size, left, w, flip, view.interpolation, full_w, off_w)
        return ops.separable(images, rows, columns)

    def _finish(self, crops: Iterator[Tensor], view: View, p: ViewParams) -> Tensor:
        """Apply everything after crop and flip, to every version. Overwrites the crops."""
        # `next`, not a loop: no name keeps a crop's memory, so that the next stage finds it warm
        made = [self._version(next(crops), view, version) for version in p.versions]
        if not view.scale_mix:
            return made[0]
        return ops.paste(*made, *ops.to_device(p.mix, made[0].device).unbind(1))

    def _version(self, images: Tensor, view: View, p: ViewParams) -> Tensor:
        """Apply everything but the mix of scales, to one version. Overwrites `images`."""
        device, size = images.device, images.shape[-1]

        def on_rows(picked: Tensor, op: Callable[[Tensor, Tensor], Tensor]) -> None:
            rows = torch.nonzero(picked).view(-1)  # on the CPU, where it costs no sync
            if len(rows):
                there = ops.to_device(rows, device)
                images.index_copy_(0, there, op(images.index_select(0, there), rows))

        def blur(chosen: Tensor, rows: Tensor) -> Tensor:
            sigma = ops.to_device(p.sigma[rows], device)
            weights = ops.blur_matrix(size, sigma, radius=math.ceil(3 * view.blur_sigma[1]))
            return ops.separable(chosen, weights, weights)

        colour.color_jitter(images, p.jitter, p.order, p.factors)
        on_rows(p.gray, lambda chosen, _: colour.grayscale(chosen))
        on_rows(p.blur, blur)
        on_rows(p.solarize, lambda chosen, _: colour.solarize(chosen))
        rand_augment(images, p.which, p.levels)
        if view.rotation:
            images = ops.rotate(images, ops.to_device(p.degrees, device), view.rotation_interpolation)
        out = ops.normalize(images, self.mean, self.std)
        return ops.erase(out, *ops.to_device(p.erase, device).unbind(1)) if view.erase_p else out


def sheet(images: Tensor, views: Views, params: Params, cell: int = 64) -> NDArray[np.uint8]:
    """Picture of sampled views: a row per image, the un-augmented one first.

    The views are un-normalised, with white lines between the cells, whose least side is `cell` pixels.
    Smaller views are enlarged by a whole factor; what is then still smaller lies in the middle, on white.

    Example:
        >>> views, images = Views("none", 32), torch.zeros(2, 3, 32, 32)
        >>> sheet(images, views, views.sample(2, 32, 32, torch.Generator())).shape
        (132, 198, 3)
    """
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (views.mean, views.std))
    side, cells = math.ceil(cell / views.image_size) * views.image_size, []
    for view in (views.clean(images), *views(images, params)):
        pixels = (view.cpu() * std + mean).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        zoom = side // pixels.shape[-1]
        pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
        before, behind = (side - pixels.shape[-1]) // 2, (side - pixels.shape[-1] + 1) // 2
        cells.append(torch.nn.functional.pad(pixels, (before, behind, before, behind), value=255))
    pixels = torch.nn.functional.pad(torch.stack(cells, 1), (1, 2, 1, 2), value=255)[..., :-1, :-1]
    rows, columns, _, high, wide = pixels.shape
    return pixels.permute(0, 3, 1, 4, 2).reshape(rows * high, columns * wide, 3).numpy()


def save_sheet(path: str | Path, images: Tensor, views: Views, params: Params, cell: int = 64) -> None:
    """Write `sheet(...)` as an image file of the type that the path's suffix names."""
    from PIL import Image

    Image.fromarray(sheet(images, views, params, cell)).save(path)
