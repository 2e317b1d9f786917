"""The records of a run: to `metrics.jsonl` and to whoever listens, on the first process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_fabric import Fabric

from fullrank.training.run_dir import RunDir

__all__ = ["Listener", "RecordWriter"]

Listener = Callable[[Mapping[str, Any]], None]
"""Called on the first process with a `start` record, then with every record of `metrics.jsonl`."""


class RecordWriter:
    """Writes records in the order of what they are about, which may not be the order that they come in.

    Args:
        fabric: says which process is the first.
        run: where they are written.
        listeners: whom they are told.

    Attributes:
        started: when the run began, on the clock of `time.perf_counter`; earlier by its time before a resume.
    """

    def __init__(self, fabric: Fabric, run: RunDir, listeners: Sequence[Listener]) -> None:
        self.first, self.run, self.listeners = fabric.is_global_zero, run, listeners
        self.started = time.perf_counter()
        self._held: list[Mapping[str, Any]] | None = None

    def elapsed(self) -> float:
        """Seconds of the whole run so far."""
        return time.perf_counter() - self.started

    def tell(self, record: Mapping[str, Any]) -> None:
        """To the listeners alone."""
        if self.first:
            for listener in self.listeners:
                listener(record)

    def write(self, record: Mapping[str, Any]) -> None:
        """To the file and the listeners; while records are held, once they are released."""
        if self._held is not None:
            self._held.append(record)
            return
        if self.first:
            self.run.append(record)
        self.tell(record)

    def hold(self) -> None:
        """From here on records wait: an earlier one is still to come."""
        self._held = []

    def release(self, earlier: Mapping[str, Any] | None) -> int:
        """Writes the one that was to come, where it did come, then those that waited.

        Returns:
            Bytes of the file up to and with `earlier`.
        """
        waiting, self._held = self._held or (), None
        if earlier is not None:
            self.write(earlier)
        size = self.run.metrics_size() if self.first else 0
        for record in waiting:
            self.write(record)
        return size
