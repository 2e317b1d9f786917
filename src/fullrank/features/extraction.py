"""Images through an encoder in eval mode: rows of any of its layer outputs (taps)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fullrank.coercion import shown
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import FEATURES, Tokens, take_taps, which_taps
from fullrank.errors import DataError, UsageError
from fullrank.eval_mode import eval_mode
from fullrank.images.batch_loaders import LazyLoader, Wanted
from fullrank.images.loader import evaluation_batches
from fullrank.images.sources import Indices, LazySource, MemorySource, Source
from fullrank.options import OnProgress
from fullrank.views import VIEWS, Params, Views, image_ops

BLOCK = 256  # images whose views are sampled together; an image's place in the source decides its block


@dataclass(frozen=True)
class Augmentation:
    """How often an image is seen, and how.

    Attributes:
        count: k, views of an image.
        preset: a name of `VIEWS`; its full-sized views take turns, small crops are left out.
        seed: of everything random.
    """

    count: int
    preset: str = "simsiam"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{self.count} augmented views are none: take 1 or more")
        VIEWS[self.preset]

    def views(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Views:
        """The k views of images of this size."""
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
    """
    from fullrank.training.setup import CropViews, generator_of

    cuts = [
        np.asarray(block[k : k + batch_size])
        for block in (list(same) for _, same in groupby(part.tolist(), lambda index: index // BLOCK))
        for k in range(0, len(block), batch_size)
    ]
    size = source.image_size if isinstance(source, MemorySource) else None
    height, width = size or (views.image_size, views.image_size)

    def params_of(indices: Tensor) -> Params:
        generator = generator_of(seed, 0, int(indices[0]) // BLOCK)
        return views.sample(BLOCK, height, width, generator).rows(indices % BLOCK)

    if isinstance(source, LazySource):
        lazy = LazyLoader(source, CropViews(views, seed), workers, replace_corrupt=False)
        plan = (Wanted(cut, 0, cut) for cut in cuts)
        with closing(lazy):
            for indices, crops in lazy.load(plan):
                if len(indices):
                    yield indices, views.finish([crop.to(device) for crop in crops], params_of(indices))
        return
    assert isinstance(source, MemorySource)
    for cut in cuts:
        indices = torch.from_numpy(cut)
        images = source.images.index_select(0, indices.to(source.images.device))
        yield indices, views(images.to(device), params_of(indices))


def device_of(device: torch.device | str | None) -> torch.device:
    """A device that is there; None or "" is a GPU where there is one, else the CPU.

    Raises:
        UsageError: no such device.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        there = ", ".join(["cpu", *(f"cuda:{k}" for k in range(gpus))])
        raise UsageError(f"--device {shown(device)} is not there; there is {there}") from error
    return where


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
        taps: see `which_taps`; None is `features`, what the network puts out.
        device: None is a GPU where there is one, else the CPU.
        tokens: what becomes of the tokens at a transformer's inner taps; features are as the network has
            them.
        workers: processes that decode lazy images; 0 decodes them in this one.
        rank, world_size: of this process and their number; each rank gets one contiguous part.
        skip: so many of this process's images are done already.
        augmentation: k random views of each image; None shows it once, as it is.

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
    where = device_of(device)
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
            with eval_mode(network), take_taps(inner, tokens, prefix, last) as rows:
                for images in views:
                    features = network(images)
                    outputs.append({**rows, FEATURES: features})
            silent = [name for name in modules if name not in outputs[0]]
            if silent:
                raise UsageError(f"layer {silent[0]!r} is not run on the way to the features: take another")
            indices = indices.repeat_interleave(len(views))
            labels = None if data.labels is None else torch.from_numpy(data.labels[indices.numpy()])
            stacked = (torch.stack([z[name] for z in outputs], 1) for name in modules)  # [b, k, d] each
            rows_of = {name: z.flatten(0, 1).float().cpu() for name, z in zip(modules, stacked, strict=True)}
            yield Embedded(rows_of, indices, labels)

    return stream()


def embed_whole(
    model: Encoder,
    source: Source,
    tap: str = FEATURES,
    batch_size: int = 256,
    on_progress: OnProgress | None = None,
    task: str = "embedding",
    *,
    device: torch.device | str | None = None,
    augmentation: Augmentation | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Rows float32 [n, d] of all images at one tap, and their labels int64 [n].

    `task` is what `on_progress` is called with; the rest is as `embed_images` has it. Raises DataError where
    no image can be decoded.
    """
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    done = 0
    total = len(source) * (augmentation.count if augmentation else 1)
    for batch in embed_images(model, source, [tap], batch_size, device, augmentation=augmentation):
        rows.append(batch.rows[tap])
        labels += [] if batch.labels is None else [batch.labels]
        done += len(batch.indices)
        if on_progress:
            on_progress(task, done, total)
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
