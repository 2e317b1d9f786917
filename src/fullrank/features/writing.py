"""Embeds the images of a data set and writes their features down, split by split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import FEATURES, Tokens, which_taps
from fullrank.encoders.runs import encoder_header, open_with_taps, own_data, own_run
from fullrank.errors import UnknownNameError, UsageError
from fullrank.features.augmented import Augmentation
from fullrank.features.extraction import embed_images, part_of
from fullrank.features.layouts import INDICES, LAYOUTS, LayoutName
from fullrank.features.shard_writer import SPLITS, StoreWriter
from fullrank.images.sources import Data, Source
from fullrank.views.views import VIEWS

__all__ = ["EmbedOptions", "Written", "processes", "write_features"]


@dataclass(frozen=True)
class EmbedOptions:
    """How features are wanted.

    Attributes:
        data: images: a name or a folder; "" is a run's own.
        splits: `train`, `test`.
        taps: where to look into the encoder; `all` is every layer.
        views: augmented views of each image; 0 shows it once, as it is.
        view_preset: how they are augmented; "" is the run's or the data's way, else SimSiam's.
        seed: of the augmentation.
        layout: of the files.
        tokens: what becomes of the tokens at a transformer's inner taps.
        limit: images of a split, at most; 0 is all.
        batch_size: images at once.
        workers: processes that decode images.
        device: where the network runs; None is a GPU where there is one.
        untrained: the network of a name with random weights.
        download: fetch weights or data that are not there.
        opening: further options of `open_encoder`.
    """

    data: str = ""
    splits: tuple[str, ...] = SPLITS
    taps: tuple[str, ...] = (FEATURES,)
    views: int = 0
    view_preset: str = ""
    seed: int = 0
    layout: LayoutName = "safetensors"
    tokens: Tokens = "mean"
    limit: int = 0
    batch_size: int = 256
    workers: int = 0
    device: str | None = None
    untrained: bool = False
    download: bool = False
    opening: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in SPLITS:
                raise UnknownNameError("split", split, SPLITS)
        if not self.splits:
            raise UsageError("no split is named; take train, test or both")
        for name in ("views", "limit", "seed", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} must not be negative, and is {getattr(self, name)}")
        if self.batch_size < 1:
            raise UsageError(f"batch size {self.batch_size} is not positive")
        if self.view_preset and not self.views:
            raise UsageError("--view-preset says how to augment: add --views with a number of views")


@dataclass(frozen=True)
class Written:
    """What lies in the folder now.

    Attributes:
        files: by split; without those that other processes are still at work on.
        rows: by split, how many there are.
        widths: of the rows, by tap.
        notes: one line each, on the images and the network.
    """

    files: dict[str, Path]
    rows: dict[str, int]
    widths: dict[str, int]
    notes: tuple[str, ...]


def processes() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as torchrun says them; (0, 1, 0) without it.

    Raises:
        UsageError: the environment says nonsense.
    """
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise UsageError(f"RANK, LOCAL_RANK and WORLD_SIZE are whole numbers: {error}") from error
    if not 0 <= rank < size:
        raise UsageError(f"RANK {rank} is not one of WORLD_SIZE {size} processes")
    return rank, size, local


def write_features(
    what: str | Path,
    folder: Path,
    wishes: EmbedOptions,
    progress: Callable[[str, int, int], None] | None = None,
) -> Written:
    """Writes the features of images into a folder, or goes on where the same wishes were interrupted.

    Under torchrun each process writes its contiguous part, and the last one joins them.

    Args:
        what: a run of ours, or an encoder as `open_encoder` takes it.
        folder: see `fullrank.features.store`.
        wishes: how.
        progress: told what is done, how far it is, and how far it goes.

    Returns:
        What was written.

    Raises:
        UsageError: the folder holds something else, or an option makes no sense here.
        DataError: no such images, or none of them can be decoded.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     wishes = EmbedOptions("shapes", ("test",), limit=20, untrained=True)
        ...     written = write_features("resnet18", Path(place, "F"), wishes)
        >>> written.rows, written.widths, written.files["test"].name
        ({'test': 20}, {'features': 512}, 'test.safetensors')
    """
    rank, world_size, local = processes()
    gpus = torch.cuda.device_count()
    device = wishes.device or (f"cuda:{local % gpus}" if gpus else "cpu")
    model, data, preset = _opened(what, wishes)
    taps = list(which_taps(model, wishes.taps))
    augmentation = Augmentation(wishes.views, preset, wishes.seed) if wishes.views else None
    wish = {
        "subject": str(what),
        "data": wishes.data or data.name,
        "limit": wishes.limit,
        "taps": taps,
        "tokens": wishes.tokens,
        "views": wishes.views,
        "view_preset": preset if wishes.views else "",
        "seed": wishes.seed if wishes.views else 0,
        "image_size": model.image_size,
        "weights": _digest(model.network),  # last: a folder is refused for what the user said, if for that
    }
    written = Written({}, {}, {}, (*model.notes, *data.notes))
    for split in wishes.splits:
        source = data.train if split == "train" else data.held_out
        writer = StoreWriter(folder, split, wish, layout=wishes.layout, rank=rank, world_size=world_size)
        if not writer.finished:
            _stream(model, source, writer, wishes, augmentation, device, progress)
        file = writer.finish(_provenance(what, model, source))
        if file is not None:
            _, _, column = LAYOUTS[wishes.layout].open(file)
            written.files[split], written.rows[split] = file, len(column(INDICES))
            written.widths.update({tap: column(tap).shape[1] for tap in taps})
    return written


def _opened(what: str | Path, wishes: EmbedOptions) -> tuple[Encoder, Data, str]:
    """The encoder, the images, and how they would be augmented."""
    from fullrank.images.opening import open_data

    run = own_run(what)
    if run is None and not wishes.data:
        raise UsageError(
            "an encoder needs images: add --data with a folder, or a name of `fullrank list data`"
        )
    if wishes.untrained and Path(what).expanduser().exists():
        raise UsageError(f"--untrained is for encoders by name; {what} brings its weights along")
    options = {**wishes.opening, "download": wishes.download, "pretrained": not wishes.untrained}
    model = open_with_taps(what, wishes.taps, **options)
    if wishes.data:
        data = open_data(wishes.data, limit=wishes.limit or None, download=wishes.download)
    else:
        assert run is not None
        data = own_data(run.config(), wishes.limit, wishes.download)
    own = run.config().views if run is not None else wishes.data
    return model, data, wishes.view_preset or (own if own in VIEWS else "simsiam")


def _stream(
    model: Encoder,
    source: Source,
    writer: StoreWriter,
    wishes: EmbedOptions,
    augmentation: Augmentation | None,
    device: str,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """This process's part, from where it was interrupted."""
    part = part_of(len(source), writer.rank, writer.world_size)
    what, labelled = (
        f"embedding {writer.split}",
        source.labels is not None and bool((source.labels >= 0).any()),
    )
    for batch in embed_images(
        model,
        source,
        wishes.taps,
        wishes.batch_size,
        device,
        tokens=wishes.tokens,
        workers=wishes.workers,
        rank=writer.rank,
        world_size=writer.world_size,
        skip=writer.images,
        augmentation=augmentation,
    ):
        done = int(batch.indices[-1]) - int(part[0]) + 1
        writer.add(batch.rows, batch.indices, batch.labels if labelled else None, done)
        if progress:
            progress(what, done, len(part))


def _provenance(what: str | Path, model: Encoder, source: Source) -> dict[str, Any]:
    """What a reader of the file should know besides what was wished for."""
    run = own_run(what)
    return {
        "classes": source.classes,
        "mean": list(model.mean or source.mean),
        "std": list(model.std or source.std),
        "crop_ratio": model.crop_ratio,
        "images": len(source),
        "model": model.name,
        "origin": model.origin,
        "run": encoder_header(run) if run is not None else None,
        "fullrank": version("fullrank"),
    }


def _digest(network: nn.Module) -> str:
    """Tells networks with other weights apart."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
