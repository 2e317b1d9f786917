"""Processes that embed and are killed, or that embed a part: they must import what they run."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch
from torch import Tensor

from fullrank.cli import main
from fullrank.features import writing
from fullrank.features.writing import StoreWriter


def doomed(words: list[str], batches: int) -> None:
    """Runs the command and kills the process with a batch half written."""
    torch.set_num_threads(1)
    writing.RECORD_SECONDS = 0.0
    add, seen = StoreWriter.add, 0

    def added(self: StoreWriter, rows: Any, indices: Tensor, labels: Tensor | None, images: int) -> None:
        nonlocal seen
        if seen == batches:
            file = next(iter(self.files.values()))
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        add(self, rows, indices, labels, images)

    StoreWriter.add = added  # type: ignore[method-assign]
    main(words)


def one_of(words: list[str], rank: int, size: int) -> None:
    """Runs the command as torchrun would, as one of several processes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    sys.exit(main(words))
