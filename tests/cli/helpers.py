"""Calls the command line in this process, reads what it leaves, and dies on command."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fullrank.cli import main

WIDTHS = (
    *("--options.proj-hidden-dim", "32", "--options.proj-output-dim", "32"),
    *("--options.pred-hidden-dim", "16"),
)
SMALL = ("--limit", "256", "--backbone", "resnet8-w16", "--batch-size", "64", "--epochs", "2", *WIDTHS)


@dataclass(frozen=True)
class Called:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def call(*words: str) -> Called:
    """Runs a command as `fullrank WORDS` would, on one thread."""
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(words))
            except SystemExit as stop:  # --help
                code = int(stop.code or 0)
    finally:
        torch.set_num_threads(threads)
    return Called(code, out.getvalue(), err.getvalue())


def answered(*words: str) -> dict[str, Any]:
    """The one object of strict JSON that --json prints, with nothing on stderr."""
    called = call(*words, "--json")
    assert called.code == 0 and called.err == "" and called.out.count("\n") == 1, called
    found: dict[str, Any] = json.loads(called.out, parse_constant=no_json)
    return found


def _files() -> list[Path]:
    """What lies here, but for locks, which a killed run leaves and the next one takes away."""
    return sorted(path for path in Path.cwd().rglob("*") if path.name not in (".lock", ".owner.json"))


def refused(*words: str) -> str:
    """The one line on stderr of a command that exits with 2 and writes nothing."""
    before = _files()
    called = call(*words)
    assert called.code == 2 and called.out == "", called
    assert called.err.startswith("fullrank: ") and called.err.count("\n") == 1, called.err
    assert _files() == before, "something was written"
    return called.err


def save_images(folder: Path | str, n: int, size: int = 16) -> Path:
    """A flat folder of n images of noise, as they come from a camera."""
    from PIL import Image

    folder, rng = Path(folder), np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(n):
        pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def records(run: Path) -> list[dict[str, Any]]:
    """Every record of `metrics.jsonl` without its `time`; NaN and Infinity are no JSON."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=no_json) for line in lines]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def kill_at(words: list[str], where: str, event: Mapping[str, Any]) -> None:
    """Runs a command in a process of its own, which kills itself with SIGKILL at a point of the run.

    Args:
        words: the command.
        where: `after` the record of `event` is written, `amid` its line, or amid the `checkpoint` after it.
        event: what the record must hold.
    """
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["fullrank.training.run", "fullrank.report.run.page"])
    process = context.Process(target=_doomed, args=(words, where, event))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode} instead of being killed"


def _doomed(words: list[str], where: str, event: Mapping[str, Any]) -> None:
    from fullrank.training.run_dir import RunDir

    torch.set_num_threads(1)
    append: Callable[[RunDir, Mapping[str, Any]], None] = RunDir.append

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def save_half(state: Any, file: Any) -> None:
        file.write(b"PK half of a checkpoint")
        file.flush()
        die()

    def appended(run: RunDir, record: Mapping[str, Any]) -> None:
        before = run.metrics_size()
        append(run, record)
        if not event.items() <= record.items():
            return
        if where == "checkpoint":
            torch.save = save_half  # type: ignore[assignment]
            return
        if where == "amid":
            os.truncate(run.metrics_path, (before + run.metrics_size()) // 2)  # half a line
        die()

    RunDir.append = appended  # type: ignore[method-assign, assignment]
    main(words)
