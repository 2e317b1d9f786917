"""`fullrank compare RUN... [MODEL ...]`: several runs and models in one table and on one page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError


@dataclass(frozen=True)
class Compare:
    """Sets runs, methods and other people's encoders side by side: loss, verdict, ranks, probes, time.

    SUBJECT is a run directory; an encoder (a name of timm, torchvision or Hugging Face, or a checkpoint of
    any library); embeddings (a file, or a folder of `fullrank embed`); or a folder of `fullrank audit`.
    Runs that differ in nothing but their seed are one arm, with a mean and a 95 % interval.

    Example: fullrank compare runs/simsiam-s0 runs/simsiam-s1 runs/simsiam-s2 runs/barlow

    Example: fullrank compare runs/first timm:resnet18 moco.pth.tar --data photos --download

    Attributes:
        subjects: what is compared.
        data: images that every encoder sees, a folder or a name of `fullrank list data`; empty: those that
            all runs were trained on.
        out: the page; empty: compare.html.
        names: what to call the arms, with commas between, in the order in which they begin.
        queries: held-out images, at most: their features are audited and k-NN names their labels.
        bank: training images among which k-NN seeks neighbours, at most.
        k: neighbours.
        measure: send the images through every encoder; without it runs are shown as they were logged.
        download: fetch weights or data that are not there.
        json: print one object.
    """

    subjects: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SUBJECT...")]
    data: str = ""
    out: str = ""
    names: str = ""
    queries: int = 2048
    bank: int = 10000
    k: int = 20
    measure: bool = True
    download: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Opens and measures what is compared, prints it, and writes the page."""
    args = parse(Compare, words, "fullrank compare")
    if not args.subjects:
        raise UsageError(
            "SUBJECT is missing: name runs, encoders or embeddings (see fullrank compare --help)"
        )
    out = Path(args.out or "compare.html")
    if out.is_dir():
        raise UsageError(f"{out} is a folder: --out takes the page's file, as in {out / 'compare.html'}")
    from fullrank.cli.audit import names, showing_progress
    from fullrank.report.compare.arms import Comparison, gather
    from fullrank.report.compare.measures import measure
    from fullrank.report.compare.page import write_arms
    from fullrank.report.compare.subjects import open_subject
    from fullrank.report.compare.terminal import print_comparison

    opened = [open_subject(word, download=args.download, measure=args.measure) for word in args.subjects]
    called = names(args.names) or None
    gather(opened, called)  # names are refused before anything is measured
    notes = [note for subject in opened for note in subject.notes]
    images, note = chosen_images(args, opened)
    with showing_progress(quiet=args.json) as progress:
        measured = opened if images is None else [measure(subject, images, progress) for subject in opened]
    arms = gather(measured, called)
    about = [] if images is None else [f"{images.data}: {line}" for line in images.notes]
    comparison = Comparison(arms, images, [*([note] if note else []), *about, *dict.fromkeys(notes)])
    page = write_arms(comparison, out, title(arms))
    if args.json:
        print(json.dumps(as_object(comparison, page), allow_nan=False))
        return 0
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=150, highlight=False)
    print_comparison(comparison, console)
    print(f"page    {page}")
    return 0


def chosen_images(args: Compare, subjects: Sequence[Any]) -> tuple[Any, str]:
    """The images that every encoder is to see, if any, and a line on where they are from or why not."""
    from fullrank.report.compare.measures import choose_images, shared_data

    encoders = [subject for subject in subjects if subject.kind == "encoder"]
    if encoders and not args.measure:
        raise UsageError(f"{encoders[0].word} is an encoder: nothing is known of it without --measure")
    if not any(subject.model for subject in subjects):
        return None, ""
    shared = shared_data(subjects)
    if args.data and args.data != shared.get("data"):
        shared = {"data": args.data}
    if not shared and encoders:
        which = (
            "no run brings any"
            if not any(s.run for s in subjects)
            else "the runs were trained on different ones"
        )
        raise UsageError(f"{encoders[0].word} needs images, and {which}: add --data")
    if not shared:
        return None, "No k-NN on the same images: the runs were trained on different ones. Add --data."
    images = choose_images(**shared, bank=args.bank, queries=args.queries, k=args.k, download=args.download)
    said = "" if args.data else f"Images: {images.data}, which all runs were trained on; --data takes others."
    return images, said


def title(arms: Sequence[Any]) -> str:
    """The arms by name, where that is not too long."""
    listed = ", ".join(arm.name for arm in arms)
    return listed if len(listed) <= 70 else f"{len(arms)} arms compared"


def as_object(comparison: Any, page: Path) -> dict[str, Any]:
    """All that was found, as JSON has it."""
    from fullrank.report.compare.cautions import cautions
    from fullrank.report.render import plain_json

    found = {
        "arms": [arm.as_dict() for arm in comparison.arms],
        "images": comparison.images.as_dict() if comparison.images else None,
        "cautions": cautions(comparison),
        "notes": list(comparison.notes),
        "page": str(page),
    }
    cleaned: dict[str, Any] = plain_json(found)
    return cleaned
