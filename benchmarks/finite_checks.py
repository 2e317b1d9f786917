"""What the checks for numbers that are not finite cost of a training step on the CPU.

SimSiam in single precision on images of 32 pixels, by the loop of `fullrank train` itself. A row has the
share of a step that the checks take, by a clock within the loop; another, for information, the steps with the
checks beside steps without them, which take turns. One turn is far noisier than what is looked for.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import Row, beside, in_turns
from steps import IMAGES, SIZE, training_block, training_loop

from fullrank.training.config import TrainConfig
from fullrank.training.loop import Loop

CASES = (("resnet8-w16", 64, 40), ("resnet18", 32, 3))  # backbone, batch, steps of a turn
MOST = 0.005  # of a step
CHECKS = ("begin", "see", "allows")


class _Clock:
    """Seconds that a loop's guard has taken."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.seconds = loop, 0.0
        for name in CHECKS:
            vars(loop.guard)[name] = self._timed(getattr(loop.guard, name))

    def _timed(self, check: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            found = check(*args)
            self.seconds += time.perf_counter() - start
            return found

        return timed


def _without(loop: Loop, block: Callable[[], float]) -> Callable[[], float]:
    """The block without the guard."""

    def unguarded() -> float:
        kept = dict(vars(loop.guard))
        vars(loop.guard).update(begin=lambda: None, see=lambda *_: None, allows=lambda _: True)
        try:
            return block()
        finally:
            vars(loop.guard).clear()
            vars(loop.guard).update(kept)

    return unguarded


def measured(backbone: str, batch: int, steps: int, repeats: int) -> list[Row]:
    """Both rows of a network."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    config = TrainConfig(
        method="simsiam", backbone=backbone, batch_size=batch, epochs=1000, views="simsiam-cifar",
        accelerator="cpu", level_every=min(10, steps),
    )  # fmt: skip
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        loop = training_loop(config, images, Path(folder) / "run")
        block, clock = training_block(loop, steps), _Clock(loop)

        def guarded() -> float:
            clock.seconds = 0.0
            step = block()
            shares.append(clock.seconds / steps / step)
            return step

        ways = {"ours": guarded, "without": _without(loop, block)}
        in_turns(1, ways)
        shares.clear()
        _, found = in_turns(repeats, ways)
    what = f"finite checks, {backbone}, batch {batch}"
    own = statistics.median(found["ours"])
    share = Row(what, "", tuple(shares), MOST, at_most=True, ours=own, note="share of a step")
    return [share, beside(what, found, "without")]


def rows(repeats: int) -> list[Row]:
    """A small and a usual network."""
    return [row for case in CASES for row in measured(*case, repeats)]
