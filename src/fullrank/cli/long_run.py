"""A hint where a run on the CPU will take hours: what ends in minutes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fullrank.figures.style import duration
from fullrank.networks.backbones import is_transformer
from fullrank.report.run.summary import Summary
from fullrank.training.records import RunRecord, StartRecord, StepRecord

LONG = 3600.0  # seconds that a run has left, from which it gets the hint
STEPS = 3  # after the first, whose pace is that of the run, roughly
TRIED, FEW_EPOCHS, SMALL_SIDE, SMALL_BACKBONE = 2_000, 20, 64, "resnet8-w16"  # a first try on two cores


class LongRunHint:
    """Hint at a smaller run, given once, by the pace of the first steps.

    Args:
        gpu: whether the run has one; it gets no hint then.

    Example:
        >>> hint = LongRunHint(gpu=False)
        >>> start = StartRecord(config={"method": "byol", "data": "photos"}, total_steps=5000)
        >>> records = [StepRecord(step=step, time={"elapsed": 4.0 * step}) for step in range(1, 6)]
        >>> [line for record in (start, *records) if (line := hint(record))]
        ['at this pace 5 h 33 min are left on the CPU; a first try that takes minutes: fullrank train byol \
--data photos --limit 2000 --backbone resnet8-w16 --image-size 64 --epochs 20']
    """

    def __init__(self, gpu: bool) -> None:
        self._said, self._first = gpu, -1
        self._summary, self._config, self._steps = Summary("run"), dict[str, Any](), 0

    def __call__(self, record: RunRecord) -> str:
        """Take in a record; the hint where it is time for it, else empty."""
        if isinstance(record, StartRecord):
            self._config, self._steps = record.config, record.total_steps
        if self._said or not isinstance(record, StepRecord):
            return ""
        self._summary.take(record)
        self._first = record.step if self._first < 0 else self._first
        left = self._summary.seconds_left(self._steps)
        if left is None or record.step < self._first + STEPS:
            return ""
        self._said = True
        if left < LONG:
            return ""
        smaller = first_try(self._config)
        return f"at this pace {duration(left)} are left on the CPU; a first try that takes minutes: {smaller}"


def first_try(config: Mapping[str, Any]) -> str:
    """Command of a run of the same method that takes minutes on a few cores.

    Example:
        >>> first_try({"method": "ijepa", "data": "my photos", "backbone": "vit_tiny_patch16_224"})
        "fullrank train ijepa --data 'my photos' --limit 2000 --image-size 64 --epochs 20"
    """
    words = ["fullrank", "train", str(config.get("method")), "--data", str(config.get("data"))]
    words += ["--limit", str(TRIED)]
    if not is_transformer(str(config.get("backbone", "auto"))):
        words += ["--backbone", SMALL_BACKBONE]
    return shlex.join([*words, "--image-size", str(SMALL_SIDE), "--epochs", str(FEW_EPOCHS)])
