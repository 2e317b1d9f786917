"""Profile of a training step, beside the least time that this model can take here."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fullrank.errors import UsageError
from fullrank.images.loader import Batch
from fullrank.images.sources import Data
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.loop import Loop
from fullrank.training.networks import InitialWeights
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import prepare, setup

WARM_UP, TRACED = 3, 3  # steps before the clock starts, and in the trace
PIECES = {
    "make_views": "views", "forward": "forward", "backward": "backward", "backward_probe": "probe",
    "optimise": "optimiser", "end_step": "method", "log": "logging",
}  # fmt: skip
"""Methods of `Loop` in the order of a step, and the phases that end with them."""
PHASES = ("data", *PIECES.values())


@dataclass(frozen=True)
class Profile:
    """Time of a step.

    Attributes:
        phases: name to seconds a step (a median): waiting for data, making views, forward pass with the loss,
            backward pass, online probe, optimiser, what the method does after a step (EMA), logs and level.
        step: seconds a step, all of them.
        watching: seconds of the panel after an epoch, spread over the epoch's steps.
        knn: seconds of k-NN and the probe's accuracy, likewise.
        images: a second, without what comes between epochs.
        flops: of one step, counted: convolutions and matrix products, forward and backward.
        rate: flops a second that this machine reaches in the best of some convolutions and products.
    """

    phases: dict[str, float]
    step: float
    watching: float
    knn: float
    images: float
    flops: float
    rate: float
    steps: int
    trace: Path

    @property
    def floor(self) -> float:
        """Seconds a step at that rate: what cannot be undercut with this model."""
        return self.flops / self.rate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **vars(self),
            "trace": str(self.trace),
            "floor": self.floor,
            "share_of_rate": self.floor / self.step,
        }


class _Enough(Exception):
    """The steps that were to be measured are done."""


class _Stopwatch:
    """Clock that gives the time since the last phase ended to the one that ends now."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.wanted = device, steps
        self.rows: list[dict[str, float]] = [{}]
        self.last = self._now()

    def __call__(self, phase: str) -> None:
        now = self._now()
        self.rows[-1][phase] = self.rows[-1].get(phase, 0.0) + now - self.last
        self.last = now
        if phase == PHASES[-1]:
            if len(self.rows) == self.wanted:
                raise _Enough
            self.rows.append({})

    def after(self, phase: str, piece: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a piece of the loop, with which a phase ends."""

        def timed(*args: Any) -> Any:
            result = piece(*args)
            self(phase)
            return result

        return timed

    def after_each(self, batches: Callable[[], Iterator[Batch]]) -> Callable[[], Iterator[Batch]]:
        """Wrap the loop's batches, which it waits for."""

        def timed() -> Iterator[Batch]:
            for batch in batches():
                self(PHASES[0])
                yield batch

        return timed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def profile(
    config: TrainConfig,
    steps: int,
    out: Path,
    data: Data | None = None,
    initial: InitialWeights | None = None,
) -> Profile:
    """Measure the phases of a few steps; write `trace.json` for chrome://tracing.

    With a GPU every phase waits for it, so that steps are a little slower than in training.

    Raises:
        UsageError: no steps, or more of them than the run would have.

    Example:
        >>> import tempfile
        >>> small = {"backbone": "resnet8-w16", "views": "shapes", "options": {"proj_output_dim": 32}}
        >>> config = TrainConfig(limit=64, batch_size=8, accelerator="cpu", **small)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = profile(config, 2, Path(folder))
        >>> abs(sum(found.phases.values()) / found.step - 1) < 0.5, 0 < found.floor < found.step
        (True, True)
    """
    fabric = launch_fabric(config)
    config, data = prepare(config, fabric, data, initial)
    s = setup(config, data, fabric, initial)
    most = s.steps_per_epoch * config.epochs
    needed = WARM_UP + steps + TRACED + 1
    if steps < 1:
        raise UsageError(f"--profile measures 1 step or more, not {steps}")
    if needed > most:
        fit = most - needed + steps
        raise UsageError(
            f"a profile of {steps} steps needs {needed} with its warm-up and trace, and the run has {most}: "
            + (f"take 1 to {fit}, or more --epochs" if fit > 0 else "take more --epochs")
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(s, RunDir.create(Path(folder) / "run", config), ())
        s.method.train()
        rows = _steps(loop, WARM_UP + steps)[WARM_UP:]
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the tracer talks to the terminal
        with torch.profiler.profile() as traced:
            _steps(loop, TRACED)
        trace = out / "trace.json"
        traced.export_chrome_trace(str(trace))
        with FlopCounterMode(display=False) as counter:
            _steps(loop, 1)
        watching = _seconds(lambda: loop.evaluator.held_out.panel(trained=True), fabric.device)
        knn = _seconds(lambda: loop.evaluator.held_out.accuracies(loop.probe), fabric.device)
    step = statistics.median(sum(row.values()) for row in rows)
    images = config.batch_size * config.accumulate
    return Profile(
        phases={name: statistics.median(row.get(name, 0.0) for row in rows) for name in PHASES},
        step=step,
        watching=watching / (s.steps_per_epoch * max(config.watch_every, 1)),
        knn=knn / (s.steps_per_epoch * max(config.knn_every, 1)),
        images=images / step,
        flops=float(counter.get_total_flops()),
        rate=reachable_rate(fabric.device, config.precision),
        steps=steps,
        trace=trace,
    )


def _steps(loop: Loop, steps: int) -> list[dict[str, float]]:
    """Train on for so many steps; seconds of each by phase."""
    watch = _Stopwatch(loop.fabric.device, steps)
    pieces = {name: watch.after(phase, getattr(loop, name)) for name, phase in PIECES.items()}
    pieces["batches"] = watch.after_each(loop.batches)
    vars(loop).update(pieces)  # before the class's own
    with suppress(_Enough):
        while True:
            loop.train_epoch()
            loop.state.epoch += 1
    for name in pieces:
        delattr(loop, name)
    return watch.rows


def reachable_rate(device: torch.device, precision: str = "fp32") -> float:
    """Flops a second of the fastest of three convolutions and a matrix product."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    large = device.type == "cuda"
    n, size = (512, 8192) if large else (64, 1024)
    found = []
    for channels, side in ((64, 32), (256, 8), (512, 4)):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
        conv = conv.to(memory_format=torch.channels_last)
        x = torch.randn(n, channels, side, side, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        flops = 3 * 2 * 9 * channels**2 * side**2 * n
        found.append(flops / _best(lambda conv=conv, x=x: conv(x).sum().backward(), device))  # type: ignore[misc]
    a = torch.randn(size, size, device=device, dtype=dtype)
    found.append(2 * size**3 / _best(lambda: a @ a, device))
    return max(found)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    return min(_seconds(work, device) for _ in range(5))


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    watch = _Stopwatch(device, 2)
    work()
    watch("")
    return watch.rows[0][""]
