"""Loading of batches: gathered from memory, or decoded in worker processes."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fullrank.errors import DataError, ImageError
from fullrank.images.decoding import fit
from fullrank.images.skipped import first_three
from fullrank.malloc import return_freed_memory

Crop: TypeAlias = Callable[[Tensor, int, int, int], list[Tensor]]
"""Cuts the views of one image: (image uint8 [3, h, w], index, epoch, position) to uint8 [3, s, s] for each
view.

`position` is the image's place in the epoch's global order: the same on any number of ranks, and different
for each repetition of an image within an epoch."""


@dataclass(frozen=True)
class CentreCrop:
    """Crop with one view and no chance in it: see `fit`.

    Example:
        >>> [view.shape for view in CentreCrop(4, 4)(torch.zeros(3, 9, 5, dtype=torch.uint8))]
        [torch.Size([3, 4, 4])]
    """

    height: int
    width: int
    crop_ratio: float = 1.0

    def __call__(self, images: Tensor, index: int = 0, epoch: int = 0, position: int = 0) -> list[Tensor]:
        """Resize and centre crop uint8 [..., 3, h, w]."""
        return [fit(images, self.height, self.width, self.crop_ratio)]


class Wanted(NamedTuple):
    """Images of a batch and their positions, int64 [b]; crops may depend on both."""

    images: npt.NDArray[np.int64]
    epoch: int
    positions: npt.NDArray[np.int64]


class MemoryLoader:
    """Loader of images in one tensor, uint8 [N, 3, H, W], gathered on its device."""

    def __init__(self, images: Tensor, crop: Crop) -> None:
        self.images, self.crop, self.corrupt = images, crop, set[int]()

    def load(self, plan: Iterable[Wanted]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Load one batch after another, as `LazyLoader.load` does."""
        for wanted in plan:
            indices = torch.from_numpy(wanted.images)
            chosen = self.images.index_select(0, indices.to(self.images.device, non_blocking=True))
            yield indices, self.crop(chosen, 0, wanted.epoch, 0)

    def close(self) -> None:
        """Do nothing: it has no workers."""


class _Encoded(Protocol):
    """Images that `LazyLoader` can decode: a `LazySource`."""

    @property
    def name(self) -> str: ...

    @property
    def tolerance(self) -> int: ...

    @property
    def skipped(self) -> dict[str, str]: ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Tensor: ...

    def where(self, i: int) -> str: ...


class LazyLoader:
    """Loader that decodes, with workers several batches ahead, kept between calls.

    `corrupt` are the images met so far that cannot be decoded; `replace_corrupt` puts the next that can be in
    the place of each, else they are left out. Without `workers`, this process decodes.
    """

    def __init__(self, source: _Encoded, crop: Crop, workers: int, replace_corrupt: bool) -> None:
        self.source = source
        self.corrupt: set[int] = set()
        workers = worker_count(workers)
        self._plan = _Plan()
        self._loader: DataLoader[_Decoded] = DataLoader(
            _Images(source, crop, attempts=min(source.tolerance + 1, len(source)) if replace_corrupt else 1),
            batch_sampler=self._plan,
            collate_fn=_collate,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=_begin_worker,
        )

    def load(self, plan: Iterable[Wanted]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Load one batch after another.

        Yields:
            Indices int64 [b] on the CPU, and views uint8 [b, 3, s, s] each, where the images live; no views
            where b is 0.

        Raises:
            DataError: more images are corrupt than the source tolerates.
        """
        self._plan.batches = plan
        batches = iter(self._loader)
        if self._loader.num_workers:
            _with_workers.add(batches)
        for indices, views, corrupt in batches:
            self.corrupt.update(index for index, _ in corrupt)
            self.source.skipped.update((self.source.where(index), why) for index, why in corrupt)
            if len(self.corrupt) > self.source.tolerance:
                names = [self.source.where(i) for i in sorted(self.corrupt)]
                line = corrupt_line(names, len(self.source))
                raise DataError(
                    f"{self.source.name}: {line}; that is too many: remove them, or raise --max-corrupt"
                )
            yield indices, views

    def close(self) -> None:
        """End the workers; `load` would start others."""
        if self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._loader._iterator = None


Loader: TypeAlias = MemoryLoader | LazyLoader
_with_workers: weakref.WeakSet[Any] = weakref.WeakSet()
"""Iterators of loaders, whose workers end with them."""


class _Plan:
    """Batches that the sampler hands out next; it outlives epochs, as workers do."""

    def __init__(self) -> None:
        self.batches: Iterable[Wanted] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for images, epoch, positions in self.batches:
            yield [(i, epoch, at) for i, at in zip(images.tolist(), positions.tolist(), strict=True)]


class _Decoded(NamedTuple):
    image: int
    views: list[Tensor]  # empty where nothing could be decoded
    corrupt: list[tuple[int, str]]  # and why


class _Images(Dataset[_Decoded]):
    def __init__(self, source: _Encoded, crop: Crop, attempts: int) -> None:
        self.source, self.crop, self.attempts = source, crop, attempts

    def __getitem__(self, wanted: tuple[int, int, int]) -> _Decoded:
        index, epoch, position = wanted
        corrupt: list[tuple[int, str]] = []
        for _ in range(self.attempts):  # one more than are tolerated: all corrupt is too many
            try:
                image = self.source.load(index)
            except ImageError as error:  # reported, not raised: the main process counts for all workers
                corrupt.append((index, error.why))
                index = (index + 1) % len(self.source)
            else:
                return _Decoded(index, self.crop(image, index, epoch, position), corrupt)
        return _Decoded(index, [], corrupt)


def _collate(decoded: list[_Decoded]) -> tuple[Tensor, list[Tensor], list[tuple[int, str]]]:
    good = [item for item in decoded if item.views]
    indices = torch.tensor([item.image for item in good], dtype=torch.int64)
    views = [torch.stack(view) for view in zip(*(item.views for item in good), strict=True)]
    return indices, views, [met for item in decoded for met in item.corrupt]


def worker_count(workers: int) -> int:
    """Number of processes that decode: -1 is one for each core, at most 4.

    Example:
        >>> worker_count(3), 1 <= worker_count(-1) <= 4
        (3, True)
    """
    if workers >= 0:
        return workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, available)


def corrupt_line(names: Sequence[str], tried: int) -> str:
    """Say in one line how many images cannot be decoded, naming the first three.

    Example:
        >>> corrupt_line(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], 900)
        '4 of 900 images cannot be decoded: a.jpg, b.jpg, c.jpg, ...'
    """
    return f"{len(names):,} of {tried:,} image{'s' * (tried != 1)} cannot be decoded: {first_three(names)}"


@atexit.register
def _end_workers() -> None:
    """End the workers of loaders that still have some.

    `multiprocessing` would send them SIGTERM, which they leave to the run, and wait for them for ever.
    """
    for batches in list(_with_workers):
        batches._shutdown_workers()


def _begin_worker(_: int) -> None:
    """Give freed memory back, and ignore what a whole process group is sent."""
    return_freed_memory()
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
