"""`fullrank resume RUN`: continue a run exactly from its last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fullrank import api
from fullrank.cli.arguments import parse
from fullrank.cli.train import follow


@dataclass(frozen=True)
class Resume:
    """Continue a run from its last checkpoint, as if it had not been interrupted.

    Example: fullrank resume runs/first

    Attributes:
        run: the run directory.
        quiet: print nothing but errors.
        json: print one object at the end: run, verdict, loss, level, rank, knn, linear.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    quiet: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Continue a run."""
    args = parse(Resume, words, "fullrank resume")
    from fullrank.training.run_dir import RunDir

    path = Path(args.run)
    logs = RunDir.open(path).config().log
    return follow(lambda listeners: api.resume(path, listeners=listeners), path, logs, args)
