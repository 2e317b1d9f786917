"""Commands of `fullrank` as jobs: a grid of `train`, here or on a SLURM cluster."""

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

from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.pool import run_pool

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
        print(f"$ fullrank {' '.join(job.arguments['argv'])}", flush=True)
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


def slurm_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings of submitit's executor from KEY=VALUE.

    Example:
        >>> slurm_settings(["timeout_min=600", "slurm_partition=gpu"])
        {'timeout_min': 600, 'slurm_partition': 'gpu'}
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--slurm takes KEY=VALUE, as timeout_min=600, not {word!r}")
        settings[key] = int(value) if value.isdigit() else value
    return settings


def submit_commands(
    jobs: Sequence[Job], settings: Mapping[str, Any], folder: Path, notify: Notify, cluster: str = "slurm"
) -> dict[str, str]:
    """Submit commands as one job array and wait; return failures as {name: message}.

    `settings` are those of submitit's executor; scripts, logs and results go to `folder`.

    Raises:
        UsageError: submitit is not installed, there is no SLURM here, or it has no such setting.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError("--slurm needs submitit: pip install 'fullrank[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(name="fullrank", **settings)
    except NameError as error:
        raise UsageError(f"--slurm: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        raise UsageError(f"--slurm: {error}; without it runs are trained on this machine") from error
    with executor.batch():
        submitted = {executor.submit(_run_submitted, job): job for job in jobs}
    failed = {}
    for task in submitit.helpers.as_completed(list(submitted)):
        job, why = submitted[task], ""
        try:
            task.result()
        except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as problem:
            why = failed[job.name] = _last_message(task.stderr() or str(problem), task.paths.stderr)
        notify(job, "failed" if why else "done", why or None)
    return failed


def _run_submitted(job: Job) -> None:  # every task of a job does the same, and Fabric tells them apart
    code = _call(job)
    if code not in FINE:
        raise FullrankError(f"fullrank {' '.join(job.arguments['argv'])}: exit code {code}")
