"""`fullrank pick RUN...`: which checkpoint or encoder to take, without labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fullrank import api
from fullrank.cli.arguments import make_console, page_path, parse, showing_progress
from fullrank.errors import UsageError
from fullrank.options import PickOptions
from fullrank.terminal import say
from fullrank.untrusted.paths import expand_user


@dataclass(frozen=True)
class Pick(PickOptions):
    """Rank checkpoints of a run, runs of a sweep, or encoders, without labels.

    SUBJECT is a run, for the encoders that it kept (train with --keep-every) and its checkpoints; a folder of
    runs, as a sweep is, for the encoder that each left; or an encoder: a name of timm, torchvision or Hugging
    Face, or a checkpoint of any library. All of them see the same views of the same held-out images; a score
    that was learnt on encoders of known accuracy says which serves best, and how sure that is.

    Example: fullrank pick runs/first

    Example: fullrank pick runs/sweep --within 2

    Example: fullrank pick timm:resnet18 runs/first moco.pth.tar --data photos --download

    Attributes:
        subjects: what is chosen from.
        within: points of k-NN accuracy from the best that count as close to it.
        out: the page, or a folder for its index.html; empty: pick.html beside the runs that are named.
        json: print one object.
    """

    subjects: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SUBJECT...")] = field(
        kw_only=True
    )
    within: float = 1.0
    out: str = ""
    json: bool = False


def _home(subjects: Sequence[str]) -> Path:
    """Folder of the page: that of the first run or runs, else the current one.

    Example:
        >>> _home(["timm:resnet18"]).as_posix()
        '.'
    """
    from fullrank.encoders.runs import own_run
    from fullrank.selection.candidates import runs_below

    for subject in subjects:
        if (found := own_run(subject)) is not None:
            return found.path
        if runs_below(subject):
            return expand_user(subject)
    return Path()


def run(words: Sequence[str]) -> int:
    """Rank, print the table, and write the page."""
    args = parse(Pick, words, "fullrank pick")
    if not args.subjects:
        raise UsageError("SUBJECT is missing: name a run, a folder of runs, or encoders (see --help)")
    page = page_path(args.out, str(_home(args.subjects) / "pick.html"))
    with showing_progress(quiet=args.json) as on_progress:
        found = api.pick(args.subjects, args, within=args.within, out=page, on_progress=on_progress)
    if args.json:
        from fullrank.report.render import plain_json

        print(json.dumps(plain_json({**found.as_dict(), "page": str(page)}), allow_nan=False))
        return 0
    from fullrank.selection.terminal import print_selection

    print_selection(found, make_console(120))
    say(f"page    {page}")
    return 0
