"""Changes of colour on whole batches, every image with parameters of its own.

Images are float [B, 3, H, W] in [0, 1], on any device; per-image parameters are [B] on the same device. The
results are those of `torchvision.transforms.v2.functional`, the oracle in the tests.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fullrank.views.image_ops import to_device

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, to torchvision's digits

#: The 24 orders of (brightness, contrast, saturation, hue), which the `order` of a colour jitter indexes.
JITTER_ORDERS: tuple[tuple[int, ...], ...] = tuple(itertools.permutations(range(4)))


def luma(images: Tensor) -> Tensor:
    """Grey levels [B, H, W].

    Example:
        >>> luma(torch.ones(1, 3, 1, 1)).round(decimals=3)
        tensor([[[1.]]])
    """
    red, green, blue = images.unbind(1)
    return red.mul(GRAY_WEIGHTS[0]).add_(green, alpha=GRAY_WEIGHTS[1]).add_(blue, alpha=GRAY_WEIGHTS[2])


def brightness_(images: Tensor, factor: Tensor) -> Tensor:
    """Scale pixels by their image's factor ([B], 0 is black) in place, clamped.

    Example:
        >>> brightness_(torch.full((1, 3, 1, 1), 0.4), torch.tensor([2.0])).flatten()
        tensor([0.8000, 0.8000, 0.8000])
    """
    return images.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast_(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels from their image's mean grey ([B], 0 is flat) in place, clamped.

    Example:
        >>> contrast_(torch.tensor([0.0, 1.0]).repeat(1, 3, 1, 1), torch.tensor([0.0])).flatten()[:2]
        tensor([0.5000, 0.5000])
    """
    mean = luma(images).mean(-1).mean(-1)  # in two steps: one row's sum then never depends on the threads
    shift = (1 - factor) * mean
    return images.mul_(factor.view(-1, 1, 1, 1)).add_(shift.view(-1, 1, 1, 1)).clamp_(0, 1)


def saturation_(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels from their own grey level: factor [B], 0 is grey; in place, clamped.

    Example:
        >>> saturation_(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), torch.tensor([0.5])).flatten()
        tensor([0.6495, 0.1495, 0.1495])
    """
    factor = factor.view(-1, 1, 1, 1)
    gray = luma(images).unsqueeze(1).mul_(1 - factor)
    return images.mul_(factor).add_(gray).clamp_(0, 1)


def hue_(images: Tensor, shift: Tensor) -> Tensor:
    """Turn hues by `shift` [B] of a circle, in [-0.5, 0.5], in place.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> hue_(red, torch.tensor([1 / 3])).round(decimals=3).flatten()
        tensor([0., 1., 0.])
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - low
    # The hue, from the two channels below the largest. On a CPU `lerp_` by a float mask is 10 x `where`.
    is_red, is_green = red.clone().eq_(high), green.clone().eq_(high)
    sixths = (red - green).add_(chroma, alpha=4)
    sixths.lerp_((blue - red).add_(chroma, alpha=2), is_green).lerp_(green - blue, is_red)
    angle = sixths.div_(chroma.clamp(min=1e-12).mul_(6)).add_(shift.view(-1, 1, 1))
    # Each channel is low + chroma * a trapezoid of the angle; the trapezoids lie a third of a circle apart.
    phase = torch.arange(5, -1, -2, device=images.device).div(6).view(3, 1, 1)
    turned = torch.add(angle.unsqueeze(1), phase, out=images)
    turned.sub_(turned.floor()).sub_(1 / 3).abs_().mul_(6).sub_(1).clamp_(0, 1)
    return turned.mul_(chroma.unsqueeze(1)).add_(low.unsqueeze(1))


def color_jitter(images: Tensor, picked: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Jitter the colours of the picked images, each in its own order, in place.

    Args:
        images: float [B, 3, H, W], contiguous.
        picked: [B] bool **on the CPU**, like the next two: what goes together is decided without a sync.
        order: [B] int64 in 0..23, indexes `JITTER_ORDERS`.
        factors: float32 [B, 4]: the three factors and the hue shift; the neutral (1, 1, 1, 0) are left out.

    Example:
        >>> images = torch.full((2, 3, 4, 4), 0.5)
        >>> halve = torch.tensor([[0.5, 1.0, 1.0, 0.0]]).expand(2, 4)
        >>> picked, order = torch.tensor([True, False]), torch.tensor([0, 23])
        >>> color_jitter(images, picked, order, halve)[:, 0, 0, 0]
        tensor([0.2500, 0.5000])
    """
    if not bool(picked.any()):
        return images
    idle = (factors == torch.tensor([1.0, 1.0, 1.0, 0.0])) | ~picked.view(-1, 1)
    by_turn = torch.tensor(JITTER_ORDERS)[order]  # [B, 4]: which operation
    by_turn = torch.where(idle.gather(1, by_turn), len(_OPERATIONS), by_turn).T.contiguous()
    # Before every turn the rows are put in order of their operations, so that each is done on one slice.
    sorted_rows = by_turn.argsort(dim=1, stable=True)  # [turn, B]: row of the batch to place
    where = torch.empty_like(sorted_rows).scatter_(1, sorted_rows, torch.arange(len(images)).expand(4, -1))
    ends = torch.stack([(by_turn <= op).sum(1) for op in range(len(_OPERATIONS))], 1).tolist()
    moves = torch.cat([sorted_rows[:1], where[:-1].gather(1, sorted_rows[1:]), where[-1:]])
    moves = to_device(moves, images.device)
    values = to_device(factors[sorted_rows], images.device)  # [turn, B, 4]
    held = images
    for turn, stops in enumerate(ends):
        held = held.index_select(0, moves[turn])
        for op, (start, end) in enumerate(itertools.pairwise([0, *stops])):
            if start < end:
                _OPERATIONS[op](held[start:end], values[turn, start:end, op])
    return torch.index_select(held, 0, moves[-1], out=images)


_OPERATIONS = (brightness_, contrast_, saturation_, hue_)


def grayscale(images: Tensor) -> Tensor:
    """Grey level in all three channels: [B, 3, H, W], sharing memory.

    Example:
        >>> grayscale(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.2989, 0.2989, 0.2989])
    """
    return luma(images).unsqueeze(1).expand_as(images)


def solarize(images: Tensor, threshold: float | Tensor = 128 / 255) -> Tensor:
    """Invert every value from the threshold (in [0, 1]) on.

    Example:
        >>> solarize(torch.tensor([0.25, 0.75]))
        tensor([0.2500, 0.2500])
    """
    return torch.where(images >= threshold, 1 - images, images)
