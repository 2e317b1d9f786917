"""Scripts that several processes run together, and what each of them found."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PRELOADED = ["fullrank.training.run", "fullrank.collapse.streaming"]


def printed_together(
    script: Path, calls: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None
) -> list[str]:
    """What processes print that run a script side by side, each with its own words.

    They are forks of a process that has imported torch, which takes a new interpreter seconds.

    Args:
        script: run as `python SCRIPT WORDS`.
        calls: the words of each process.
        environment: variables beside those of this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    variables = {**os.environ, **(environment or {})}
    with TemporaryDirectory() as folder:
        files = [(Path(folder) / f"{k}.out", Path(folder) / f"{k}.err") for k in range(len(calls))]
        started: list[BaseProcess] = [
            context.Process(target=_run, args=(str(script.absolute()), list(words), variables, *paths))
            for words, paths in zip(calls, files, strict=True)
        ]
        for process in started:
            process.start()
        try:
            for process, (_, errors) in zip(started, files, strict=True):
                process.join(600)
                assert process.exitcode == 0, f"exit code {process.exitcode}\n{errors.read_text()}"
        finally:
            for process in started:
                process.kill()
                process.join()
        return [out.read_text() for out, _ in files]


def results_of(script: Path, world: int, rendezvous: Path) -> list[dict[str, Any]]:
    """What each of `world` processes prints as JSON, by rank."""
    calls = [[str(rank), str(world), str(rendezvous)] for rank in range(world)]
    return [json.loads(text) for text in printed_together(script, calls)]


def _run(script: str, words: list[str], variables: dict[str, str], out: Path, errors: Path) -> None:
    for number, path in ((1, out), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")
