"""Batches of images, in one global order on any number of ranks, and prefetch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, UsageError
from fullrank.images.batch_loaders import Crop, Loader, Wanted
from fullrank.images.data_order import DataOrder, batches
from fullrank.images.sources import Indices, Source

Batch: TypeAlias = tuple[int, tuple[Tensor, Tensor | list[Tensor]]]
"""As `Batches.epoch` gives them: step, indices on the CPU, and images or the list of their views."""


def prefetch(batches: Iterator[Batch], device: torch.device, streams: Any = None) -> Iterator[Batch]:
    """Send the images of each batch before the batch before it is handed out.

    Copies run on a stream of their own, from pinned memory, so that neither the host nor the step in progress
    waits for them. What is on the device already passes as it is.

    `streams` is what has `Stream`, `stream` and `current_stream`; None is the device's own module.

    Example:
        >>> batch = (0, (torch.tensor([3]), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)))
        >>> (step, (indices, images)), = prefetch(iter([batch]), torch.device("meta"), torch.cpu)
        >>> step, indices.device.type, images.device.type
        (0, 'cpu', 'meta')
    """
    streams = streams or torch.get_device_module(device)
    side = streams.Stream()
    waiting: Batch | None = None
    for step, (indices, images) in batches:
        with streams.stream(side):
            if isinstance(images, Tensor):
                sent: Batch = step, (indices, _send(images, device))
            else:
                sent = step, (indices, [_send(view, device) for view in images])
        if waiting is not None:
            yield _received(waiting, side, streams)
        waiting = sent
    if waiting is not None:
        yield _received(waiting, side, streams)


def _send(images: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and images.device.type == "cpu" and not images.is_pinned():
        images = images.pin_memory()
    return images.to(device, non_blocking=True)


def _received(batch: Batch, side: Any, streams: Any) -> Batch:
    """Ready for the stream that computes, whose memory it is from now on."""
    now = streams.current_stream()
    now.wait_stream(side)
    images = batch[1][1]
    for view in [images] if isinstance(images, Tensor) else images:
        if view.device.type == "cuda":
            view.record_stream(now)
    return batch


def shared_batch(batch_size: int, processes: int) -> int:
    """Largest batch up to this one that processes share, an image each at least.

    Example:
        >>> shared_batch(16, 3), shared_batch(2, 3)
        (15, 3)
    """
    return batch_size - batch_size % processes or processes


def check_shared(batch_size: int, processes: int) -> None:
    """See that processes share a batch evenly.

    Raises:
        UsageError: they do not.
    """
    if batch_size % processes:
        raise UsageError(
            f"batch size {batch_size} cannot be shared by {processes} processes; "
            f"use a multiple of {processes}, as {shared_batch(batch_size, processes)}"
        )


class Batches:
    """Training set cut into batches, every epoch in an order from seed and epoch.

    The global batches do not depend on the number of ranks: each rank gets its contiguous slice of each. An
    image of a `LazySource` that cannot be decoded is replaced by the next one that can, and counted.

    Args:
        source: the images. From memory they are gathered on the device they live on, without workers or crop.
        batch_size: images per step, over all ranks together.
        seed: of the order, not negative.
        rank: of this process, of `world_size`.
        workers: processes that decode lazy images; 0 decodes them in this one.
        crop: cuts the views of each lazy image where it is decoded; None resizes and centre crops it to the
            source's `image_size`. Must survive pickling where worker processes are spawned, not forked.
        order: epoch to int64 image indices, for other data orders; None is a new permutation every epoch.

    Raises:
        UsageError: the batch is larger than the data, or its size no multiple of `world_size`.
        DataError: while iterating: more images are corrupt than the source tolerates.

    Example:
        >>> import torch
        >>> from fullrank.images.sources import MemorySource
        >>> source = MemorySource(name="black", images=torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
        >>> loader = Batches(source, batch_size=4, seed=0)
        >>> [(step, tuple(images.shape)) for step, (indices, images) in loader.epoch(0)]
        [(0, (4, 3, 4, 4)), (1, (4, 3, 4, 4))]
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        crop: Crop | None = None,
        order: Callable[[int], Indices] | None = None,
    ) -> None:
        check_shared(batch_size, world_size)
        self.source, self.batch_size = source, batch_size
        self.order = order or DataOrder(len(source), batch_size, epochs=1, seed=seed)
        self._steps = sum(1 for _ in batches(self.order(0), batch_size))
        self._first = rank * (batch_size // world_size)  # of this rank, in each global batch
        self._last = self._first + batch_size // world_size
        self._apart = crop is not None and not source.in_memory  # the views, as the workers cut them
        used = crop if crop is not None and self._apart else source.centre_crop(None)
        self._loader: Loader = source.loader(used, workers, replace_corrupt=True)

    def __len__(self) -> int:
        return self._steps

    @property
    def corrupt(self) -> set[int]:
        """Images met so far, on this rank, that could not be decoded."""
        return self._loader.corrupt

    def close(self) -> None:
        """End the workers; another epoch would start others."""
        self._loader.close()

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Iterate over an epoch from `start_step` on; earlier batches are not decoded.

        Returns:
            An iterator over (step, (indices, images)): indices int64 [b] on the CPU, of the images that are
            there (replacements where there were any); images uint8 [b, 3, h, w], or, where `crop` cuts lazy
            images, the list of their views, uint8 [b, 3, s, s] each.

        Raises:
            UsageError: the epoch has no such step.
            DataError: while iterating: more images are corrupt than the source tolerates.
        """
        order = self.order(epoch)
        cut = zip(*(batches(each, self.batch_size) for each in (order, np.arange(len(order)))), strict=True)
        mine = [Wanted(i[self._first : self._last], epoch, at[self._first : self._last]) for i, at in cut]
        if not 0 <= start_step <= len(mine):
            raise UsageError(f"there is no step {start_step} in an epoch of {len(mine)} steps")
        loaded = zip(range(start_step, len(mine)), self._loader.load(mine[start_step:]), strict=True)
        return ((step, (indices, views if self._apart else views[0])) for step, (indices, views) in loaded)


def evaluation_batches(
    source: Source,
    batch_size: int,
    image_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    crop_ratio: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over all images once, in order, resized and centre cropped.

    Each rank gets one contiguous part, so the parts of all ranks in turn are the whole. An image of a
    `LazySource` that cannot be decoded is left out, and its index with it.

    Args:
        source: the images; `rank`, `world_size` and `workers` are as of `Batches`.
        batch_size: images per batch, on this rank.
        image_size: height and width in pixels; None is the source's `image_size`.
        crop_ratio: see `fit`.

    Returns:
        An iterator over (indices int64 [b] on the CPU, images uint8 [b, 3, h, w] on the source's device).

    Raises:
        UsageError: neither `image_size` nor the source says what size to cut.
        DataError: while iterating: more images are corrupt than the source tolerates.

    Example:
        >>> import torch
        >>> from fullrank.images.sources import MemorySource
        >>> source = MemorySource(name="black", images=torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
        >>> [indices.tolist() for indices, images in evaluation_batches(source, 4, rank=1, world_size=2)]
        [[5, 6, 7, 8], [9]]
    """
    loader = source.loader(source.centre_crop(image_size, crop_ratio), workers, replace_corrupt=False)
    part = np.array_split(np.arange(len(source)), world_size)[rank]
    return _once(loader, (Wanted(cut, 0, cut) for cut in batches(part, batch_size, drop_last=False)))


def _once(loader: Loader, plan: Iterable[Wanted]) -> Iterator[tuple[Tensor, Tensor]]:
    """Load what can be decoded; the workers end with it."""
    with closing(loader):
        yield from ((indices, views[0]) for indices, views in loader.load(plan) if len(indices))


def first_images(source: Source, most: int) -> list[Tensor]:
    """Load the first images that can be decoded."""
    found: list[Tensor] = []
    for i in range(len(source)):
        with suppress(DataError):
            found.append(source.load(i))
        if len(found) == most:
            break
    return found
