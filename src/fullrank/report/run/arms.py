"""Several runs in one table: while they train, and at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fullrank.figures.style import BLUE, GREEN, count, duration, number, percent
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.run.terminal import sparkline
from fullrank.report.tables import plain_table
from fullrank.report.verdicts import in_short

WIDE = 100  # columns of a terminal
COLUMNS = ("Arm", "Verdict", "Loss", "Level", "Rank / d", "k-NN")


def arms_table(rows: Iterable[Summary], total_steps: int = 0, width: int = 80) -> Table:
    """A row an arm; `total_steps` adds progress, a wide console loss and blemishes.

    Example:
        >>> arms_table([Summary("simsiam")]).row_count
        1
    """
    wide = width >= WIDE
    table = plain_table(COLUMNS, left=COLUMNS[:2], wrap=COLUMNS[:2])  # numbers are never cut
    if total_steps:
        table.add_column("Progress", width=10)
    if total_steps and wide:
        table.add_column("Loss so far", no_wrap=True, width=16)
    for summary in rows:
        name, verdict, *rest = _words(summary, blemished=wide)
        style, more = summary.style, list[ProgressBar | Text]()
        if total_steps:
            bar = ProgressBar(total_steps, summary.step, 10, complete_style=BLUE, finished_style=GREEN)
            more.append(bar)
        if total_steps and wide:
            more.append(Text(sparkline(summary.losses, 16), BLUE))
        table.add_row(Text(name, "bold"), Text(f"{style.glyph} {verdict}", style.colour), *rest, *more)
    return table


def arms_text(rows: Sequence[Summary]) -> str:
    """The closing table in plain text, columns aligned by spaces.

    Example:
        >>> print(arms_text([Summary("simsiam")]))
        Arm      Verdict        Loss  Level  Rank / d  k-NN
        simsiam  not decidable  –     –      –         –
    """
    lines = [COLUMNS, *(_words(summary) for summary in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    padded = (
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _words(summary: Summary, blemished: bool = True) -> tuple[str, ...]:
    rank = "–" if summary.rank is None else f"{number(summary.rank)} / {count(summary.ceiling.possible)}"
    rank = "noise" if summary.constant else rank
    measured = (number(summary.loss, 4), number(summary.level), rank, percent(summary.knn))
    judged = summary.judgement if blemished else replace(summary.judgement, blemishes=())
    return (summary.name, in_short(judged), *measured)


def run_line(path: Path, error: str = "") -> str:
    """What a run that has ended came to, in a line; or what failed."""
    if error:
        return f"failed: {error}"
    summary = summarise(read_run(path))
    knn = f"  k-NN {percent(summary.knn)}" if summary.knn is not None else ""
    verdict = f"{summary.style.glyph} {in_short(summary.judgement)}"
    return f"{verdict}  loss {number(summary.loss, 4)}{knn}  {duration(summary.elapsed)}"


def run_row(name: str, path: Path, error: str | None = None) -> dict[str, Any]:
    """What JSON holds of a run of a sweep."""
    row: dict[str, Any] = {"name": name, "run": str(path), "error": error}
    if path.is_dir() and (found := read_run(path)).end:
        summary = summarise(found)
        row |= {"verdict": summary.style.word, **_judged(summary), "loss": summary.loss}
        row |= {"knn": summary.knn, "linear": summary.linear}
    return row


def _judged(summary: Summary) -> dict[str, Any]:
    """Probability and blemishes of a verdict."""
    judged = summary.judgement
    return {"probability": judged.probability, "blemishes": [odd.as_dict() for odd in judged.blemishes]}


def arm_row(summary: Summary, path: Path) -> dict[str, Any]:
    """What JSON holds of an arm of the demo."""
    return {
        "name": summary.name,
        "verdict": summary.style.word,
        **_judged(summary),
        "why": summary.why,
        "loss": summary.loss,
        "level": summary.level,
        "rank": summary.rank,
        "knn": summary.knn,
        "run": str(path),
    }
