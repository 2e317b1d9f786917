"""Grid of commands: every combination of some options of `fullrank train`, and several seeds of each."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fullrank.errors import UsageError
from fullrank.jobs.job import Job

__all__ = ["command_of", "grid", "has_ended", "remember"]


def grid(
    what: str, over: Sequence[str], seeds: int, common: Sequence[str], call: Callable[..., int]
) -> Iterator[Job]:
    """Jobs of every combination, the seeds of one together; their `argv` is what `fullrank train` is given.

    Args:
        what: methods or recipes, with commas between.
        over: `KEY=V1,V2,...`, an option and its values.
        seeds: 0 to `seeds` - 1 for each combination.
        common: options of every run.
        call: the command line, given `argv`.

    Raises:
        UsageError: a KEY=V1,V2 that is none, or a key that is named twice.
    """
    options: dict[str, list[str]] = {}
    for word in over:
        key, equals, values = word.partition("=")
        key = _key(key)
        if not equals or not all(values.split(",")):
            raise UsageError(f"--over takes KEY=V1,V2,..., as lr=0.05,0.1, not {word!r}")
        if key in options:
            raise UsageError(f"--over names {key} twice: give all of its values at once")
        options[key] = values.split(",")
    if seeds > 1:
        if "seed" in options:
            raise UsageError("--over seed and --seeds say the same: give one of them")
        options["seed"] = [str(seed) for seed in range(seeds)]
    given = {_key(word.split("=")[0]) for word in common if word.startswith("--")}
    if twice := given & options.keys():
        raise UsageError(f"--{min(twice)} is swept over: leave it out, or take it from --over")
    if astray := given & {"profile", "quiet"}:
        raise UsageError(f"--{min(astray)} is not for the runs of a sweep")
    for start in what.split(","):
        for picked in itertools.product(*options.values()):
            chosen = dict(zip(options, picked, strict=True))
            words = [start] * ("," in what) + [f"{k}={v}" for k, v in chosen.items()]
            name = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", ",".join(words)) or "run"
            own = [word for key, value in chosen.items() for word in _option(key, value)]
            yield Job(name, measure=call, arguments={"argv": [start, *common, *own]})


def _key(word: str) -> str:
    return word.removeprefix("--").replace("-", "_")


def _option(key: str, value: str) -> list[str]:
    """Words that set one option of `fullrank train`.

    Example:
        >>> _option("lr", "0.1"), _option("options.stop_gradient", "false")
        (['--lr', '0.1'], ['--options.no-stop-gradient'])
    """
    if value.lower() not in ("true", "false"):
        return [f"--{key.replace('_', '-')}", value]
    group, dot, name = key.rpartition(".")
    no = "" if value.lower() == "true" else "no-"
    return [f"--{group}{dot}{no}{name}".replace("_", "-")]


def command_of(job: Job, run: Path) -> Job:
    """A job of the grid with all words after `fullrank`: begins its run, or resumes it.

    Example:
        >>> (job,) = grid("simsiam", ["lr=0.1"], 1, [], int)
        >>> command_of(job, Path("a/lr=0.1")).arguments["argv"]
        ['train', 'simsiam', '--lr', '0.1', '--out', 'a/lr=0.1', '--quiet']
    """
    argv = ["train", *job.arguments["argv"], "--out", str(run), "--quiet"]
    if (run / "config.yaml").exists():
        argv = ["resume", str(run), "--quiet"]
    return Job(job.arm, measure=job.measure, arguments={"argv": argv})


def has_ended(run: Path) -> bool:
    """Whether a run's last record says that it has ended."""
    records = run / "metrics.jsonl"
    lines = records.read_bytes().splitlines() if records.is_file() else []
    return bool(lines) and json.loads(lines[-1]).get("event") == "end"


def remember(jobs: Sequence[Job], runs: Mapping[str, Path], out: Path) -> None:
    """Write the words of each run to `sweep.json`.

    Raises:
        UsageError: the folder has a run of the same name that had other words.
    """
    file = out / "sweep.json"
    known: dict[str, list[str]] = json.loads(file.read_text()) if file.exists() else {}
    for job in jobs:
        words, run = list[str](job.arguments["argv"]), runs[job.name]
        before = known.get(job.name, words)
        if before != words and run.exists():
            raise UsageError(
                f"{run} was trained with `{shlex.join(before)}`: take another --out, or the same options"
            )
        known[job.name] = words
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1) + "\n")
