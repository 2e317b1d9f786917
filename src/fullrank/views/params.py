"""Random parameters of the views of a batch, drawn on the CPU from one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from fullrank.views import colour_ops as colour
from fullrank.views import image_ops as ops
from fullrank.views.presets import View
from fullrank.views.randaugment import random_ops

# Rows of uniform numbers after those of the boxes that are tried; what a seed means hangs on their places.
TOP, LEFT, FLIP, JITTER, ORDER = range(5)
FACTORS = slice(5, 9)
GRAY, BLUR, SIGMA, SOLARIZE, DEGREES, ERASE, ERASE_TOP, ERASE_LEFT = range(9, 17)

TRIES = 10  # rejected boxes before the fallback, as in torchvision
NUMBERS = 60  # uniform numbers per sample and view, used or not: recipes share the stream; later ones go last


@dataclass(frozen=True)
class ViewParams:
    """Parameters of one view of a batch: CPU tensors of B rows.

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
        second: of the second version of a scale-mixed view; None for any other view.
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
        """Parameters of each version: itself, and the second where scales are mixed."""
        return (self,) if self.second is None else (self, self.second)

    def rows(self, index: slice | Tensor) -> ViewParams:
        """Parameters of some rows."""
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "second"}
        return ViewParams(**chosen, second=self.second and self.second.rows(index))


@dataclass(frozen=True)
class Params:
    """Parameters of all views of a batch; sizes of its images are int64 [B]."""

    height: Tensor
    width: Tensor
    views: tuple[ViewParams, ...]

    def __len__(self) -> int:
        return len(self.height)

    def rows(self, index: slice | Sequence[int] | Tensor) -> Params:
        """Parameters of some rows: their views are bitwise those of the whole batch."""
        at = index if isinstance(index, slice) else torch.as_tensor(index)
        return Params(self.height[at], self.width[at], tuple(view.rows(at) for view in self.views))


@dataclass(frozen=True)
class RandomNumbers:
    """Uniform numbers in [0, 1) of a batch, which all parameters are functions of.

    `views` is float64 [V, 60, B], as many for every view; `more`, [M, B], what RandAugment and mixes of
    scales need beyond that.
    """

    views: Tensor
    more: Tensor

    def __len__(self) -> int:
        return self.views.shape[2]

    def rows(self, index: slice) -> RandomNumbers:
        """Parameters of some rows."""
        return RandomNumbers(self.views[..., index], self.more[..., index])

    def of_views(self, recipe: Sequence[View]) -> list[tuple[Tensor, Tensor]]:
        """Split into each view's own, [60, B] and [m, B]."""
        more = torch.split(self.more, [sum(_more(view)) for view in recipe])
        return list(zip(self.views.unbind(0), more, strict=True))


def _place(u: Tensor, room: Tensor) -> Tensor:
    """A whole number from 0 to `room`, each as likely."""
    return torch.minimum((u * (room + 1)).long(), room)


def _more(view: View) -> list[int]:
    """Numbers beyond `NUMBERS`: RandAugment; second version and its own; box."""
    augment = 4 * view.randaugment
    return [augment, NUMBERS, augment, 3] if view.scale_mix else [augment, 0, 0, 0]


def draw_view(view: View, u: Tensor, more: Tensor, height: Tensor, width: Tensor, side: int) -> ViewParams:
    """Compute a view's parameters; the order of its numbers defines a seed.

    The numbers are `u` [60, B] and `more` [m, B]; `height` and `width` are those of the images, int64 [B].
    """
    augment, second_u, second_augment, box = torch.split(more, _more(view))
    first = _version(view, u, augment, height, width, side)
    if not view.scale_mix:
        return first
    second = _version(view, second_u, second_augment, height, width, side)
    return replace(first, mix=mix_boxes(box, side), second=second)


def _version(view: View, u: Tensor, augment: Tensor, height: Tensor, width: Tensor, side: int) -> ViewParams:
    crop_areas, crop_ratios, erase_areas, erase_ratios = u[: 4 * TRIES].view(4, TRIES, -1)
    u = u[4 * TRIES :]
    low, span, likely = _scales(view, len(u), u.device)
    uniform, chance = torch.addcmul(low, span, u).float(), u < likely
    box = torch.stack([torch.zeros_like(height), torch.zeros_like(width), height, width], 1)
    if view.crop is not None:
        h, w, found = ops.random_sizes(crop_areas, crop_ratios, height, width, view.crop, view.ratio)
        # torchvision's fallback: the largest centred box whose ratio is allowed.
        h = torch.where(found, h, torch.minimum(height, (width / view.ratio[0]).round().long()))
        w = torch.where(found, w, torch.minimum(width, (height * view.ratio[1]).round().long()))
        room = ((TOP, height - h), (LEFT, width - w))
        top, left = (torch.where(found, _place(u[row], r), r // 2) for row, r in room)
        box = torch.stack([top, left, h, w], 1)
    which, levels = random_ops(augment, view.randaugment_magnitude, view.randaugment_std, view.randaugment_p)
    return ViewParams(
        crop=box,
        flip=chance[FLIP],
        jitter=chance[JITTER],
        order=(u[ORDER] * len(colour.JITTER_ORDERS)).long().clamp(max=len(colour.JITTER_ORDERS) - 1),
        factors=uniform[FACTORS].T.contiguous(),
        gray=chance[GRAY],
        blur=chance[BLUR],
        sigma=uniform[SIGMA],
        solarize=chance[SOLARIZE],
        degrees=uniform[DEGREES],
        erase=_erased(view, u, chance[ERASE], erase_areas, erase_ratios, side),
        which=which,
        levels=levels,
        mix=torch.zeros_like(box),
    )


def _erased(view: View, u: Tensor, chosen: Tensor, areas: Tensor, ratios: Tensor, side: int) -> Tensor:
    """Boxes int64 [B, 4], 0 where none goes."""
    if not view.erase_p:
        return torch.zeros_like(u[:4], dtype=torch.int64).T.contiguous()
    sides = torch.full_like(u[0], side, dtype=torch.int64)
    # The erased box states height over width, and torchvision keeps it smaller than the view on both sides.
    w, h, found = ops.random_sizes(areas, ratios, sides, sides, view.erase_area, view.erase_ratio, margin=1)
    room = ((ERASE_TOP, h), (ERASE_LEFT, w))
    box = torch.stack([*(_place(u[row], (sides - v).clamp(min=0)) for row, v in room), h, w], 1)
    return box * (chosen & found).view(-1, 1)


def mix_boxes(u: Tensor, side: int) -> Tensor:
    """Boxes of ScaleMix (arXiv 2204.00613), int64 [B, 4] in pixels.

    From `u` [3, B] come lambda and the centre's row and column. The box is square, its side `sqrt(1 -
    lambda)` of the view's, its centre any pixel; it reaches half its side, rounded down, to either side of
    the centre, as in the reference. Clipped at the border, it covers 77/240 = 0.32 of the view on average,
    less what the rounding takes; it may be empty.

    Example:
        >>> mix_boxes(torch.tensor([[0.75], [0.5], [0.0]]), 8)
        tensor([[2, 0, 4, 2]])
    """
    half = ((1 - u[0]).sqrt() * side).long() // 2
    centre = (u[1:] * side).long().clamp(max=side - 1)
    start, stop = (centre - half).clamp(min=0), (centre + half).clamp(max=side)
    return torch.cat([start, stop - start]).T.contiguous()


@lru_cache(maxsize=64)
def _scales(view: View, rows: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest value, span and probability for each row of numbers: [rows, 1]."""
    low, high, likely = ([0.0] * rows for _ in range(3))
    strengths = (view.brightness, view.contrast, view.saturation)
    low[FACTORS] = [*(max(0.0, 1 - s) for s in strengths), -view.hue]
    high[FACTORS] = [*(1 + s for s in strengths), view.hue]
    low[SIGMA], high[SIGMA] = view.blur_sigma
    low[DEGREES], high[DEGREES] = -view.rotation, view.rotation
    for row, p in (
        (FLIP, view.flip_p), (JITTER, view.jitter_p), (GRAY, view.gray_p), (BLUR, view.blur_p),
        (SOLARIZE, view.solarize_p), (ERASE, view.erase_p),
    ):  # fmt: skip
        likely[row] = p
    span = [b - a for a, b in zip(low, high, strict=True)]
    made = torch.tensor([low, span, likely], dtype=torch.float64, device=device).unsqueeze(-1)
    return made[0], made[1], made[2]


def draw_numbers(recipe: Sequence[View], batch_size: int, generator: torch.Generator) -> RandomNumbers:
    """Draw the numbers of a batch: 60 per sample and view, then the rest."""
    more = sum(sum(_more(view)) for view in recipe)
    return RandomNumbers(
        torch.rand(len(recipe), NUMBERS, batch_size, generator=generator, dtype=torch.float64),
        torch.rand(more, batch_size, generator=generator, dtype=torch.float64),
    )


def draw_params(
    recipe: tuple[View, ...], sides: tuple[int, ...], height: Tensor, width: Tensor, numbers: RandomNumbers
) -> Params:
    """Compute the parameters of all views, on the device of the numbers.

    `height` and `width` are those of the images, int64 [B].
    """
    parts, drawn = numbers.of_views(recipe), {}
    for view, side, places in alike(recipe, sides):
        u, more = (torch.cat([parts[i][k] for i in places], dim=1) for k in range(2))
        together = draw_view(view, u, more, height.repeat(len(places)), width.repeat(len(places)), side)
        for k, i in enumerate(places):
            drawn[i] = together.rows(slice(k * len(height), (k + 1) * len(height)))
    return Params(height, width, tuple(drawn[i] for i in range(len(recipe))))


@lru_cache(maxsize=64)
def alike(recipe: tuple[View, ...], sides: tuple[int, ...]) -> list[tuple[View, int, list[int]]]:
    """Group views that differ at most in role, with sides and places.

    Example:
        >>> [places for _, _, places in alike((View(), View(flip_p=0.5), View(role="source")), (8, 8, 8))]
        [[0, 2], [1]]
    """
    groups: dict[tuple[View, int], list[int]] = {}
    for i, (view, side) in enumerate(zip(recipe, sides, strict=True)):
        groups.setdefault((replace(view, role="both"), side), []).append(i)
    return [(view, side, places) for (view, side), places in groups.items()]
