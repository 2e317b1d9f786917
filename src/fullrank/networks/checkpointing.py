"""Activation checkpointing: blocks run again in the backward pass, to save memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fullrank.errors import UsageError

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def checkpoint_blocks(network: nn.Module, name: str) -> None:
    """Keep only the inputs of a network's blocks, and run them again backward.

    Loss, gradients and BatchNorm statistics are those of the plain network; a step takes about a third
    longer. Call it on what is built: copies that are made later keep it too.

    Raises:
        UsageError: the network, which bears the name, has no blocks.

    Example:
        >>> checkpoint_blocks(nn.Linear(2, 2), "a line")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: --checkpoint-activations is for networks of blocks, and a line has none: \
take a ResNet or a transformer
    """
    found = list(blocks(network))
    if not found:
        raise UsageError(
            f"--checkpoint-activations is for networks of blocks, and {name} has none: take a ResNet or a "
            f"transformer"
        )
    for block in found:
        plain, contexts = block.forward, partial(_contexts, block)
        block.forward = partial(checkpoint, plain, use_reentrant=False, context_fn=contexts)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: outermost parts of sequences that have parts."""
    for child in network.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            for part in child.children():
                if isinstance(part, nn.ModuleList) or not _is_block(part):
                    yield from blocks(nn.ModuleList([part]))
                else:
                    yield part
        else:
            yield from blocks(child)


def _is_block(part: nn.Module) -> bool:
    return any(True for _ in part.children()) and any(True for _ in part.parameters())


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _without_tracking(block)


@contextmanager
def _without_tracking(block: nn.Module) -> Iterator[None]:
    """Keep running statistics of BatchNorms, which have seen this batch before."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    kept = [{name: norm._buffers.get(name) for name in STATISTICS} for norm in norms]
    for norm, statistics in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if s is None else s.clone() for name, s in statistics.items()})
    try:
        yield
    finally:
        for norm, statistics in zip(norms, kept, strict=True):
            norm._buffers.update(statistics)
