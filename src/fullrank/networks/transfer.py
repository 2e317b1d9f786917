"""Weights taken over from another network by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.networks.architecture import adapted

LEAST_SHARE = 0.5  # of a network's parameters, below which the weights are another network's
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Transfer:
    """Which weights of a network were taken over.

    Attributes:
        taken: names.
        fresh: names of its parameters and buffers that stay as they were, each with the reason.
        unused: names of the source's that it has no place for.
        share: of its parameters' numbers that were taken over.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        total = len(self.taken) + len(self.fresh)
        words = [f"{len(self.taken)} of {total} tensors ({100 * self.share:.3g} % of the parameters)"]
        words += [f"not there: {_some(self.fresh)}"] if self.fresh else []
        words += [f"left over: {_some(self.unused)}"] if self.unused else []
        return "; ".join(words)


def _some(names: tuple[str, ...]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


@torch.no_grad()
def transfer_weights(
    network: nn.Module, weights: Mapping[str, Tensor], origin: str, backbone: str = ""
) -> Transfer:
    """Copy the weights that a network has by name and shape, in place.

    Positions of a transformer are interpolated to its own grid. `backbone` names the network that had the
    weights, where it is known, for a message.

    Raises:
        UsageError: less than half of its parameters are there, or some are not finite; nothing was copied.

    Example:
        >>> line = nn.Linear(2, 1)
        >>> print(transfer_weights(line, {"weight": torch.ones(1, 2), "scale": torch.ones(1)}, "a line"))
        1 of 2 tensors (66.7 % of the parameters); not there: bias; left over: scale
    """
    for key, value in weights.items():
        if value.is_meta or value.layout != torch.strided or value.is_complex():
            raise UsageError(f"--init: {origin} holds {key}, which is no plain tensor of real numbers")
    own, weights = network.state_dict(), adapted(network, weights)
    taken = [key for key, value in own.items() if key in weights and weights[key].shape == value.shape]
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # which nothing reads
    unlike = {
        key: "x".join(map(str, weights[key].shape)) for key in own if key in weights and key not in taken
    }
    fresh = [
        f"{key} ({unlike[key]} for {'x'.join(map(str, own[key].shape))})" if key in unlike else key
        for key in own
        if key not in taken and key not in counters
    ]
    sizes = {key: p.numel() for key, p in network.named_parameters()}
    share = sum(sizes.get(key, 0) for key in taken) / max(sum(sizes.values()), 1)
    found = Transfer(tuple(taken), tuple(fresh), tuple(key for key in weights if key not in own), share)
    if share < LEAST_SHARE:
        remedy = (
            f"leave --backbone out, or take --backbone {backbone}" if backbone else "take another --backbone"
        )
        raise UsageError(f"--init: {origin} does not fit this backbone: {found}; {remedy}")
    for key in taken:
        value = weights[key]
        negative = key.endswith("running_var") and bool((value < 0).any())
        if negative or not bool(value.isfinite().all()):
            what = "a negative variance" if negative else "not finite"
            raise UsageError(f"--init: {key} of {origin} is {what}: take a sound file")
    for key in taken:
        own[key].copy_(weights[key])
    return found
