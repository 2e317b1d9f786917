"""A run of several processes, one of which fails, or is killed, at a place that the first word names."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from fullrank.cli import main
from fullrank.images import batch_loaders
from fullrank.launchers import launched_processes
from fullrank.training import checkpoint, checkpoint_files, held_out, loop, online_probe, run_dir

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/x")
PLACES: dict[str, tuple[Any, str, int, BaseException | signal.Signals]] = {
    "step": (loop.Loop, "optimise", 2, RuntimeError("a step that fails")),
    "loss": (loop.Loop, "forward", 2, MemoryError()),
    "views": (loop.Loop, "make_views", 2, RuntimeError("can't allocate memory: 9 bytes")),
    "images": (batch_loaders._Images, "__getitem__", 20, ValueError("no such image")),
    "probe": (online_probe.OnlineProbe, "add_gradient", 2, IndexError("no such label")),
    "panel": (held_out.HeldOutEvaluator, "panel", 2, FloatingPointError("no such number")),
    "neighbours": (held_out.HeldOutEvaluator, "accuracies", 2, KeyError("knn")),
    "parts": (checkpoint, "write_shards", 2, FULL),
    "records": (run_dir.RunDir, "append", 3, FULL),
    "checkpoint": (checkpoint_files.CheckpointFiles, "write", 2, FULL),
    "killed": (loop.Loop, "optimise", 6, signal.SIGKILL),
    "asked": (loop.Loop, "optimise", 6, signal.SIGTERM),
}
"""What fails, at which call of it, and how; or the signal that comes then."""


def _failing(plain: Callable[..., Any], at: int, how: BaseException | signal.Signals) -> Callable[..., Any]:
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at and isinstance(how, signal.Signals):
            os.kill(os.getpid(), how)
        elif len(calls) >= at and isinstance(how, BaseException):
            raise how
        return plain(*args, **kwargs)

    return call


def _rank() -> int:
    found = launched_processes()
    return found.rank if found else int(os.environ.get("LOCAL_RANK", "0"))


if __name__ == "__main__":
    place, failing, *words = sys.argv[1:]
    if _rank() == int(failing):
        owner, name, at, how = PLACES[place]
        setattr(owner, name, _failing(getattr(owner, name), at, how))
    sys.argv = [sys.argv[0], place, failing, *words]
    raise SystemExit(main(words))
