"""Commands of `fullrank` as jobs: a grid of `train`."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.atomic import write_atomically
from fullrank.errors import UsageError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.pool import run_pool
from fullrank.terminal import say
from fullrank.training import record_files
from fullrank.untrusted.parsing import read_text, whole_pairs

FINE = (0, 3)  # exit codes: a run that was stopped because it collapsed is no failure


def grid(
    what: str, over: Sequence[str], seeds: int, common: Sequence[str], call: Callable[..., int]
) -> Iterator[Job]:
    """Jobs of all combinations, seeds together; `argv` is for `fullrank train`.

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
    if value.lower() not in ("true", "false"):
        return [f"--{key.replace('_', '-')}", value]
    group, dot, name = key.rpartition(".")
    no = "" if value.lower() == "true" else "no-"
    return [f"--{group}{dot}{no}{name}".replace("_", "-")]


def command_of(job: Job, run: Path) -> Job:
    """A job of the grid with its full command line, to begin or resume its run.

    Example:
        >>> (job,) = grid("simsiam", ["lr=0.1"], 1, [], int)
        >>> command_of(job, Path("a/lr=0.1")).arguments["argv"]
        ['train', 'simsiam', '--lr', '0.1', '--out', 'a/lr=0.1', '--resume', 'auto', '--quiet']
    """
    argv = ["train", *job.arguments["argv"], "--out", str(run), "--resume", "auto", "--quiet"]
    if (run / "config.yaml").exists():
        argv = ["resume", str(run), "--quiet"]
    return Job(job.arm, measure=job.measure, arguments={"argv": argv})


def has_ended(run: Path) -> bool:
    """Whether a run's last record says that it has ended."""
    return record_files.has_ended(run / "metrics.jsonl")


def remember(jobs: Sequence[Job], runs: Mapping[str, Path], out: Path) -> str:
    """Write the words of each run to `sweep.json`; a note where that was cut short.

    Raises:
        UsageError: the folder has a run of the same name that had other words.
    """
    file = out / "sweep.json"
    known, note = read_sweep(file)
    for job in jobs:
        words, run = list[str](job.arguments["argv"]), runs[job.name]
        before = known.get(job.name, words)
        if before != words and run.exists():
            raise UsageError(
                f"{run} was trained with `{shlex.join(before)}`: take another --out, or the same options"
            )
        known[job.name] = words
    write_atomically(file, (json.dumps(known, indent=1) + "\n").encode())
    return note


def read_sweep(file: Path) -> tuple[dict[str, list[str]], str]:
    """Words of each run in a `sweep.json`, and a note where it is cut."""
    if not file.exists():
        return {}, ""
    text = read_text(file)
    known = {name: words for name, words in whole_pairs(text).items() if _are_words(words)}
    cut = not text.rstrip().endswith("}")
    return known, f"{file} is cut short: the {len(known)} runs that are whole in it count" if cut else ""


def _are_words(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def run_commands(
    jobs: Sequence[Job], runs: Mapping[str, Path], logs: Path, at_once: int, notify: Notify
) -> dict[str, str]:
    """Run commands in parallel on this machine; return failures as {name: message}.

    The jobs' `measure` is called with `argv`, the words after `fullrank`, and returns an exit code; it
    writes the run directory that `runs` names. What it prints goes into a file in `logs`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log_of = {name: run / "metrics.jsonl" for name, run in runs.items()}
    return run_pool(jobs, partial(_run_logged, logs=logs), at_once, lambda job: log_of[job.name], notify)


def _run_logged(job: Job, logs: Path) -> str:
    log = logs / f"{job.name}.txt"
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        say(f"$ fullrank {' '.join(job.arguments['argv'])}")
        code = _call(job)
    return "" if code in FINE else _last_message(log.read_text(errors="replace"), log)


def _call(job: Job) -> int:
    assert job.measure is not None
    sys.argv[1:] = job.arguments["argv"]  # what the run directory says that it was made by
    return int(job.measure(**job.arguments))


def _last_message(printed: str, log: Path) -> str:
    lines = printed.strip().splitlines()
    ours = [line.removeprefix("fullrank: ") for line in lines if line.startswith("fullrank: ")]
    return f"{[*lines, *ours][-1]} (all of it in {log})"
