"""`fullrank compare RUN... [MODEL ...]`: runs and models in one table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Annotated

import tyro

from fullrank import api
from fullrank.cli.arguments import make_console, page_path, parse, showing_progress
from fullrank.errors import UsageError
from fullrank.options import CompareOptions
from fullrank.terminal import say

HEAD = 1 << 16  # characters of a page in which its title stands


@dataclass(frozen=True)
class Compare(CompareOptions):
    """Compare runs, methods and encoders by loss, verdict, ranks, probes and time.

    SUBJECT is a run directory; an encoder (a name of timm, torchvision or Hugging Face, or a checkpoint of
    any library); embeddings (a file, or a folder of `fullrank embed`); or a folder of `fullrank audit`.
    Runs that differ in nothing but their seed are one arm, with a mean and a 95 % interval.

    Example: fullrank compare runs/simsiam-s0 runs/simsiam-s1 runs/simsiam-s2 runs/barlow

    Example: fullrank compare runs/first timm:resnet18 moco.pth.tar --data photos --download

    Example: fullrank compare runs/first timm:resnet18 --untrained --data photos

    Attributes:
        subjects: what is compared.
        out: the page, or a folder for its index.html; empty: compare.html.
        json: print one object.
    """

    subjects: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SUBJECT...")] = field(
        kw_only=True
    )
    out: str = ""
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Compare, print the tables, and write the page."""
    args = parse(Compare, words, "fullrank compare")
    if not args.subjects:
        raise UsageError(
            "SUBJECT is missing: name runs, encoders or embeddings (see fullrank compare --help)"
        )
    page = page_path(args.out, "compare.html")
    before = _title(page)
    with showing_progress(quiet=args.json) as on_progress:
        comparison = api.compare(args.subjects, args, out=page, on_progress=on_progress)
    if not args.json and before not in ("", _title(page)):
        say(f"note    {page} was of {before}, and is replaced: --out keeps both", sys.stderr)
    if args.json:
        from fullrank.report.compare.cautions import cautions
        from fullrank.report.render import plain_json

        printed = {
            "arms": [arm.as_dict() for arm in comparison.arms],
            "images": comparison.images.as_dict() if comparison.images else None,
            "cautions": cautions(comparison),
            "notes": list(comparison.notes),
            "page": str(page),
        }
        print(json.dumps(plain_json(printed), allow_nan=False))
        return 0
    from fullrank.report.compare.terminal import print_comparison

    print_comparison(comparison, make_console(150))
    say(f"page    {page}")
    return 0


def _title(page: Path) -> str:
    """What a page that is there compares; empty without one."""
    if not page.is_file():
        return ""
    with page.open(encoding="utf-8", errors="replace") as file:
        found = re.search(r"<title>(.*?)</title>", file.read(HEAD), re.DOTALL)
    return unescape(found[1]).strip() if found else "something else"
