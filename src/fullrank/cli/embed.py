"""`fullrank embed RUN|MODEL`: writes the features of images down."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError


@dataclass(frozen=True)
class Embed:
    """Writes the features of images, of any tap of an encoder, with labels, indices and provenance.

    WHAT is a run directory, which has images of its own, or an encoder: a name of timm, torchvision or
    Hugging Face, a directory, a checkpoint. The same command goes on where it was interrupted, and under
    torchrun each process writes its part.

    Example: fullrank embed runs/first --taps features,projector --out features/first

    Example: fullrank embed timm:resnet18 --data photos --split train --out features/photos --download

    Attributes:
        what: a run or an encoder.
        out: the folder to write, one file a split.
        data: images: a folder, or a name of `fullrank list data`; empty: those of the run.
        split: train and test (held-out) images, with commas between.
        taps: with commas between: features (what the encoder puts out), all (every layer too), names of
            layers, and for a run projector, predictor, target and codes.
        format: of the files: safetensors, parquet, or npy (memory maps).
        views: augmented views of each image; 0: each image once, as it is.
        view_preset: how they are augmented (`fullrank list views`); empty: as the run does, or the data's
            own way, else simsiam.
        seed: of the augmentation.
        tokens: what becomes of a transformer's tokens at inner layers: mean or class.
        limit: images of a split, at most; 0: all.
        image_size: side in pixels that the encoder is fed with; 0: its own.
        batch_size: images at once.
        workers: processes that decode images which do not fit in memory.
        device: as cuda:1 or cpu; empty: a GPU where there is one.
        arch: architecture of a checkpoint that does not tell it.
        prefix: of the encoder's weights in a checkpoint that holds several.
        stem: of a ResNet with a 3x3 stem, which checkpoints do not tell: cifar, cifar-pad2 (solo-learn's).
        untrained: an encoder of that name with random weights.
        download: fetch weights or data that are not there.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    out: str
    data: str = ""
    split: str = "train,test"
    taps: str = "features"
    format: Literal["safetensors", "parquet", "npy"] = "safetensors"
    views: int = 0
    view_preset: str = ""
    seed: int = 0
    tokens: Literal["mean", "class"] = "mean"
    limit: int = 0
    image_size: int = 0
    batch_size: int = 256
    workers: int = 0
    device: str = ""
    arch: str = ""
    prefix: str = ""
    stem: Literal["auto", "imagenet", "cifar", "cifar-pad2"] = "auto"
    untrained: bool = False
    download: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Embeds, writes, and prints where it is."""
    args = parse(Embed, words, "fullrank embed")
    from fullrank.cli.audit import names, showing_progress
    from fullrank.features.writing import EmbedOptions, write_features

    if args.image_size < 0:
        raise UsageError(f"--image-size is in pixels, and is {args.image_size}")
    opening = {"arch": args.arch, "prefix": args.prefix, "image_size": args.image_size}
    wishes = EmbedOptions(
        data=args.data,
        splits=tuple(names(args.split)),
        taps=tuple(names(args.taps)),
        views=args.views,
        view_preset=args.view_preset,
        seed=args.seed,
        layout=args.format,
        tokens=args.tokens,
        limit=args.limit,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device or None,
        untrained=args.untrained,
        download=args.download,
        opening={key: value for key, value in opening.items() if value} | {"stem": args.stem},
    )
    with showing_progress(quiet=args.json) as progress:
        written = write_features(args.what, Path(args.out), wishes, progress)
    if len(written.files) < len(wishes.splits):  # other processes are still at work, and the last one speaks
        return 0
    if args.json:
        print(json.dumps(result(args.out, written)))
        return 0
    for note in written.notes:
        print(f"note    {note}", file=sys.stderr)
    taps = ", ".join(f"{tap} {width}" for tap, width in written.widths.items())
    for split, file in written.files.items():
        print(f"{split:<7} {written.rows[split]:,} rows of {taps}: {file}")
    return 0


def result(out: str, written: Any) -> dict[str, Any]:
    """What --json prints."""
    return {
        "out": out,
        "files": {split: str(file) for split, file in written.files.items()},
        "rows": written.rows,
        "taps": written.widths,
        "notes": list(written.notes),
    }
