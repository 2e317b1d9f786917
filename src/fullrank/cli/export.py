"""`fullrank export WHAT --to FORMAT`: an encoder for another library."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fullrank import api
from fullrank.cli.arguments import What, parse
from fullrank.options import ExportOptions, new_folder
from fullrank.terminal import say


@dataclass(frozen=True)
class Export(ExportOptions):
    """Export an encoder for another library, and check its features there.

    WHAT is a run directory, or an encoder: a name of timm, torchvision or Hugging Face, a directory, a
    checkpoint. For --to map it is features: a folder of `fullrank embed`, or a file of embeddings; for
    --to fiftyone such a folder, with the images as --data.

    Example: fullrank export runs/first --to torch --out encoders/first

    Example: fullrank export features/first --to map --out maps/first

    Attributes:
        what: a run, an encoder, or features.
        to: timm (a directory as on the Hub), torchvision (a state dict for its ResNets and others, also with
            the stem for small images), torch (the state dict as it is, of any run), onnx (batches of any
            size), map (features on a plane: a page, SVG, PDF, PNG and CSV), or fiftyone (a map and its
            images, for FiftyOne to import).
        out: the folder to make.
        json: print one object.
    """

    what: What = field(kw_only=True)
    to: Literal["timm", "torchvision", "torch", "onnx", "map", "fiftyone"] = field(kw_only=True)
    out: str = field(kw_only=True)
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Export, and print the files."""
    args = parse(Export, words, "fullrank export")
    written = write_map(args) if args.to in ("map", "fiftyone") else write_encoder(args)
    if args.json:
        print(json.dumps(written))
        return 0
    if written.get("caution"):
        say(f"warning {written['caution']}", file=sys.stderr)
    for note in written["notes"]:
        say(f"note    {note}", file=sys.stderr)
    for file in written["files"]:
        say(f"written {Path(written['out'], file)}")
    if "difference" in written:
        say(f"checked features there differ by {written['difference']:.1e} of their size at most")
    return 0


def write_encoder(args: Export) -> dict[str, Any]:
    """The encoder for another library; what --json prints."""
    to: Any = args.to
    exported = api.export(args.what, to, args.out, args)
    return {
        "out": args.out,
        "files": list(exported.files),
        "difference": exported.difference,
        "caution": exported.caution,
        "notes": exported.said["notes"],
        "verdict": exported.said.get("verdict") or {},
    }


def write_map(args: Export) -> dict[str, Any]:
    """Features on a plane, for people or for FiftyOne; what --json prints."""
    from fullrank.features.fiftyone import mapped_images, write_fiftyone
    from fullrank.features.maps import map_features, read_features, write_csv
    from fullrank.report.feature_map import write_maps

    folder = new_folder(args.out)
    points = read_features(args.what, args.tap, args.split, args.limit, args.seed)
    features = map_features(points, args.map, args.seed)
    if args.to == "fiftyone":
        images = mapped_images(args.what, args.split, args.data, args.download)
        folder.mkdir(parents=True, exist_ok=True)
        files = write_fiftyone(features, images, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(features, folder / "map.csv")
        files = [*(path.name for path in write_maps(features, folder)), "map.csv"]
    return {"out": args.out, "files": files, "points": len(features.places), "notes": []}
