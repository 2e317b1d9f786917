"""`fullrank embed RUN|MODEL`: writes the features of images down."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from fullrank import api
from fullrank.cli.arguments import What, parse, showing_progress
from fullrank.options import EmbedOptions, split_names
from fullrank.terminal import say


@dataclass(frozen=True)
class Embed(EmbedOptions):
    """Write features of images at any layer output (tap) of an encoder.

    WHAT is a run directory, which has images of its own, or an encoder: a name of timm, torchvision or
    Hugging Face, a directory, a checkpoint. The same command goes on where it was interrupted, and under
    torchrun each process writes its part. With --slurm it is a job of SLURM: --slurm --help.

    Example: fullrank embed runs/first --taps features,projector --out features/first

    Example: fullrank embed timm:resnet18 --data photos --split train --out features/photos --download

    Attributes:
        what: a run or an encoder.
        out: the folder to write, one file a split.
        json: print one object.
    """

    what: What = field(kw_only=True)
    out: str = field(kw_only=True)
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Embed, write, and print where it is."""
    args = parse(Embed, words, "fullrank embed")
    with showing_progress(quiet=args.json) as on_progress:
        written = api.embed(args.what, args.out, args, on_progress=on_progress)
    if len(written.files) < len(split_names(args.split)):
        return 0  # other processes are still at work, and the last one speaks
    if args.json:
        printed = {
            "out": args.out,
            "files": {split: str(file) for split, file in written.files.items()},
            "rows": written.rows,
            "taps": written.widths,
            "notes": list(written.notes),
        }
        print(json.dumps(printed))
        return 0
    for note in written.notes:
        say(f"note    {note}", file=sys.stderr)
    taps = ", ".join(f"{tap} {width}" for tap, width in written.widths.items())
    for split, file in written.files.items():
        say(f"{split:<7} {written.rows[split]:,} rows of {taps}: {file}")
    return 0
