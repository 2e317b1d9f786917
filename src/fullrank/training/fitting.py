"""Fitting of a run into the memory that there is, before its first step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from fullrank.errors import FullrankError, UsageError
from fullrank.images.sources import Data
from fullrank.methods import METHODS
from fullrank.networks.backbones import OWN_BACKBONES
from fullrank.training.config import TrainConfig
from fullrank.training.footprint import Footprint, TooLargeError, estimate_footprint
from fullrank.training.machine import FreeMemory, free_memory
from fullrank.views import VIEWS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MARGIN = 0.8  # of the free memory: estimates are up to an eighth too low
SIZES = (160, 128, 96)  # pixels that large images are reduced to where nothing else helps
LEAST_BATCH = 8  # images: with fewer, BatchNorm and losses that compare images have nothing to go by
BYTES_A_PIXEL = 16_000  # of a step, at most, in the networks of `OWN_BACKBONES`
BYTES_OF_HEADS = 80  # by the product of the two largest widths: five layers, four tensors of each
NARROWEST = 4096  # a width that heads may have without being asked about
REMEDIES = "a smaller --batch-size (with --accumulate), --checkpoint-activations or a smaller --image-size"


class Fitted(NamedTuple):
    """A configuration that fits, and what is to be said of it; empty where nothing is."""

    config: TrainConfig
    note: str


def fit_memory(
    config: TrainConfig,
    data: Data,
    device: torch.device,
    named: Collection[str] | None = None,
    processes: int = 1,
) -> Fitted:
    """Change what nobody asked for until a resolved run fits into the free memory.

    Args:
        config: resolved: with image size, views and backbone.
        data: the images.
        device: that the run trains on.
        named: the settings that were asked for and stay as they are; None: all of them.
        processes: that share a batch, each with the same memory.

    Raises:
        UsageError: what was asked for does not fit, with the numbers and what would.
    """
    free = free_memory(device)
    if device.type == "cpu" and processes > 1:  # which take from the same memory
        free = FreeMemory(free.bytes // processes, f"a process, {free.limit}")
    if _is_small(config, free):
        return Fitted(config, "")
    gpu = device.type == "cuda"
    room = MARGIN * free.bytes - _moved_to(device, data)

    def needs(candidate: TrainConfig) -> Footprint:
        return estimate_footprint(candidate, data, processes, gpu)

    def fitting(keep: Collection[str] | None) -> tuple[TrainConfig, Footprint] | None:
        if first.weights > room:  # whatever batch and images
            return None
        for candidate in _smaller(config, data, keep):
            with suppress(UsageError):  # a loss that takes more images than that
                if (found := needs(candidate)).total <= room:
                    return candidate, found
        return None

    with _naming_widths(config):
        first = needs(config)
    if first.total <= room:
        return Fitted(config, f"memory: about {_size(first.total)} of {_size(free.bytes)} {free.limit}")
    if chosen := fitting(named):
        return Fitted(chosen[0], _what_changed(config, *chosen, first, free))
    other = fitting(())
    asked = f"{_described(config)} needs about {_size(first.total)} of memory, and {_size(free.bytes)} are "
    would = f"this would fit: {_flags(config, other[0])}" if other else ""
    would = would or _narrower(config, lambda candidate: needs(candidate).total <= room)
    raise UsageError(f"{asked}{free.limit}; {would}")


@contextmanager
def naming_remedies(config: TrainConfig) -> Iterator[None]:
    """Raise FullrankError with what would help where memory runs out.

    Example:
        >>> with naming_remedies(TrainConfig(image_size=32, backbone="resnet18")):
        ...     raise torch.OutOfMemoryError("CUDA out of memory")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fullrank.errors.FullrankError: simsiam on batches of 256 images ... ran out of memory: take a ...
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # PyTorch's own of a GPU is a RuntimeError
        said = str(error).strip() or type(error).__name__
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in said
        if not full:
            raise
        first = said.splitlines()[0][:120]
        raise FullrankError(f"{_described(config)} ran out of memory: take {REMEDIES} ({first})") from error


def _is_small(config: TrainConfig, free: FreeMemory) -> bool:
    """Whether a run fits by far, so that nothing need be worked out."""
    pixels = config.batch_size * sum(view.side(config.image_size) ** 2 for view in VIEWS[config.views].views)
    widest, second = sorted([NARROWEST, NARROWEST, *_sizes(config).values()])[:-3:-1]
    heads = BYTES_OF_HEADS * widest * max(second, config.batch_size)
    return config.backbone in OWN_BACKBONES and 1e9 + BYTES_A_PIXEL * pixels + heads < free.bytes / 2


def _sizes(config: TrainConfig) -> dict[str, int]:
    """Whole numbers among the options of a method, widths of layers among them."""
    options = asdict(METHODS[config.method].Config(**config.options))
    return {name: v for name, v in options.items() if isinstance(v, int) and not isinstance(v, bool)}


@contextmanager
def _naming_widths(config: TrainConfig) -> Iterator[None]:
    """Add to what is too large for any machine which option made it so."""
    try:
        yield
    except TooLargeError as error:
        raise TooLargeError(f"{error}; {_narrower(config, lambda candidate: True)}") from error


def _narrower(config: TrainConfig, fits: Callable[[TrainConfig], bool]) -> str:
    """What is to be smaller, where neither batch nor images are what takes the memory."""
    plain = _sizes(replace(config, options={}))
    wide = {name: plain[name] for name, size in _sizes(config).items() if size > max(plain[name], NARROWEST)}
    with suppress(UsageError):  # of options that go together, and sizes that nothing can have
        if wide and fits(replace(config, options={**config.options, **wide})):
            names = [f"--options.{name.replace('_', '-')}" for name in wide]
            return f"take a smaller {' and '.join(names)}"
    return "take a smaller --backbone"


def _moved_to(device: torch.device, data: Data) -> float:
    """Bytes of images that will be kept on a GPU."""
    return 0.0 if device.type == "cpu" else float(data.train.nbytes + data.held_out.nbytes)


def _smaller(config: TrainConfig, data: Data, named: Collection[str] | None) -> Iterator[TrainConfig]:
    """Configurations that need less and less, by changing what is not named."""
    if named is None:
        return
    yield from _ladder(config, named)
    if "image_size" not in named and not data.train.in_memory:
        for size in SIZES:
            if size < config.image_size:
                smaller = replace(config, image_size=size)
                yield from (smaller, *_ladder(smaller, named))


def _ladder(config: TrainConfig, named: Collection[str]) -> Iterator[TrainConfig]:
    """Smaller batches and checkpointing: first what leaves the loss as it was."""
    batches = [] if "batch_size" in named else list(_halves(config))
    checkpointed = "checkpoint_activations" not in named
    alike = not METHODS[config.method].compares_batch
    large = [each for each in batches if alike and each.batch_size >= 4 * LEAST_BATCH]
    yield from large
    if checkpointed:
        yield from (replace(each, checkpoint_activations=True) for each in (config, *batches))
    yield from batches


def _halves(config: TrainConfig) -> Iterator[TrainConfig]:
    """The same images a step in smaller and smaller batches."""
    batch, times = config.batch_size // 2, 2
    while batch >= LEAST_BATCH:
        yield replace(config, batch_size=batch, accumulate=config.accumulate * times)
        batch, times = batch // 2, times * 2


def _what_changed(
    before: TrainConfig, after: TrainConfig, found: Footprint, first: Footprint, free: FreeMemory
) -> str:
    changes = []
    if after.image_size != before.image_size:
        changes.append(f"images of {after.image_size} pixels")
    if after.batch_size != before.batch_size:
        changes.append(f"{after.accumulate} batches of {after.batch_size} a step")
        if METHODS[after.method].compares_batch:
            changes[-1] += f" (the loss of {after.method} compares the images of a batch: fewer at a time)"
    if after.checkpoint_activations and not before.checkpoint_activations:
        changes.append("checkpointed activations (a third slower)")
    return (
        f"memory: {_described(before)} would need {_size(first.total)} of {_size(free.bytes)} {free.limit}: "
        f"{', '.join(changes)}, about {_size(found.total)}"
    )


def _described(config: TrainConfig) -> str:
    checkpointed = ", checkpointed" if config.checkpoint_activations else ""
    return (
        f"{config.method} on batches of {config.batch_size} images of {config.image_size} pixels "
        f"through {config.backbone}{checkpointed}"
    )


def _flags(before: TrainConfig, after: TrainConfig) -> str:
    """The options that lead from one configuration to the other."""
    words = [
        f"--{name.replace('_', '-')} {getattr(after, name)}"
        for name in ("batch_size", "accumulate", "image_size")
        if getattr(before, name) != getattr(after, name)
    ]
    if after.checkpoint_activations and not before.checkpoint_activations:
        words.append("--checkpoint-activations")
    return " ".join(words)


def _size(number: float) -> str:
    """Bytes in the unit that suits.

    Example:
        >>> _size(2.34e9), _size(4.2e8)
        ('2.3 GB', '420 MB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def fitted(
    config: TrainConfig, data: Data, fabric: Fabric, named: Collection[str] | None = None
) -> tuple[TrainConfig, Data]:
    """The configuration that fits into memory, and the data with a note on it.

    See `fit_memory`. The first process decides for all of them.
    """
    found, refused = Fitted(config, ""), ""
    if fabric.is_global_zero:
        try:
            found = fit_memory(config, data, fabric.device, named, fabric.world_size)
        except UsageError as error:
            refused = str(error)
    found, refused = fabric.broadcast((found, refused))
    if refused:
        raise UsageError(refused)
    return found.config, replace(data, notes=[*data.notes, found.note]) if found.note else data
