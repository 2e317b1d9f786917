"""Streams images through an encoder in eval mode and hands out rows of any of its taps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullrank.data import image_ops
from fullrank.data.loader import evaluation_batches
from fullrank.data.sources import Source
from fullrank.embed.taps import FEATURES, Tokens, take_taps, which_taps
from fullrank.errors import UsageError
from fullrank.networks.foreign_model import ForeignModel

__all__ = ["Embedded", "embed_images"]


@dataclass(frozen=True)
class Embedded:
    """The rows of one batch of images.

    Attributes:
        rows: by tap, float32 [b, d] on the CPU.
        indices: int64 [b], which images of the source they are of.
        labels: int64 [b], -1 where an image has none; None where the source has no labels.
    """

    rows: dict[str, Tensor]
    indices: Tensor
    labels: Tensor | None


def embed_images(
    model: ForeignModel,
    data: Source,
    taps: Sequence[str] | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    *,
    tokens: Tokens = "mean",
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Embedded]:
    """Iterates over the rows of all images once, in order: eval mode, un-augmented, without gradients.

    Images are resized to the model's size (centre crop of its ratio) and normalised with the model's mean and
    std, or with the source's where the model has none on record. An image that cannot be decoded is left out,
    and its index with it.

    Args:
        model: the encoder; it is moved to the device, and its modes are as before when the iterator is done.
        data: the images.
        taps: see `which_taps`; None is `features`, what the network puts out.
        batch_size: images at once.
        device: None is a GPU where there is one, else the CPU.
        tokens: what becomes of the tokens at a transformer's inner taps; features are as the network has
            them.
        workers: processes that decode lazy images; 0 decodes them in this one.
        rank: of this process; each rank gets one contiguous part.
        world_size: number of processes.

    Returns:
        An iterator over `Embedded`.

    Raises:
        UnknownNameError: the network has no such tap.
        UsageError: the batch size makes no sense, or a tap puts out nothing that has rows.
        DataError: while iterating: more images are corrupt than the source tolerates.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive")
    modules = which_taps(model, taps)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    mean = model.mean or data.mean
    std = model.std or data.std
    batches = evaluation_batches(
        data, batch_size, model.image_size, rank, world_size, workers, crop_ratio=model.crop_ratio
    )

    def stream() -> Iterator[Embedded]:
        inner = {name: module for name, module in modules.items() if name != FEATURES}
        prefix = int(getattr(model.network, "num_prefix_tokens", 0))
        last = getattr(model.network, "output_fmt", "") == "NHWC"
        network = model.network.to(where)
        for indices, images in batches:
            with _eval_mode(network), take_taps(inner, tokens, prefix, last) as rows:
                found = network(image_ops.normalize(image_ops.to_float(images.to(where)), mean, std))
                if FEATURES in modules:
                    rows[FEATURES] = found
            silent = [name for name in modules if name not in rows]
            if silent:
                raise UsageError(f"layer {silent[0]!r} is not run on the way to the features: take another")
            labels = None if data.labels is None else torch.from_numpy(data.labels[indices.numpy()])
            yield Embedded({name: rows[name].float().cpu() for name in modules}, indices, labels)

    return stream()


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; leaves every module in the mode that it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
