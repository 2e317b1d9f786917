"""Diagnosis of a step whose numbers went wrong, by another run of its batch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.atomic import write_atomically
from fullrank.errors import FullrankError, printable
from fullrank.images.sources import Source
from fullrank.networks.finite import first_not_finite, is_finite
from fullrank.training.finite import LARGE_WEIGHT
from fullrank.training.setup import Setup

MOST_FILES = 3  # batches that a run keeps
SHOWN = 3  # images that a message names
TOO_HIGH = "the learning rate is too high"
LOWER = "lower --lr, or clip with --clip-grad"


@dataclass(frozen=True)
class HeldBatch:
    """Batch of this process: its number in the epoch, images with indices, and views."""

    index: int
    indices: Tensor
    images: Tensor | list[Tensor]
    views: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Wrong:
    """What was not finite, `loss`, taps or parameters by name, at which step (from 1)."""

    kind: Literal["output", "gradient"]
    numbers: Mapping[str, float]
    step: int

    def __str__(self) -> str:
        names = list(self.numbers)
        if not names:
            return "a number of another process is not finite"
        if self.kind == "gradient":
            return f"the gradient of {names[-1]} is not finite" + _others(len(names) - 1)
        if names[0] == "loss":
            return f"the loss is {self.numbers['loss']}"
        return f"the layer output {names[0]} is not finite"


@dataclass(frozen=True)
class Diagnosis:
    """Where a number went wrong first, why that is likely, and what helps."""

    where: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}; likely cause: {self.cause}: {self.remedy}"


@dataclass
class _Trace:
    """What the modules of a network gave out, in the order in which they ended.

    Attributes:
        module: the first whose output was not finite; empty where all were.
        kind: its class.
        sound_input: whether all that it was given was finite.
        bad_weight: the first of its own weights that was not.
        largest: absolute value among its input and its own weights, as far as they are finite.
        zero_rows: the last module before that with a row of zeros in an output [n, d].
    """

    module: str = ""
    kind: str = ""
    sound_input: bool = True
    bad_weight: str = ""
    largest: float = 0.0
    zero_rows: str = ""

    def take(self, name: str, module: nn.Module, given: Any, output: Any) -> None:
        """Take in what a module was given and gave out."""
        if self.module:
            return
        outputs = list(_tensors(output))
        if all(is_finite(z) for z in outputs):
            if any(z.ndim == 2 and bool((z == 0).all(1).any()) for z in outputs):
                self.zero_rows = name
            return
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        self.module, self.kind = name, type(module).__name__
        self.sound_input = all(is_finite(x) for x in _tensors(given))
        self.bad_weight = first_not_finite(dict(module.named_parameters(recurse=False)))
        found = [x.detach().abs().nan_to_num(0.0, 0.0).max() for x in (*_tensors(given), *own.values())]
        self.largest = max((float(x) for x in found), default=0.0)


@contextmanager
def _traced(network: nn.Module) -> Iterator[_Trace]:
    """Trace all modules of a network while the context lasts."""
    trace = _Trace()
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name:

                def hook(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
                    trace.take(name, module, given, output)

                stack.callback(module.register_forward_hook(hook).remove)
        yield trace


def _tensors(values: Any) -> Iterator[Tensor]:
    """Floating point tensors in nested tuples, lists and mappings."""
    if isinstance(values, Tensor):
        if values.is_floating_point() and values.numel():
            yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def diagnose(s: Setup, batch: HeldBatch, wrong: Wrong) -> Diagnosis:
    """Find where numbers of a batch went wrong first, and the likely cause.

    The batch runs forward once more, through all processes at a time; mixed precision is compared with single
    precision. Of a gradient the parameter that is closest to the loss is named.
    """
    precision = s.config.precision
    if wrong.kind == "gradient":
        return _bad_input(s, batch) or _of_gradient(wrong, precision)
    # whatever the input: BatchNorm may wait for the other processes, which may have a sound one
    trace = _run_again(s, batch.views)
    single = trace if precision == "fp32" else _run_again(s, batch.views, mixed=False)
    if found := _bad_input(s, batch):
        return found
    if trace.module and not single.module:
        return Diagnosis(_where(trace), f"it exceeds {precision}", "take --precision fp32")
    return _of_output(trace, wrong)


def _run_again(s: Setup, views: Sequence[Tensor], mixed: bool = True) -> _Trace:
    """Run the views through the method, neither compiled nor wrapped."""
    with ExitStack() as stack:
        if s.config.compile != "none":  # what is compiled calls no hooks
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if mixed:
            stack.enter_context(s.fabric.autocast())
        trace = stack.enter_context(_traced(s.method))
        with suppress(RuntimeError, FullrankError):  # of a method that refuses such numbers: they are traced
            s.method(list(views))
    return trace


def _bad_input(s: Setup, batch: HeldBatch) -> Diagnosis | None:
    """Find images or views that are not finite themselves."""
    images = batch.images if isinstance(batch.images, list) else [batch.images]
    if bad := _bad_rows(images):
        which = [f"{int(batch.indices[row])} ({_name(s.data.train, batch.indices[row])})" for row in bad]
        what = f"image {', '.join(which[:SHOWN])}" + _others(len(bad) - SHOWN)
        return Diagnosis(
            f"the input itself: {what}",
            "pixels that are not finite numbers",
            "mend or leave out what is named, or leave such steps out with --on-nan skip",
        )
    if bad := _bad_rows(batch.views):
        which = [str(int(batch.indices[row])) for row in bad]
        number = next(k for k, view in enumerate(batch.views, 1) if not is_finite(view))
        what = f"view {number} of image {', '.join(which[:SHOWN])}" + _others(len(bad) - SHOWN)
        return Diagnosis(
            f"the input itself: {what}, whose pixels are finite",
            "what makes or normalises the views",
            "take another --views, --mean or --std, or leave such steps out with --on-nan skip",
        )
    return None


def _bad_rows(batches: Sequence[Tensor]) -> list[int]:
    """Rows that are not finite in any of some tensors [b, ...]."""
    rows: set[int] = set()
    for batch in batches:
        if not is_finite(batch):
            rows |= set((~batch.flatten(1).isfinite().all(1)).nonzero().flatten().tolist())
    return sorted(rows)


def _others(more: int) -> str:
    return f" and of {more} more" if more > 0 else ""


def _name(source: Source, index: Tensor) -> str:
    return printable(source.where(int(index)))


def _where(trace: _Trace) -> str:
    found = f"first in {trace.module} ({trace.kind})"
    return found if trace.sound_input else f"first between modules, in what {trace.module} is given"


def _of_output(trace: _Trace, wrong: Wrong) -> Diagnosis:
    """Choose the likely cause of an output that is not finite on a sound batch."""
    if not trace.module:
        if trace.zero_rows:
            return Diagnosis(
                f"first after the modules, in the loss; {trace.zero_rows} gives zero vectors",
                "normalisation of a zero vector",
                f"{LOWER}: its units are dead",
            )
        return Diagnosis(
            "first after the modules, in the loss itself",
            "a logarithm of zero or a division by zero there",
            "lower --lr, see the options of the method, or leave such steps out with --on-nan skip",
        )
    where = _where(trace)
    if trace.bad_weight and wrong.step == 1:
        origin = "they were so before the first step"
        return Diagnosis(where, f"its {trace.bad_weight} is not finite: {origin}", "take a sound --init")
    if trace.bad_weight:
        return Diagnosis(f"{where}, whose {trace.bad_weight} is not finite", TOO_HIGH, LOWER)
    if trace.largest > LARGE_WEIGHT:
        return Diagnosis(f"{where}, where numbers reach {trace.largest:.3g}", TOO_HIGH, LOWER)
    if trace.zero_rows:
        return Diagnosis(
            f"{where}, after zero vectors of {trace.zero_rows}", "normalisation of a zero vector", LOWER
        )
    return Diagnosis(
        f"{where}, on finite input",
        "a logarithm of zero, a division by zero or a root of a negative number in it",
        "look at that module, or leave such steps out with --on-nan skip",
    )


def _of_gradient(wrong: Wrong, precision: str) -> Diagnosis:
    """Choose the likely cause of a gradient whose batch went forward soundly."""
    last = list(wrong.numbers)[-1]
    where = f"in the backward pass alone, first at or after {last}"
    if precision != "fp32":
        return Diagnosis(where, f"it exceeds {precision}", "take --precision fp32")
    return Diagnosis(
        where,
        "the derivative of a root, a logarithm or a division at zero, or gradients that exploded",
        "lower --lr, or leave such steps out with --on-nan skip",
    )


@dataclass(frozen=True)
class Trouble:
    """A step that went wrong, its diagnosis, and what became of its batch."""

    wrong: Wrong
    diagnosis: Diagnosis
    kept: str = ""

    def __str__(self) -> str:
        return f"step {self.wrong.step}: {self.wrong}, {self.diagnosis}{self.kept and '; '}{self.kept}"


def save_batch(run: Path, s: Setup, batch: HeldBatch, epoch: int, trouble: Trouble) -> str:
    """Keep a batch in `trouble/step_NNNNNNNN.pt` of a run, for the first few of them.

    The file holds `views`, float [b, 3, s, s] each, `indices`, int64 [b], `names` of the images, `step` (from
    1), `epoch`, `index` (the batch's number in the epoch), `seed`, and `found`, what was found; it opens with
    `torch.load(..., weights_only=True)`.

    Returns:
        Where it is, or why it is not there, for a message; empty where the run keeps enough of them.
    """
    folder = run / "trouble"
    path = folder / f"step_{trouble.wrong.step:08d}.pt"
    if not path.exists() and len(list(folder.glob("step_*.pt"))) >= MOST_FILES:
        return ""
    content = io.BytesIO()
    torch.save(
        {
            "views": [view.detach().cpu().contiguous() for view in batch.views],
            "indices": batch.indices.cpu(),
            "names": [_name(s.data.train, index) for index in batch.indices],
            "step": trouble.wrong.step,
            "epoch": epoch,
            "index": batch.index,
            "seed": s.config.seed,
            "found": str(trouble),
        },
        content,
    )
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        return f"its batch could not be kept in {path}: {error.strerror}"
    return f"its batch is in {path}"
