"""`fullrank sweep METHOD|RECIPE... --over KEY=V1,V2`: a grid of runs, and what they came to on one page."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.cli.sweep_jobs import Ended, Job, here, on_slurm
from fullrank.errors import UsageError

OWN = ("--over", "--seeds", "--out", "--jobs", "--slurm", "--dry-run", "--json", "--help")


@dataclass(frozen=True)
class Sweep:
    """Trains every combination of some settings, here or on a cluster, and sets them side by side.

    WHAT is a method or a recipe, or several with commas between. All options of `fullrank train` hold for
    every run. The same command again goes on where it was stopped: runs that have ended are left as they are.
    A run that fails does not stop the others.

    Example: fullrank sweep simsiam --over lr=0.05,0.1,0.2 --seeds 3 --data FOLDER --out sweeps/lr

    Example: fullrank sweep simsiam,byol --over options.proj_output_dim=128,2048 --data FOLDER --jobs 2

    Example: fullrank sweep cifar10/cplearn --seeds 5 --slurm timeout_min=600 gpus_per_node=1

    Attributes:
        what: method or recipe, or several with commas between.
        over: KEY=V1,V2,...: an option of `fullrank train` and its values; several of them make a grid.
        seeds: every combination with the seeds 0 to N - 1.
        out: folder of the runs and of compare.html; empty: sweeps/WHAT.
        jobs: runs at a time on this machine; they share its cores, and take a GPU each if there are several.
        slurm: KEY=VALUE, submitit's settings of a job, as timeout_min=600 gpus_per_node=1; with any of them
            the runs are submitted as one job array and waited for.
        dry_run: print the commands and train nothing.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    over: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=V1,V2")] = ()
    seeds: int = 1
    out: str = ""
    jobs: int = 1
    slurm: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    dry_run: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Checks every run's settings, trains what has not ended yet, and compares what has."""
    own, common = split(words)
    args = parse(Sweep, own, "fullrank sweep")
    if args.seeds < 1 or args.jobs < 1:
        raise UsageError(f"--seeds and --jobs are at least 1, not {args.seeds} and {args.jobs}")
    out = Path(args.out or f"sweeps/{re.sub(r'[^A-Za-z0-9,.-]+', '-', args.what)}")
    cells = list(grid(args, common, out))
    check(cells)
    if args.dry_run:
        for cell in cells:
            print(shlex.join(["fullrank", *cell.command()]))
        return 0
    remember(cells, out)
    todo = [cell for cell in cells if not cell.ended]
    if not args.json:
        before = f", {len(cells) - len(todo)} of them ended before" if len(todo) < len(cells) else ""
        print(f"{len(cells)} runs in {out}{before}")
    failed = {}
    width = max(len(cell.name) for cell in cells)
    for k, ended in enumerate(carried_out(args, todo, out), start=1):
        if ended.error:
            failed[ended.cell.name] = ended.error
        if not args.json:
            place = f"{k:>{len(str(len(todo)))}}/{len(todo)}"
            print(f"{place}  {ended.cell.name:<{width}}  {line(ended)}", flush=True)
    finished = [cell for cell in cells if cell.ended]
    if args.json:
        print(json.dumps(as_object(cells, failed)))
    elif finished:
        compared(finished, out)
    return 1 if failed else 0


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the sweep itself, and those that every run gets.

    Example:
        >>> split(["simsiam", "--over", "lr=0.1,0.2", "--epochs", "5", "--seeds=3"])
        (['simsiam', '--over', 'lr=0.1,0.2', '--seeds=3'], ['--epochs', '5'])
    """
    own: list[str] = []
    common: list[str] = []
    kept = own  # WHAT comes first
    for word in words:
        if word.startswith("-"):
            kept = own if word.split("=")[0].replace("_", "-") in (*OWN, "-h") else common
        kept.append(word)
    return own, common


def grid(args: Sweep, common: Sequence[str], out: Path) -> Iterator[Job]:
    """Every combination, the seeds of one together.

    Raises:
        UsageError: a KEY=V1,V2 that is none, or a key that is named twice.
    """
    over: dict[str, list[str]] = {}
    for word in args.over:
        key, equals, values = word.partition("=")
        key = key.removeprefix("--").replace("-", "_")
        if not equals or not all(values.split(",")):
            raise UsageError(f"--over takes KEY=V1,V2,..., as lr=0.05,0.1, not {word!r}")
        if key in over:
            raise UsageError(f"--over names {key} twice: give all of its values at once")
        over[key] = values.split(",")
    if args.seeds > 1:
        if "seed" in over:
            raise UsageError("--over seed and --seeds say the same: give one of them")
        over["seed"] = [str(seed) for seed in range(args.seeds)]
    named = [word.split("=")[0] for word in common if word.startswith("--")]
    given = {word.removeprefix("--").replace("-", "_") for word in named}
    if twice := given & over.keys():
        raise UsageError(f"--{min(twice)} is swept over: leave it out, or take it from --over")
    if astray := given & {"profile", "quiet"}:
        raise UsageError(f"--{min(astray)} is not for the runs of a sweep")
    for what in args.what.split(","):
        for picked in itertools.product(*over.values()):
            chosen = dict(zip(over, picked, strict=True))
            parts = [what] * (len(args.what.split(",")) > 1) + [f"{k}={v}" for k, v in chosen.items()]
            name = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", ",".join(parts)) or "run"
            own = [word for key, value in chosen.items() for word in option(key, value)]
            yield Job(name, (what, *common, *own), out / name)


def option(key: str, value: str) -> list[str]:
    """The words that set one option of `fullrank train`.

    Example:
        >>> option("lr", "0.1"), option("options.stop_gradient", "false")
        (['--lr', '0.1'], ['--options.no-stop-gradient'])
    """
    if value.lower() not in ("true", "false"):
        return [f"--{key.replace('_', '-')}", value]
    group, dot, name = key.rpartition(".")
    no = "" if value.lower() == "true" else "no-"
    return [f"--{group}{dot}{no}{name}".replace("_", "-")]


def check(cells: Sequence[Job]) -> None:
    """Whatever is wrong with any of them is said before the first one is trained."""
    from fullrank.cli.train import parse_options, starting_point, to_config

    for cell in cells:
        what, *options = cell.words
        method, layers, _ = starting_point(what, options)
        to_config(parse_options(method, layers, options, f"fullrank train {what}", sized=False)[0])


def remember(cells: Sequence[Job], out: Path) -> None:
    """Writes what each run is told to `sweep.json`.

    Raises:
        UsageError: the folder has a run of the same name that was told something else.
    """
    file = out / "sweep.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    for cell in cells:
        before = told.get(cell.name, list(cell.words))
        if before != list(cell.words) and cell.run.exists():
            raise UsageError(
                f"{cell.run} was trained with `{shlex.join(before)}`: take another --out, or the same options"
            )
        told[cell.name] = list(cell.words)
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n")


def carried_out(args: Sweep, cells: Sequence[Job], out: Path) -> Iterator[Ended]:
    """Trains them where the command says."""
    if not cells:
        return iter(())
    if not args.slurm:
        return here(cells, args.jobs, out / "logs")
    settings: dict[str, Any] = {}
    for word in args.slurm:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--slurm takes KEY=VALUE, as timeout_min=600, not {word!r}")
        settings[key] = int(value) if value.isdigit() else value
    return on_slurm(cells, settings, out / "slurm")()


def line(ended: Ended) -> str:
    """What one run came to."""
    if ended.error:
        return f"failed: {ended.error}"
    from fullrank.figures.style import duration, number, percent

    summary = _summary(ended.cell)
    knn = f"  k-NN {percent(summary.knn)}" if summary.knn is not None else ""
    told = f"{summary.style.glyph} {summary.style.word}  loss {number(summary.loss, 4)}{knn}"
    return f"{told}  {duration(summary.elapsed)}"


def compared(cells: Sequence[Job], out: Path) -> None:
    """Prints the table of all runs that have ended, and writes their page."""
    from fullrank.cli import compare

    compare.run([*(str(cell.run) for cell in cells), "--out", str(out / "compare.html"), "--no-measure"])


def as_object(cells: Sequence[Job], failed: Mapping[str, str]) -> dict[str, Any]:
    """What --json prints."""
    runs = []
    for cell in cells:
        row: dict[str, Any] = {"name": cell.name, "run": str(cell.run), "error": failed.get(cell.name)}
        if cell.ended:
            summary = _summary(cell)
            row |= {"verdict": summary.style.word, "loss": summary.loss}
            row |= {"knn": summary.knn, "linear": summary.linear}
        runs.append(row)
    return {"runs": runs, "failed": len(failed)}


def _summary(cell: Job) -> Any:
    from fullrank.report.run.reading import read_run
    from fullrank.report.run.summary import summarise

    return summarise(read_run(cell.run))
