"""Views by masks in place of branches, for fast devices with slow launches.

`Views` picks the images that each change applies to, which saves a CPU half of the work and asks a GPU for
hundreds of small operations. Here every change is computed for every image and taken where chance says so: no
shape depends on chance, equal recipes go through together, and parameters are worked out where the images
are. That is two thirds of the operations, and one graph to a compiler.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.views import colour_ops as colour
from fullrank.views import image_ops as ops
from fullrank.views.params import RandomNumbers, ViewParams, alike, draw_view
from fullrank.views.presets import View
from fullrank.views.views import Views


class DenseViews(Views):
    """`Views` whose `make` gives the same views to rounding, by masks.

    Views with RandAugment are refused (UsageError): its fifteen operations are too many to do all. `compiled`
    is a mode of `torch.compile`, as "default"; None runs operation by operation.

    Example:
        >>> plain = Views("simsiam-cifar", image_size=32)
        >>> dense = DenseViews(plain)
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> numbers = plain.random_numbers(8, torch.Generator().manual_seed(0))
        >>> pairs = zip(plain.make(images, numbers), dense.make(images, numbers))
        >>> all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)
        True
    """

    def __init__(self, views: Views, compiled: str | None = None) -> None:
        super().__init__(views.recipe, views.image_size, views.mean, views.std)
        if any(view.randaugment for view in self.recipe):
            raise UsageError("views with RandAugment are made by `Views`, not by `DenseViews`")
        self._made: Callable[..., list[Tensor]] = self._make
        if compiled is not None:
            # constants, which a compiler works out once
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            self._made = torch.compile(self._make, mode=compiled, dynamic=False, fullgraph=True)

    @torch.no_grad()
    def make(self, images: Tensor | Sequence[Tensor], numbers: RandomNumbers) -> list[Tensor]:
        """See `Views.make`."""
        first = images if isinstance(images, Tensor) else images[0]
        for crop in [first] if isinstance(images, Tensor) else images:
            self._check(crop, len(numbers))
        chances = (ops.to_device(part, first.device) for part in (numbers.views, numbers.more))
        with torch.autocast(first.device.type, enabled=False):
            return self._made(images if isinstance(images, Tensor) else tuple(images), *chances)

    def _make(self, images: Tensor | tuple[Tensor, ...], u: Tensor, more: Tensor) -> list[Tensor]:
        made: dict[int, Tensor] = {}
        # place of each view's first crop among those that `crop_in_worker` cuts
        first_crop = [0, *itertools.accumulate(1 + view.scale_mix for view in self.recipe)]
        parts = RandomNumbers(u, more).of_views(self.recipe)
        for view, side, places in alike(self.recipe, self.sizes):
            own = torch.cat([parts[i][0] for i in places], dim=1)
            beyond = torch.cat([parts[i][1] for i in places], dim=1)
            if isinstance(images, Tensor):
                given = [ops.to_float(images).repeat(len(places), 1, 1, 1)]
            else:
                cut = [[images[first_crop[i] + k] for i in places] for k in range(1 + view.scale_mix)]
                given = [ops.to_float(torch.cat(version)) for version in cut]
            height, width = (torch.full_like(own[0], s, dtype=torch.int64) for s in given[0].shape[2:])
            p, crops = draw_view(view, own, beyond, height, width, side), given
            if isinstance(images, Tensor):
                crops = [self._crop(given[0], view, v.crop, v.flip, side) for v in p.versions]
            changed = [self._dense(crop, view, v) for crop, v in zip(crops, p.versions, strict=True)]
            views = ops.paste(*changed, *p.mix.unbind(1)) if view.scale_mix else changed[0]
            made |= dict(zip(places, views.chunk(len(places)), strict=True))
        return [made[i] for i in range(len(self.recipe))]

    def _dense(self, images: Tensor, view: View, p: ViewParams) -> Tensor:
        """Apply everything but the mix of scales, of one version."""
        size = images.shape[-1]
        if view.jitter_p:
            images = _jitter(images, view, p)
        if view.gray_p:
            images = _where(p.gray, colour.grayscale(images), images)
        if view.blur_p:
            weights = ops.blur_matrix(size, p.sigma, radius=math.ceil(3 * view.blur_sigma[1]))
            weights = torch.where(p.blur.view(-1, 1, 1), weights, torch.eye(size, device=images.device))
            images = ops.separable(images, weights, weights)
        if view.solarize_p:
            images = _where(p.solarize, colour.solarize(images), images)
        if view.rotation:
            images = ops.rotate(images, p.degrees, view.rotation_interpolation)
        out = ops.normalize(images, self.mean, self.std)
        return ops.erase(out, *p.erase.unbind(1)) if view.erase_p else out


def _jitter(images: Tensor, view: View, p: ViewParams) -> Tensor:
    """Apply each image's four changes in its own order: every turn computes all four.

    Brightness, contrast and saturation are one formula, `f x + (1 - f) g`, where g is black, the mean grey or
    the pixel's own grey.
    """
    neutral, orders = _constants(images.device)
    factors = torch.where(p.jitter.view(-1, 1), p.factors, neutral)
    brightness, contrast, saturation, shift = factors.unbind(1)
    for turn in orders[p.order].unbind(1):
        flat, pale = ((turn == k).float().view(-1, 1, 1, 1) for k in (1, 2))
        factor = torch.stack([brightness, contrast, saturation, torch.ones_like(shift)]).gather(0, turn[None])
        factor = factor.view(-1, 1, 1, 1)
        own = colour.luma(images).unsqueeze(1)
        gray = pale * own + flat * own.mean(-1, keepdim=True).mean(-2, keepdim=True)
        images = (images * factor + (1 - factor) * gray).clamp(0, 1)
        if view.hue:
            images = _where((turn == 3) & (shift != 0), colour.hue_(images.clone(), shift), images)
    return images


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Neutral factors and orders of a jitter, sent once: sending a list waits."""
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], device=device)
    return neutral, torch.tensor(colour.JITTER_ORDERS, device=device)


def _where(picked: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(picked.view(-1, 1, 1, 1), changed, images)
