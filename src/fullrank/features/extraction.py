"""Images through an encoder in eval mode: rows of any of its layer outputs (taps)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import FEATURES, Tokens, take_taps, which_taps
from fullrank.errors import DataError, UsageError
from fullrank.features.augmented import Augmentation, augmented_batches
from fullrank.images.loader import evaluation_batches
from fullrank.images.sources import Indices, Source
from fullrank.options import OnProgress
from fullrank.views import image_ops

__all__ = ["Embedded", "embed_images", "embed_whole", "part_of"]


@dataclass(frozen=True)
class Embedded:
    """Rows of one batch of images.

    Attributes:
        rows: by tap, float32 [b, d] on the CPU; with k augmented views [b * k, d], the views of an image in
            turn.
        indices: int64 [b], which images of the source they are of; [b * k] with views.
        labels: int64 [b] or [b * k], -1 where an image has none; None where the source has no labels.
    """

    rows: dict[str, Tensor]
    indices: Tensor
    labels: Tensor | None


def embed_images(
    model: Encoder,
    data: Source,
    taps: Sequence[str] | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    *,
    tokens: Tokens = "mean",
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    skip: int = 0,
    augmentation: Augmentation | None = None,
) -> Iterator[Embedded]:
    """Iterate over the rows of all images in order: eval mode, no gradients.

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
        skip: so many of this process's images are done already.
        augmentation: k random views of each image; None shows it once, as it is.

    Raises:
        UnknownNameError: the network has no such tap.
        UsageError: the batch size makes no sense, or a tap puts out nothing that has rows.
        DataError: while iterating: more images are corrupt than the source tolerates.

    Example:
        >>> from fullrank.encoders.opening import open_encoder
        >>> from fullrank.images.opening import open_data
        >>> model = open_encoder("timm:resnet18", pretrained=False, image_size=32)
        >>> images = open_data("shapes", limit=10).train
        >>> for batch in embed_images(model, images, taps=["layer2", "features"], device="cpu"):
        ...     {tap: tuple(rows.shape) for tap, rows in batch.rows.items()}
        {'layer2': (10, 128), 'features': (10, 512)}
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive")
    modules = which_taps(model, taps)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    mean = model.mean or data.mean
    std = model.std or data.std
    part = part_of(len(data), rank, world_size)[skip:]

    def batches() -> Iterator[tuple[Tensor, list[Tensor]]]:
        if augmentation is not None:
            views = augmentation.views(model.image_size, mean, std)
            yield from augmented_batches(data, part, batch_size, views, augmentation.seed, workers, where)
            return
        mine = data if len(part) == len(data) else data.subset(part)
        size, ratio = model.image_size, model.crop_ratio
        for indices, images in evaluation_batches(mine, batch_size, size, workers=workers, crop_ratio=ratio):
            seen = image_ops.normalize(image_ops.to_float(images.to(where)), mean, std)
            yield torch.from_numpy(part)[indices], [seen]

    def stream() -> Iterator[Embedded]:
        inner = {name: module for name, module in modules.items() if name != FEATURES}
        prefix = int(getattr(model.network, "num_prefix_tokens", 0))
        last = getattr(model.network, "output_fmt", "") == "NHWC"
        network = model.network.to(where)
        for indices, views in batches():
            outputs: list[dict[str, Tensor]] = []
            with _eval_mode(network), take_taps(inner, tokens, prefix, last) as rows:
                for images in views:
                    features = network(images)
                    outputs.append({**rows, FEATURES: features})
            silent = [name for name in modules if name not in outputs[0]]
            if silent:
                raise UsageError(f"layer {silent[0]!r} is not run on the way to the features: take another")
            indices = indices.repeat_interleave(len(views))
            labels = None if data.labels is None else torch.from_numpy(data.labels[indices.numpy()])
            yield Embedded({name: _in_turn([z[name] for z in outputs]) for name in modules}, indices, labels)

    return stream()


def embed_whole(
    model: Encoder,
    source: Source,
    tap: str = FEATURES,
    batch_size: int = 256,
    on_progress: OnProgress | None = None,
    task: str = "embedding",
) -> tuple[Tensor, Tensor | None]:
    """Rows float32 [n, d] of all images at one tap, and their labels int64 [n].

    `task` is what `on_progress` is called with. Raises DataError where no image can be decoded.
    """
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    done = 0
    for batch in embed_images(model, source, [tap], batch_size):
        rows.append(batch.rows[tap])
        labels += [] if batch.labels is None else [batch.labels]
        done += len(batch.indices)
        if on_progress:
            on_progress(task, done, len(source))
    if not rows:
        raise DataError(f"{source.name} has no image that can be decoded")
    return torch.cat(rows), torch.cat(labels) if labels else None


def part_of(n: int, rank: int, world_size: int) -> Indices:
    """The images of one process, of n in all: a contiguous part.

    Example:
        >>> part_of(7, 1, 3).tolist()
        [3, 4]
    """
    return np.array_split(np.arange(n), world_size)[rank]


def _in_turn(views: list[Tensor]) -> Tensor:
    """Rows [b, d] of k views as [b * k, d] on the CPU, image by image."""
    return torch.stack(views, 1).flatten(0, 1).float().cpu()


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
