"""Sending batches to a device while the step before them runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

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
