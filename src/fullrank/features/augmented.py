"""Augmented views of each image, whatever the batches and processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.images.batch_loaders import LazyLoader, Wanted
from fullrank.images.sources import Indices, LazySource, MemorySource, Source
from fullrank.views import VIEWS, Params, Views

__all__ = ["Augmentation", "augmented_batches"]

BLOCK = 256  # images whose chances are drawn together; an image's place in the source decides its block


@dataclass(frozen=True)
class Augmentation:
    """How often an image is seen, and how.

    Attributes:
        count: k, views of an image.
        preset: a name of `VIEWS`; its full-sized views take turns, small crops are left out.
        seed: of everything random.

    Raises:
        UsageError: k is not positive.
        UnknownNameError: no such preset.
    """

    count: int
    preset: str = "simsiam"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{self.count} augmented views are none: take 1 or more")
        VIEWS[self.preset]

    def views(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Views:
        """The k views of images of this size.

        Example:
            >>> len(Augmentation(3, "dino-multicrop").views(224, (0.5,) * 3, (0.5,) * 3).recipe)
            3
        """
        whole = [view for view in VIEWS[self.preset].views if view.size == 1]
        return Views([whole[k % len(whole)] for k in range(self.count)], image_size, mean, std)


def augmented_batches(
    source: Source,
    part: Indices,
    batch_size: int,
    views: Views,
    seed: int,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Iterate over a sorted part of the images, each as its k normalised views.

    Returns:
        An iterator over (indices int64 [b], k tensors float32 [b, 3, S, S] on the device). Images that cannot
        be decoded are left out.

    Example:
        >>> from fullrank.images.opening import open_data
        >>> images, views = open_data("shapes", limit=9).train, Augmentation(2).views(8, (0,) * 3, (1,) * 3)
        >>> batches = augmented_batches(images, np.arange(9), 4, views, 0, 0, torch.device("cpu"))
        >>> [(indices.tolist(), len(made), tuple(made[0].shape)) for indices, made in batches][-1]
        ([8], 2, (1, 3, 8, 8))
    """
    from fullrank.training.setup import CropViews, generator_of

    cuts = [
        np.asarray(block[k : k + batch_size])
        for block in (list(same) for _, same in groupby(part.tolist(), lambda index: index // BLOCK))
        for k in range(0, len(block), batch_size)
    ]
    size = source.image_size if isinstance(source, MemorySource) else None
    height, width = size or (views.image_size, views.image_size)

    def drawn(indices: Tensor) -> Params:
        generator = generator_of(seed, 0, int(indices[0]) // BLOCK)
        return views.sample(BLOCK, height, width, generator).rows(indices % BLOCK)

    if isinstance(source, LazySource):
        lazy = LazyLoader(source, CropViews(views, seed), workers, replace_corrupt=False)
        plan = (Wanted(cut, 0, cut) for cut in cuts)
        for indices, crops in lazy.load(plan):
            if len(indices):
                yield indices, views.finish([crop.to(device) for crop in crops], drawn(indices))
        return
    assert isinstance(source, MemorySource)
    for cut in cuts:
        indices = torch.from_numpy(cut)
        images = source.images.index_select(0, indices.to(source.images.device))
        yield indices, views(images.to(device), drawn(indices))
