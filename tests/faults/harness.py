"""Kills a command at one of its file operations or at a random time, lets it go on, compares the ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fullrank.cli import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
FINE = (0, 3)  # a run that was stopped because it collapsed is no failure
PASSING = ("time", "seconds", "elapsed", "created", "date")  # what two equal runs need not share


@dataclass(frozen=True)
class Case:
    """A command, and what finishes it after a kill; `{out}` is where it writes.

    Attributes:
        name: of the case.
        words: the command.
        again: what is called after a kill; empty: the same command.
        before: a command that makes what this one takes, in the same folder.
        is_long: left out of the fast tests.
        once: writes by one rename, and is refused where that was done.
    """

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    is_long: bool = False
    once: bool = False

    def command(self, which: str, out: Path) -> list[str]:
        """The words with `{out}` filled in."""
        words: tuple[str, ...] = getattr(self, which) or self.words
        return [word.format(out=out, folder=out.parent) for word in words]


def count_operations(words: Sequence[str], out: Path) -> int:
    """Run a command to its end; how often it changed names or opened a file to write under `out`."""
    code, count = _in_child(words, out, None)
    assert code in FINE, f"{words} ended with {code}"
    return count


def kill_before(words: Sequence[str], out: Path, operation: int) -> None:
    """Run a command that dies by SIGKILL before an operation, counted from 1."""
    code, _ = _in_child(words, out, operation)
    assert code == -signal.SIGKILL, f"{words} ended with {code} before operation {operation}"


def kill_after(words: Sequence[str], seconds: float) -> bool:
    """Run a command in a new interpreter and kill it after a time; whether it was still at work."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fullrank", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def finish(words: Sequence[str], out: Path) -> None:
    """Run a command to its end, which is to succeed."""
    code, _ = _in_child(words, out, None)
    assert code in FINE, f"{words} ended with {code}"


def _in_child(words: Sequence[str], out: Path, operation: int | None) -> tuple[int, int]:
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["fullrank.training.run", "fullrank.report.run.page", "faults.harness"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_watched, args=(list(words), str(out.absolute()), operation, theirs))
    process.start()
    theirs.close()
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{words} did not end within 300 s")
    try:
        count = int(ours.recv()) if ours.poll() else 0
    except EOFError:  # it was killed
        count = 0
    return process.exitcode, count


def _watched(words: list[str], out: str, operation: int | None, answer: Any) -> None:
    torch.set_num_threads(1)
    own, count, target = os.getpid(), 0, Path(out)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not (event in OPERATIONS or (event == "open" and (arguments[2] or 0) & WRITING)):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike) or os.getpid() != own:
            return
        place = Path(os.fsdecode(path)).absolute()
        within = target in (place, *place.parents)
        draft = any(each.parent == target.parent for each in (place, *place.parents)) and any(
            part.startswith(f".{target.name}.") for part in place.parts
        )
        if not (within or draft):
            return
        count += 1
        if count == operation:
            os.kill(own, signal.SIGKILL)

    sys.addaudithook(watch)
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        code = main(words)
    answer.send(count)
    os._exit(code)


def strays(folder: Path) -> list[str]:
    """What an interrupted command may leave, and a finished one may not."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith(".") or path.name.endswith((".partial", ".tmp", ".lock"))
    )


def assert_same_end(found: Path, whole: Path) -> None:
    """Two folders hold the same files with the same content, but for times."""
    names = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in (found, whole)]
    assert names[0] == names[1]
    for name in names[0]:
        ours, theirs = content(found / name, found.parent), content(whole / name, whole.parent)
        assert ours == theirs, f"{name} differs: {_first_difference(ours, theirs)}"


def content(path: Path, folder: Path) -> Any:
    """What a file says, without when it was said, and where."""
    name, raw = path.name, path.read_bytes()
    if name.endswith((".html", ".txt", ".png", ".svg")) or name in ("environment.json", "digests.json"):
        return bool(raw)  # with times, paths or commands in them
    if name.endswith((".json", ".jsonl", ".md", ".yaml", ".py")):
        raw = raw.replace(str(folder).encode(), b"FOLDER")
    if name.endswith(".jsonl"):
        return [_timeless(json.loads(line)) for line in raw.splitlines()]
    if name.endswith(".json"):
        return _timeless(json.loads(raw))
    if name.endswith(".pt"):
        return _plain(torch.load(path, weights_only=True))
    if name.endswith(".safetensors"):  # the library writes the header in an order of chance
        size = int.from_bytes(raw[:8], "little")
        header = raw[8 : 8 + size].replace(str(folder).encode(), b"FOLDER")
        return json.loads(header), raw[8 + size :]
    if name.endswith(".npz"):
        with np.load(path) as arrays:
            return {key: arrays[key].tobytes() for key in arrays.files}
    if name.endswith((".yaml", ".yml")):
        return [line for line in raw.splitlines() if not line.startswith(b"out:")]
    return raw


def _first_difference(one: Any, two: Any, where: str = "") -> str:
    if isinstance(one, Mapping) and isinstance(two, Mapping) and one.keys() == two.keys():
        pairs = [(key, one[key], two[key]) for key in one]
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = list(zip(range(len(one)), one, two, strict=True))
    else:
        return f"at {where or 'the top'}: {str(one)[:200]} instead of {str(two)[:200]}"
    return next(_first_difference(a, b, f"{where}/{key}") for key, a, b in pairs if a != b)


def _timeless(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _timeless(value) for key, value in values.items() if key not in PASSING}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def _plain(values: Any) -> Any:
    """Tensors as bytes, so that equal means equal to the last bit."""
    if isinstance(values, torch.Tensor):
        return (
            values.dtype,
            tuple(values.shape),
            values.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(values, Mapping):
        return {
            key: _plain(value)
            for key, value in values.items()
            if key not in (*PASSING, "out", "metrics_size")
        }
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values


def wait_until(holds: Any, seconds: float = 60) -> None:
    """Wait for something to be true."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def random_points(most: int, count: int, seed: int) -> list[int]:
    """Distinct operations to be killed at."""
    return sorted(random.Random(seed).sample(range(1, most + 1), min(count, most)))
