"""`fullrank adapt MODEL`: continued pretraining that cannot end worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from fullrank import api
from fullrank.adaptation.options import AdaptOptions
from fullrank.cli.arguments import parse, showing_progress
from fullrank.terminal import say


@dataclass(frozen=True)
class Adapt(AdaptOptions):
    """Go on pretraining an encoder on your images; keep it only where it is better.

    The heads learn first, then the backbone's last layers, then those below, at a small rate. Held-out images
    are compared with the start all the way; the best checkpoint is judged by images that did not choose it.
    Where it is not surely better, or loses too many old neighbours, or collapses, the start is what is left.
    Both are good ends, with exit code 0. The same command goes on with what was interrupted.

    Example: fullrank adapt timm:vit_small_patch14_dinov2 --data photos --download

    Example: fullrank adapt runs/first --data photos --method byol --out runs/adapted

    Attributes:
        model: a run, a checkpoint or the name of an encoder.
        out: the run directory; empty: named after model and data, under runs.
        quiet: print nothing but errors.
        json: print one object.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = field(kw_only=True)
    out: str = ""
    quiet: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Adapt, and print how it ended."""
    args = parse(Adapt, words, "fullrank adapt")
    from fullrank.report.run.terminal import make_console

    silent = args.quiet or args.json
    with make_console("quiet" if silent else "auto") as console, showing_progress(silent):
        found = api.adapt(args.model, args, out=args.out, listeners=[_listener(console, silent)])
    page = found.path / "adaptation.html"
    if args.json:
        from fullrank.report.render import plain_json

        print(json.dumps(plain_json({**found.as_dict(), "page": str(page)}), allow_nan=False))
    elif not args.quiet:
        from fullrank.adaptation.sentence import result_lines

        for line in result_lines(found):
            say(line)
    return 0


def _listener(console: Any, silent: bool) -> Any:
    """What tells the terminal of records: notes before the first, then all."""
    from fullrank.adaptation.sentence import comparison_line
    from fullrank.report.run.terminal import is_live
    from fullrank.training.records import AdaptationRecord, RunRecord, StartRecord

    def listen(record: RunRecord) -> None:
        if not isinstance(record, StartRecord):
            console(record)
            if isinstance(record, AdaptationRecord) and not silent and not is_live():
                say(comparison_line(record.values))
            return
        for note in () if silent else dict.fromkeys(record.notes):
            say(f"note    {note}")
        console.start(record.config, record.total_steps)

    return listen
