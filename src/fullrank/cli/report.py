"""`fullrank report RUN`: writes a run's page anew, also while the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fullrank.cli.arguments import parse


@dataclass(frozen=True)
class Report:
    """Writes RUN/report.html from what the run has logged so far.

    Example: fullrank report runs/first

    Attributes:
        run: the run directory.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def run(words: Sequence[str]) -> int:
    """Writes the page and prints where it is."""
    args = parse(Report, words, "fullrank report")
    from fullrank.report.page import write_page

    print(write_page(Path(args.run)))
    return 0
