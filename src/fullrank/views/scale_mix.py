"""ScaleMix (arXiv 2204.00613): one view out of two versions of the same image, whose scales may differ."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.views.image_ops import box_mask

__all__ = ["paste", "random_boxes"]


def random_boxes(u: Tensor, side: int) -> Tensor:
    """Boxes of a share 1 - lambda of the view, lambda uniform in [0, 1], clipped where they stick out.

    The box is square, its side `sqrt(1 - lambda)` of the view's, its centre any pixel; it reaches half its
    side, rounded down, to either side of the centre, as in the reference. Clipped, it covers 77/240 = 0.32 of
    the view on average, less what the rounding takes.

    Args:
        u: [3, B] uniform in [0, 1): lambda, and the centre's row and column.
        side: of the view, in pixels.

    Returns:
        int64 [B, 4] top, left, height, width in pixels; a box without height or width is empty.

    Example:
        >>> random_boxes(torch.tensor([[0.75], [0.5], [0.0]]), 8)
        tensor([[2, 0, 4, 2]])
    """
    half = ((1 - u[0]).sqrt() * side).long() // 2
    centre = (u[1:] * side).long().clamp(max=side - 1)
    start, stop = (centre - half).clamp(min=0), (centre + half).clamp(max=side)
    return torch.cat([start, stop - start]).T.contiguous()


def paste(images: Tensor, others: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """A box of every one of `others` in the place where it lies, the rest from `images`; a new tensor.

    Args:
        images: [B, C, H, W].
        others: likewise.
        top: [B] first row of the box; so `left`, `height` and `width`, in pixels.
        left: [B].
        height: [B].
        width: [B].

    Example:
        >>> paste(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3), *torch.tensor([[0], [1], [1], [2]]))
        tensor([[[[0., 1., 1.],
                  [0., 0., 0.]]]])
    """
    return torch.where(box_mask(images, top, left, height, width), others, images)
