"""Decoding on demand, in worker processes, with corrupt images replaced or left out and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fullrank.errors import DataError
from fullrank.images.decoding import fit
from fullrank.images.sources import LazySource, corrupt_line

__all__ = ["CentreCrop", "Crop", "LazyLoader", "Wanted"]

Crop: TypeAlias = Callable[[Tensor, int, int, int], list[Tensor]]
"""Cuts the views of one image: (image uint8 [3, h, w], index, epoch, position) to uint8 [3, s, s] for each
view.

`position` is the image's place in the epoch's global order: the same on any number of ranks, and different
for each repetition of an image within an epoch."""


@dataclass(frozen=True)
class CentreCrop:
    """The crop with one view and no chance in it: see `fit`.

    Example:
        >>> [view.shape for view in CentreCrop(4, 4)(torch.zeros(3, 9, 5, dtype=torch.uint8), 0, 0, 0)]
        [torch.Size([3, 4, 4])]
    """

    height: int
    width: int
    crop_ratio: float = 1.0

    def __call__(self, image: Tensor, index: int, epoch: int, position: int) -> list[Tensor]:
        """Resizes and centre crops `image`, uint8 [3, h, w]."""
        return [fit(image, self.height, self.width, self.crop_ratio)]


class Wanted(NamedTuple):
    """One image to decode, and what its crop may depend on."""

    image: int
    epoch: int
    position: int


class LazyLoader:
    """Decodes the batches it is asked for, several ahead where it has workers; it keeps them between calls.

    Args:
        source: the images.
        crop: cuts the views of each.
        workers: processes that decode; 0 decodes in this one.
        replace_corrupt: put the next image that can be decoded in the place of one that cannot; else leave
            it out.

    Attributes:
        corrupt: the images met so far that cannot be decoded.

    Example:
        >>> class Black:
        ...     def __len__(self): return 5
        ...     def __getitem__(self, i): return torch.zeros(3, 4, 4 + i, dtype=torch.uint8).numpy()
        ...     def where(self, i): return f"black {i}"
        >>> source = LazySource(name="black", items=Black(), index=torch.arange(5).numpy())
        >>> loader = LazyLoader(source, CentreCrop(4, 4), workers=0, replace_corrupt=True)
        >>> indices, views = next(loader.load([[Wanted(2, 0, 0), Wanted(4, 0, 1)]]))
        >>> indices.tolist(), views[0].shape
        ([2, 4], torch.Size([2, 3, 4, 4]))
    """

    def __init__(self, source: LazySource, crop: Crop, workers: int, replace_corrupt: bool) -> None:
        self.source = source
        self.corrupt: set[int] = set()
        self._plan = _Plan()
        self._loader: DataLoader[_Decoded] = DataLoader(
            _Images(source, crop, attempts=min(source.tolerance + 1, len(source)) if replace_corrupt else 1),
            batch_sampler=self._plan,
            collate_fn=_collate,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    def load(self, plan: Iterable[list[Wanted]]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Decodes one batch after another.

        Args:
            plan: the images of each batch.

        Returns:
            An iterator over (indices int64 [b], views uint8 [b, 3, s, s] each); no views where b is 0.

        Raises:
            DataError: while iterating: more images are corrupt than the source tolerates.
        """
        self._plan.batches = plan
        for indices, views, corrupt in self._loader:
            self.corrupt.update(corrupt)
            if len(self.corrupt) > self.source.tolerance:
                names = [self.source.where(i) for i in sorted(self.corrupt)]
                line = corrupt_line(names, len(self.source))
                raise DataError(
                    f"{self.source.name}: {line}; that is too many: remove them, or raise --max-corrupt"
                )
            yield indices, views


class _Plan:
    """What the loader's one batch sampler hands out next: it outlives the epochs, as the workers do."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Wanted]] = ()

    def __iter__(self) -> Iterator[list[Wanted]]:
        return iter(self.batches)


class _Decoded(NamedTuple):
    image: int
    views: list[Tensor]  # empty where nothing could be decoded
    corrupt: list[int]


class _Images(Dataset[_Decoded]):
    def __init__(self, source: LazySource, crop: Crop, attempts: int) -> None:
        self.source, self.crop, self.attempts = source, crop, attempts

    def __getitem__(self, wanted: Wanted) -> _Decoded:
        index, epoch, position = wanted
        corrupt: list[int] = []
        for _ in range(
            self.attempts
        ):  # with as many as are tolerated and one, all corrupt is too many corrupt
            try:
                image = self.source.load(index)
            except DataError:  # reported, not raised: the main process counts for all workers
                corrupt.append(index)
                index = (index + 1) % len(self.source)
            else:
                return _Decoded(index, self.crop(image, index, epoch, position), corrupt)
        return _Decoded(index, [], corrupt)


def _collate(decoded: list[_Decoded]) -> tuple[Tensor, list[Tensor], list[int]]:
    good = [item for item in decoded if item.views]
    indices = torch.tensor([item.image for item in good], dtype=torch.int64)
    views = [torch.stack(view) for view in zip(*(item.views for item in good), strict=True)]
    return indices, views, [index for item in decoded for index in item.corrupt]
