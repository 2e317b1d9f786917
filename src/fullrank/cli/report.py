"""`fullrank report RUN`: writes a run's page anew, also while the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fullrank.cli.arguments import parse
from fullrank.terminal import say


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html from the log of a run, finished or not.

    Of an adaptation that has ended, RUN/adaptation.html, too.

    Example: fullrank report runs/first

    Attributes:
        run: the run directory.
        figures: also write figures for a paper into RUN/figures, as SVG, PDF and PNG.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    figures: bool = False


def run(words: Sequence[str]) -> int:
    """Write the page and print where it is."""
    args = parse(Report, words, "fullrank report")
    from fullrank.adaptation.page import write_pages

    for page in write_pages(Path(args.run), lambda note: say(f"note    {note}", sys.stderr)):
        say(str(page))
    if args.figures:
        from fullrank.report.run.figures import write_run_figures

        for path in write_run_figures(args.run):
            say(str(path))
    return 0
