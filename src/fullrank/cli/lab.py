"""`fullrank lab NAME`: a paper's experiment from fresh runs, its page and its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import FullrankError, UnknownNameError, UsageError

USAGE = """\
usage: fullrank lab NAME [OPTIONS]

Runs a paper's experiment, and writes its page, its numbers and its figures.

  fullrank lab asymmetry                         three seeds, small enough for a laptop
  fullrank lab asymmetry --parts asym-siam       another part of it, into the same folder
  fullrank lab failures --report-only            the page again, from the cells that are there
  fullrank lab forecast RUN...                   accuracy from AUC and loss, over any set of runs

labs:
{labs}

`fullrank lab NAME --help` tells every option."""


@dataclass(frozen=True)
class LabOptions:
    """Runs a lab's cells, those that are not finished, and writes lab.json, report.html and figures/.

    A killed lab is taken up by the same command. Seeds and parts may be added to a folder later on.

    Example: fullrank lab asymmetry --preset laptop --seeds 0,1,2

    Attributes:
        name: of the lab; `fullrank list labs` tells them.
        preset: laptop (minutes on two cores) or paper (as published; wants a GPU and the data); empty: the
            folder's, or laptop.
        seeds: comma-separated; empty: those of the folder, or 0,1,2.
        parts: of the lab, comma-separated; empty: those of the folder, or the preset's.
        out: the lab's folder; empty: labs/NAME.
        data: in place of the preset's data: a name (`fullrank list data`) or a folder.
        jobs: cells at a time; 0: one for each core, and one on a GPU.
        report_only: run nothing; write the page from the cells that are finished.
        figures: also draw the figures for a paper, as SVG, PDF and PNG.
        json: print one object at the end: lab, claims, missing, seconds, page.
        quiet: print nothing but errors.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    preset: str = ""
    seeds: str = ""
    parts: str = ""
    out: str = ""
    data: str = ""
    jobs: int = 0
    report_only: bool = False
    figures: bool = True
    json: bool = False
    quiet: bool = False


def run(words: Sequence[str]) -> int:
    """Runs a lab; 1 where a cell failed."""
    from fullrank.labs import LABS

    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(labs="\n".join(f"  {name:<18} {lab.title}" for name, lab in LABS.items())))
        return 0
    if words[0] == "forecast":
        from fullrank.cli.lab_forecast import run as run_forecast

        return run_forecast(words[1:])
    args = parse(LabOptions, words, "fullrank lab")
    lab = LABS[args.name]()
    out = Path(args.out or f"labs/{args.name}")
    plan, cells, wanted = _planned(args, lab, out)
    from fullrank.labs._common.cells import finished, run_cells
    from fullrank.labs._common.live import LiveCells
    from fullrank.labs._common.page import write_lab
    from fullrank.labs._common.results import Results

    failed: dict[str, str] = {}
    if not args.report_only:
        _write_plan(out, plan)
        with LiveCells(wanted, "quiet" if args.json or args.quiet else "auto") as live:
            failed = run_cells(wanted, out, args.jobs, live)
    found = {cell.name: finished(cell, out) for cell in cells}
    results = Results([result for result in found.values() if result is not None])
    if not results:
        why = next(iter(failed.items()), None)
        raise FullrankError(f"no cell of {out} is finished" + (f"; {why[0]}: {why[1]}" if why else ""))
    missing = {name: failed.get(name, "not run yet") for name, result in found.items() if result is None}
    told = write_lab(args.name, lab, plan, results, missing, out, args.figures)
    for name, why_not in failed.items():
        print(f"fullrank: {name} failed: {why_not}", file=sys.stderr)
    _print(args, told, out)
    return 1 if failed else 0


def _planned(args: LabOptions, lab: Any, out: Path) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The folder's plan with what is asked for, all of its cells, and those that are asked for now."""
    from fullrank.labs._common.lab import plan_cells

    before = _read_plan(out)
    preset = args.preset or before.get("preset", "laptop")
    if preset not in lab.presets:
        raise UnknownNameError("preset", preset, lab.presets)
    settings = dict(lab.presets[preset])
    if args.data and "data" not in settings:
        raise UsageError(f"the lab {args.name} needs no data: leave --data out")
    if data := args.data or before.get("settings", {}).get("data"):
        settings["data"] = data
    settings = json.loads(json.dumps(settings))
    if before and (before["lab"], before["preset"], before["settings"]) != (args.name, preset, settings):
        raise UsageError(
            f"{out} holds the lab {before['lab']} with the preset {before['preset']} and its settings of "
            f"then: take another --out"
        )
    if args.report_only and not before:
        raise UsageError(f"{out} holds no lab: leave --report-only out to run it")
    seeds = _seeds(args.seeds) if args.seeds else list(before.get("seeds", [0, 1, 2]))
    parts = [part for part in args.parts.split(",") if part]
    for part in parts:
        if part not in lab.parts:
            raise UnknownNameError(f"part of {args.name}", part, lab.parts)
    parts = parts or list(before.get("parts", settings.get("parts", lab.parts)))
    known = {
        key: list(dict.fromkeys([*before.get(key, []), *now]))
        for key, now in (("parts", parts), ("seeds", seeds))
    }
    plan = {"lab": args.name, "preset": preset, "settings": settings, **known}
    wanted = plan_cells(lab, settings, parts, seeds)
    return plan, plan_cells(lab, settings, known["parts"], sorted(known["seeds"])), wanted


def _seeds(words: str) -> list[int]:
    try:
        seeds = [int(word) for word in words.split(",") if word]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds are whole numbers of at least 0, each once, as 0,1,2; not {words}")
    return seeds


def _read_plan(out: Path) -> dict[str, Any]:
    path = out / "plan.json"
    if out.exists() and not path.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already and holds no lab: take another --out")
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise UsageError(f"{path} is damaged: take another --out") from None
    return found


def _write_plan(out: Path, plan: dict[str, Any]) -> None:
    from fullrank.training.run_dir import write_atomically

    write_atomically(out / "plan.json", json.dumps(plan, indent=2).encode())


def _print(args: LabOptions, told: dict[str, Any], out: Path) -> None:
    if args.json:
        keys = ("lab", "preset", "parts", "seeds", "seen", "claims", "missing", "seconds")
        print(json.dumps({**{key: told[key] for key in keys}, "page": str(out / "report.html")}, indent=2))
    elif not args.quiet:
        for claim in told["claims"]:
            print(f"{claim['verdict']:<14} {claim['text']} {claim['told']}")
        print(f"page    {out / 'report.html'}")
