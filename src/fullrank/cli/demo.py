"""`fullrank demo`: a healthy run and collapsing ones, compared side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fullrank.cli.arguments import parse
from fullrank.errors import UsageError
from fullrank.terminal import say, say_prose, terminal


@dataclass(frozen=True)
class Demo:
    """Train SimSiam and three broken copies of it on generated images, and compare.

    Takes about a minute on two CPU cores; nothing is downloaded.

    Example: fullrank demo --seed 1

    Attributes:
        out: where the runs and the page go; empty: runs/demo, made anew each time.
        seed: seed of the networks, the order of images and the views.
        epochs: passes over the images; 0: the recipe's 10, below which verdicts may not last.
        json: print one object at the end: arms, each with name, verdict, loss, level, rank, knn.
        quiet: print the closing table only.
    """

    out: str = ""
    seed: int = 0
    epochs: int = 0
    json: bool = False
    quiet: bool = False


def run(words: Sequence[str]) -> int:
    """Train every arm, print the closing table and write the page."""
    args = parse(Demo, words, "fullrank demo")
    if args.epochs < 0 or args.seed < 0:
        raise UsageError("--epochs and --seed must not be negative")
    from fullrank.cli import main
    from fullrank.figures.style import percent
    from fullrank.labs._common.demo import compare_arms, make_room, too_short, train_arms
    from fullrank.report.compare.page import headline
    from fullrank.report.run.arms import arm_row, arms_table, arms_text
    from fullrank.report.run.terminal import is_live

    out = Path(args.out or "runs/demo")
    runs = make_room(out, replace=not args.out)
    mode = "quiet" if args.json or args.quiet else "live" if is_live() else "plain"
    train_arms(runs, args.seed, args.epochs, mode, main)
    note = too_short(args.epochs)
    found = compare_arms(runs, out / "index.html", note)
    if args.json:
        arms = [arm_row(summary, runs[summary.name]) for summary in found.summaries]
        made = {"arms": arms, "baselines": found.baselines, "notes": [note] * bool(note)}
        print(json.dumps(made | {"page": str(found.page)}, indent=2))
        return 0
    if sys.stdout.isatty():
        console = terminal()
        console.print(arms_table(found.summaries, width=console.width))
    else:
        print(arms_text(found.summaries))
    held = ", ".join(f"{name} {percent(value)}" for name, value in found.baselines.items())
    print()
    say_prose(f"k-NN to hold these against: {held}.")
    best, below = headline(found.summaries)
    say_prose(f"{best}: {below} The page shows what tells the arms apart.")
    if note:
        say_prose(f"note    {note}")
    say(f"page    {found.page}")
    return 0
