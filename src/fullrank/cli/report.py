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
    """Write RUN/report.html from the log of a run, finished or not.

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
    from fullrank.report.run.page import write_page

    print(write_page(Path(args.run)))
    if args.figures:
        from fullrank.report.run.figures import write_run_figures

        for path in write_run_figures(args.run):
            print(path)
    return 0
