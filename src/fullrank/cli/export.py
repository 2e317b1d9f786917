"""`fullrank export WHAT --to FORMAT`: hands an encoder on, or draws features on a plane."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError

if TYPE_CHECKING:
    from fullrank.encoders.export.writing import Format


@dataclass(frozen=True)
class Export:
    """Writes an encoder for another library, and checks that it gives the same features there.

    WHAT is a run directory, or an encoder: a name of timm, torchvision or Hugging Face, a directory, a
    checkpoint. For --to map it is features: a folder of `fullrank embed`, or a file of embeddings.

    Example: fullrank export runs/first --to timm --out encoders/first

    Example: fullrank export features/first --to map --out maps/first

    Attributes:
        what: a run, an encoder, or features.
        to: timm (a directory as on the Hub), torchvision (a state dict for its ResNets and others), torch
            (the state dict as it is), onnx (batches of any size), or map (features on a plane: a page, SVG,
            PDF, PNG and CSV).
        out: the folder to make.
        image_size: side in pixels that the encoder is fed with; 0: its own.
        arch: architecture of a checkpoint that does not tell it.
        prefix: of the encoder's weights in a checkpoint that holds several.
        stem: of a ResNet with a 3x3 stem, which checkpoints do not tell: cifar, cifar-pad2 (solo-learn's).
        untrained: an encoder of that name with random weights.
        download: fetch weights that are not there.
        map: how features come on a plane: pca, or umap (needs its package).
        tap: which features; empty: what the encoder puts out.
        split: train or test, of a folder of features; empty: test where it is there.
        limit: points on the map, at most, chosen at random.
        seed: of that choice, and of UMAP.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    to: Literal["timm", "torchvision", "torch", "onnx", "map"]
    out: str
    image_size: int = 0
    arch: str = ""
    prefix: str = ""
    stem: Literal["auto", "imagenet", "cifar", "cifar-pad2"] = "auto"
    untrained: bool = False
    download: bool = False
    map: Literal["pca", "umap"] = "pca"
    tap: str = ""
    split: str = ""
    limit: int = 5000
    seed: int = 0
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Exports, and prints what was written."""
    args = parse(Export, words, "fullrank export")
    written = draw_map(args) if args.to == "map" else write_encoder(args, args.to)
    if args.json:
        print(json.dumps(written))
        return 0
    if written.get("caution"):
        print(f"warning {written['caution']}", file=sys.stderr)
    for note in written["notes"]:
        print(f"note    {note}", file=sys.stderr)
    for file in written["files"]:
        print(f"written {Path(written['out'], file)}")
    if "difference" in written:
        print(f"checked features there differ by {written['difference']:.1e} of their size at most")
    return 0


def write_encoder(args: Export, to: Format) -> dict[str, Any]:
    """The encoder for another library; what --json prints."""
    from fullrank.encoders.export.writing import export_encoder
    from fullrank.features.store import is_stored

    if is_stored(Path(args.what)):
        raise UsageError(f"{args.what} holds features, not an encoder: --to map draws them")
    if args.image_size < 0:
        raise UsageError(f"--image-size is in pixels, and is {args.image_size}")
    found = export_encoder(
        args.what,
        to,
        Path(args.out),
        arch=args.arch or None,
        prefix=args.prefix or None,
        stem=args.stem,
        image_size=args.image_size or None,
        pretrained=not args.untrained,
        download=args.download,
    )
    return {
        "out": args.out,
        "files": list(found.files),
        "difference": found.difference,
        "caution": found.caution,
        "notes": found.said["notes"],
        "verdict": found.said.get("verdict") or {},
    }


def draw_map(args: Export) -> dict[str, Any]:
    """Features on a plane; what --json prints."""
    from fullrank.encoders.opening import is_encoder
    from fullrank.features.maps import map_features, read_features, write_csv
    from fullrank.features.store import is_stored
    from fullrank.report.feature_map import write_maps

    if not is_stored(Path(args.what)) and is_encoder(args.what):
        raise UsageError(
            f"{args.what} is an encoder: write its features with `fullrank embed`, then map those"
        )
    folder = Path(args.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: take another --out")
    points = read_features(args.what, args.tap, args.split, args.limit, args.seed)
    found = map_features(points, args.map, args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(found, folder / "map.csv")
    files = [path.name for path in write_maps(found, folder)]
    return {"out": args.out, "files": [*files, "map.csv"], "points": len(found.places), "notes": []}
