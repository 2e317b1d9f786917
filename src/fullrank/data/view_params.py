"""What chance decides about the views of a batch: every number drawn on the CPU, from one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fullrank.data import colour_ops as colour
from fullrank.data import image_ops as ops
from fullrank.data.randaugment import random_ops
from fullrank.data.scale_mix import random_boxes
from fullrank.data.view_presets import View

__all__ = ["Draws", "Params", "ViewParams", "draw", "draw_params", "draw_uniform"]

TRIES = 10  # rejected boxes before the fallback, as in torchvision
DRAWS = 60  # uniform numbers per sample and view, used or not: recipes share the stream; later draws go last


@dataclass(frozen=True)
class ViewParams:
    """What was drawn for one view of a batch: CPU tensors of B rows.

    Attributes:
        crop: int64 [B, 4] top, left, height, width, in pixels of the image.
        flip: bool [B]; so are `jitter`, `gray`, `blur` and `solarize`: whether to.
        order: int64 [B], indexes `colour_ops.JITTER_ORDERS`.
        factors: float32 [B, 4] brightness, contrast, saturation and hue.
        sigma: float32 [B] of the blur, in pixels of the view.
        degrees: float32 [B], counter-clockwise.
        erase: int64 [B, 4] top, left, height, width, in pixels of the view; without area where nothing goes.
        which: int64 [B, n], indexes `randaugment.OPS`, in order of use; -1 is none; n is 0 without them.
        levels: float32 [B, n] in [-10, 10]: their magnitudes.
        mix: int64 [B, 4] top, left, height, width: what the second version overwrites, in pixels of the view.
        second: what was drawn for the second version of a scale-mixed view; None for any other view.
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
    which: Tensor
    levels: Tensor
    mix: Tensor
    second: ViewParams | None = None

    @property
    def versions(self) -> tuple[ViewParams, ...]:
        """Of each version that the view is made from: itself, and the second where scales are mixed."""
        return (self,) if self.second is None else (self, self.second)

    def rows(self, index: slice | Tensor) -> ViewParams:
        """Those of some rows."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "second"}
        second = None if self.second is None else self.second.rows(index)
        return ViewParams(**{name: value[index] for name, value in values.items()}, second=second)


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
            >>> one = torch.tensor([4])
            >>> draws = draw_uniform([View()], 6, torch.Generator())
            >>> params = draw_params([View()], [4], one.expand(6), one.expand(6), draws)
            >>> len(params.rows(slice(1, 3))), len(params.rows([5]))
            (2, 1)
        """
        at = index if isinstance(index, slice) else torch.as_tensor(index)
        return Params(self.height[at], self.width[at], tuple(view.rows(at) for view in self.views))


@dataclass(frozen=True)
class Draws:
    """The chances of a batch: uniform numbers in [0, 1) that every parameter is a function of.

    Attributes:
        views: float64 [V, 60, B], as many for every view.
        more: float64 [M, B], what RandAugment and mixes of scales need beyond that.
    """

    views: Tensor
    more: Tensor

    def __len__(self) -> int:
        return self.views.shape[2]

    def rows(self, index: slice) -> Draws:
        """Those of some rows."""
        return Draws(self.views[..., index], self.more[..., index])

    def of_views(self, recipe: Sequence[View]) -> list[tuple[Tensor, Tensor]]:
        """Of each view its own: [60, B] and [m, B]."""
        more = torch.split(self.more, [sum(_more(view)) for view in recipe])
        return list(zip(self.views.unbind(0), more, strict=True))


def _place(u: Tensor, room: Tensor) -> Tensor:
    """A whole number from 0 to `room`, each as likely."""
    return torch.minimum((u * (room + 1)).long(), room)


def _more(view: View) -> list[int]:
    """Uniform numbers per sample beyond `DRAWS`: RandAugment; the second version, its own; the box."""
    augment = 4 * view.randaugment
    return [augment, DRAWS, augment, 3] if view.scale_mix else [augment, 0, 0, 0]


def draw(view: View, u: Tensor, more: Tensor, height: Tensor, width: Tensor, side: int) -> ViewParams:
    """Parameters of one view, from uniform numbers. Their order is fixed: it decides what a seed means.

    Args:
        view: the recipe.
        u: float64 [60, B] in [0, 1), as many for every view.
        more: float64 [M, B] in [0, 1): what RandAugment and a mix of scales need beyond that.
        height: int64 [B] of the images, in pixels.
        width: likewise.
        side: of the view, in pixels.
    """
    augment, second_u, second_augment, box = torch.split(more, _more(view))
    first = _version(view, u, augment, height, width, side)
    if not view.scale_mix:
        return first
    second = _version(view, second_u, second_augment, height, width, side)
    return replace(first, mix=random_boxes(box, side), second=second)


def _version(view: View, u: Tensor, augment: Tensor, height: Tensor, width: Tensor, side: int) -> ViewParams:
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
    order = _place(next(row), torch.tensor(len(colour.JITTER_ORDERS) - 1))
    scales = [uniform(max(0.0, 1 - s), 1 + s) for s in (view.brightness, view.contrast, view.saturation)]
    factors = torch.stack([*scales, uniform(-view.hue, view.hue)], 1)
    gray, blur, sigma = chance(view.gray_p), chance(view.blur_p), uniform(*view.blur_sigma)
    solarize, degrees = chance(view.solarize_p), uniform(-view.rotation, view.rotation)
    sides, area, ratio = torch.full_like(height, side), view.erase_area, view.erase_ratio
    # The erased box states height over width, and torchvision keeps it smaller than the view on both sides.
    w, h, found = ops.random_sizes(erase_areas, erase_ratios, sides, sides, area, ratio, margin=1)
    erased = chance(view.erase_p) & found
    box = torch.stack([*(_place(next(row), (sides - v).clamp(min=0)) for v in (h, w)), h, w], 1)
    which, levels = random_ops(augment, view.randaugment_magnitude, view.randaugment_std, view.randaugment_p)
    return ViewParams(
        crop=crop,
        flip=flip,
        jitter=jitter,
        order=order,
        factors=factors,
        gray=gray,
        blur=blur,
        sigma=sigma,
        solarize=solarize,
        degrees=degrees,
        erase=box * erased.view(-1, 1),
        which=which,
        levels=levels,
        mix=torch.zeros_like(box),
    )


def draw_uniform(recipe: Sequence[View], batch_size: int, generator: torch.Generator) -> Draws:
    """All chances of a batch: 60 uniform numbers per sample and view, and after them what some need more.

    Args:
        recipe: the views.
        batch_size: B.
        generator: on the CPU.
    """
    more = sum(sum(_more(view)) for view in recipe)
    return Draws(
        torch.rand(len(recipe), DRAWS, batch_size, generator=generator, dtype=torch.float64),
        torch.rand(more, batch_size, generator=generator, dtype=torch.float64),
    )


def draw_params(
    recipe: Sequence[View], sides: Sequence[int], height: Tensor, width: Tensor, draws: Draws
) -> Params:
    """Parameters of all views, where the draws are.

    Args:
        recipe: the views.
        sides: of each, in pixels.
        height: int64 [B] of the images, in pixels.
        width: likewise.
        draws: of this recipe, for B images.
    """
    parts = zip(recipe, sides, draws.of_views(recipe), strict=True)
    drawn = (draw(view, u, more, height, width, side) for view, side, (u, more) in parts)
    return Params(height, width, tuple(drawn))
