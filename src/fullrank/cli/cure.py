"""`fullrank cure RUN`: which change of settings keeps a run from collapsing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from fullrank.cli.arguments import make_console, parse
from fullrank.cures.options import CureOptions
from fullrank.lock import require_unwritten
from fullrank.terminal import say


@dataclass(frozen=True)
class CureCommand(CureOptions):
    """Find out which change of settings keeps a collapsed run from collapsing.

    Reads from the run's own records when the collapse began and by which mechanism, takes the last healthy
    checkpoint before it (or the start), and trains an untreated arm and one for each of the most promising
    treatments, over seeds, side by side. The run itself is not changed. Killed and called again, it goes on.

    Example: fullrank cure runs/demo/no-stop-gradient

    Example: fullrank cure runs/first --minutes 30 --most 6 --dry-run

    Attributes:
        run: the run directory.
        out: where arms, table and page go; empty: cure in the run directory.
        dry_run: list arms and their cost, and do nothing.
        json: print one object at the end: state, diagnosis, arms with gains and intervals, winner, command.
        quiet: print the closing table only.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = tyro.MISSING
    out: str = ""
    dry_run: bool = False
    json: bool = False
    quiet: bool = False


def run(words: Sequence[str]) -> int:
    """Plan, train the arms, print the table and the command that goes on."""
    args = parse(CureCommand, words, "fullrank cure")
    from fullrank.api.cures import plan_of
    from fullrank.cures.cure import run_cure
    from fullrank.cures.onset import Diagnosis
    from fullrank.cures.terminal import nothing_words, plan_lines, print_cure, print_plan
    from fullrank.report.run.terminal import is_live

    options = CureOptions(**{name: getattr(args, name) for name in CureOptions.__dataclass_fields__})
    plan = plan_of(args.run, options, out=args.out)
    if isinstance(plan, Diagnosis):
        if args.json:
            print(json.dumps({"state": plan.state, "run": args.run, "diagnosis": plan.as_dict()}))
        else:
            say(nothing_words(plan))
        return 0
    if args.dry_run:
        if args.json:
            print(json.dumps({"state": "planned", **plan.as_dict()}))
        else:
            print_plan(plan, make_console(120))
        return 0
    require_unwritten(plan.out)  # before the plan is shown: another cure of the run goes on
    silent = args.json or args.quiet
    if not silent:
        for line in plan_lines(plan):
            say(line)
    cure = run_cure(plan, options, "quiet" if silent else "live" if is_live() else "plain")
    if args.json:
        print(json.dumps(cure.as_dict()))
        return 0
    print_cure(cure, make_console(120))
    say(cure.headline)
    if cure.command:
        say(f"go on   {cure.command}")
    say(f"page    {cure.page}")
    return 0
