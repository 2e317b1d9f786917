"""Finiteness of a step's numbers, checked without waiting for the device.

Of each batch the loss and the sum of every layer output, of each step the sum or norm of every gradient: a
number that is not finite makes these NaN or infinite. On a CPU they are there at once. On a GPU they are
copied to pinned memory beside the step in progress, behind an event, and are read once they have arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fullrank.methods import Step
from fullrank.networks.sharded import local_part

LARGE_WEIGHT = 1e6  # of any parameter; those of sound networks stay below a hundred or so
LARGE_LOSS = 100.0  # times that of the first step, or 1 where that is more


class Sent:
    """Small tensor on its way to the host.

    Example:
        >>> Sent(torch.tensor([1.0, 2.0])).numbers()
        [1.0, 2.0]
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def numbers(self) -> list[float]:
        """The values, once their own copy is there, whatever the device does after it."""
        if self._event is not None:
            self._event.synchronize()
        found: list[float] = self._values.tolist()
        return found


class SentSums:
    """Named sums on their way to the host; whether any process has a bad one.

    Args:
        values: name to a scalar.
        processes: that agree on it, each of which makes one at the same time.
    """

    def __init__(self, values: Mapping[str, Tensor], processes: int = 1) -> None:
        self.names = tuple(values)
        sums = torch.stack([value.detach().float() for value in values.values()])
        self._agreed = processes > 1
        if self._agreed:
            bad = (~sums.isfinite()).any().float()
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
            sums = torch.cat((sums, bad[None]))
        self._sent = Sent(sums)

    def found(self) -> tuple[bool, dict[str, float]]:
        """Whether any process has a sum that is not finite, and those of this one.

        Example:
            >>> SentSums({"loss": torch.tensor(float("inf")), "projector": torch.tensor(2.0)}).found()
            (True, {'loss': inf})
        """
        numbers = self._sent.numbers()
        here = {
            name: value for name, value in zip(self.names, numbers, strict=False) if not math.isfinite(value)
        }
        return (numbers[-1] > 0 if self._agreed else bool(here)), here


def output_sums(step: Step) -> dict[str, Tensor]:
    """The loss, and the sum of every layer output by its name (tap)."""
    return {"loss": step.loss.detach()} | {
        tap: rows.detach().sum(dtype=torch.float32) for tap, rows in step.taps.items()
    }


def gradient_sums(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum of every gradient by its parameter's name; on a GPU its 1-norm.

    Of a sharded one it is that of this process's part.

    On a CPU a sum takes a quarter of a norm's time; on a GPU all norms are a few kernels.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> (weight * torch.tensor([1.0, float("nan")])).sum().backward()
        >>> gradient_sums({"weight": weight})
        {'weight': tensor(nan)}
    """
    gradients = {name: local_part(p.grad) for name, p in parameters.items() if p.grad is not None}
    if not gradients:
        return {}
    if next(iter(gradients.values())).device.type == "cpu":
        return {name: gradient.sum() for name, gradient in gradients.items()}
    return dict(zip(gradients, torch._foreach_norm(list(gradients.values()), 1), strict=True))


@torch.no_grad()
def absurd_numbers(
    parameters: Iterable[tuple[str, nn.Parameter]], first_loss: float | None, loss: float | None
) -> list[str]:
    """A line for weights and a loss that are finite, but of no network that learns.

    Args:
        parameters: by name.
        first_loss: of the run's first step; None where it is not known.
        loss: as it is now, a mean over an epoch.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 3e8)
        >>> for line in absurd_numbers(layer.named_parameters(), 2.0, -5e4):
        ...     print(line)
        weights reach 3e+08 (weight): the learning rate is too high: lower --lr, or clip with --clip-grad
        the loss is -5e+04, and was 2 at first: the learning rate is too high: lower --lr
    """
    named = [(name, part) for name, p in parameters if (part := local_part(p.detach())).numel()]
    largest = torch.stack([part.abs().max().float() for _, part in named]).tolist() if named else []
    lines = []
    if (most := max(largest, default=0.0)) > LARGE_WEIGHT:
        name = named[largest.index(most)][0]
        lines.append(
            f"weights reach {most:.3g} ({name}): the learning rate is too high: lower --lr, or clip with "
            f"--clip-grad"
        )
    known = first_loss is not None and loss is not None
    if known and abs(loss or 0.0) > LARGE_LOSS * max(abs(first_loss or 0.0), 1.0):
        lines.append(
            f"the loss is {loss:.3g}, and was {first_loss:.3g} at first: the learning rate is too high: "
            f"lower --lr"
        )
    return lines
