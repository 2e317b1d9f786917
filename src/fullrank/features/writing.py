"""Writing the features of a data set into a folder, split by split."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import fullrank
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import which_taps
from fullrank.encoders.runs import encoder_header, own_run
from fullrank.errors import UsageError
from fullrank.features.extraction import Augmentation, embed_images, part_of
from fullrank.features.shard_writer import StoreWriter
from fullrank.features.store import INDICES, LAYOUTS
from fullrank.features.subject import open_encoder_subject
from fullrank.images.sources import Source
from fullrank.options import EmbedOptions, OnProgress, split_names
from fullrank.views import VIEWS


@dataclass(frozen=True)
class Written:
    """The features that lie in a folder.

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
    """Rank, processes and rank on this machine of torchrun; (0, 1, 0) without."""
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise UsageError(f"RANK, LOCAL_RANK and WORLD_SIZE are whole numbers: {error}") from error
    if not 0 <= rank < size:
        raise UsageError(f"RANK {rank} is not one of WORLD_SIZE {size} processes")
    return rank, size, local


def write_features(
    what: str | Path, folder: Path, options: EmbedOptions, on_progress: OnProgress | None = None
) -> Written:
    """Write features of images into a folder; see `fullrank.embed`.

    Under torchrun each process writes its contiguous part, and the last one joins them.

    Raises:
        UsageError: the folder holds something else, or an option makes no sense here.
        DataError: no such images, or none of them can be decoded.
    """
    rank, world_size, local = processes()
    gpus = torch.cuda.device_count()
    device = options.device or (f"cuda:{local % gpus}" if gpus else "cpu")
    subject = open_encoder_subject(what, options, split_names(options.taps), options.data, options.limit)
    model, data = subject.encoder, subject.data
    taps = list(which_taps(model, split_names(options.taps)))
    run = own_run(what)
    own = run.config().views if run is not None else options.data
    preset = options.view_preset or (own if own in VIEWS else "simsiam")
    augmentation = Augmentation(options.views, preset, options.seed) if options.views else None
    settings = {
        "subject": str(what),
        "data": options.data or data.name,
        "limit": options.limit,
        "taps": taps,
        "tokens": options.tokens,
        "views": options.views,
        "view_preset": preset if options.views else "",
        "seed": options.seed if options.views else 0,
        "image_size": model.image_size,
        "weights": _digest(model.network),  # last: a folder is refused for what the user said, if for that
    }
    written = Written({}, {}, {}, (*model.notes, *data.notes))
    for split in split_names(options.split):
        source = data.train if split == "train" else data.held_out
        writer = StoreWriter(folder, split, settings, layout=options.format, rank=rank, world_size=world_size)
        if not writer.finished:
            _stream(model, source, writer, options, augmentation, device, on_progress)
        file = writer.finish(
            {
                "classes": source.classes,
                "mean": list(model.mean or source.mean),
                "std": list(model.std or source.std),
                "crop_ratio": model.crop_ratio,
                "images": len(source),
                "model": model.name,
                "origin": model.origin,
                "run": encoder_header(run) if run is not None else None,
                "fullrank": fullrank.__version__,
            }
        )
        if file is not None:
            _, _, column = LAYOUTS[options.format].open(file)
            written.files[split], written.rows[split] = file, len(column(INDICES))
            written.widths.update({tap: column(tap).shape[1] for tap in taps})
    return written


def _stream(
    model: Encoder,
    source: Source,
    writer: StoreWriter,
    options: EmbedOptions,
    augmentation: Augmentation | None,
    device: str,
    on_progress: OnProgress | None,
) -> None:
    part = part_of(len(source), writer.rank, writer.world_size)
    labelled = source.labels is not None and bool((source.labels >= 0).any())
    for batch in embed_images(
        model,
        source,
        split_names(options.taps),
        options.batch_size,
        device,
        tokens=options.tokens,
        workers=options.workers,
        rank=writer.rank,
        world_size=writer.world_size,
        skip=writer.images,
        augmentation=augmentation,
    ):
        done = int(batch.indices[-1]) - int(part[0]) + 1
        writer.add(batch.rows, batch.indices, batch.labels if labelled else None, done)
        if on_progress:
            on_progress(f"embedding {writer.split}", done, len(part))


def _digest(network: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
