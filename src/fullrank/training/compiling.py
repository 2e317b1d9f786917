"""Networks through `torch.compile`, in training steps only."""

from __future__ import annotations

import torch

from fullrank.errors import UsageError
from fullrank.methods import Method


def compile_networks(method: Method, device: torch.device, mode: str = "default") -> None:
    """Run backbone and heads of both branches through `torch.compile`, one by one.

    Views pass one after the other as before, so BatchNorm statistics stay those of a view; parameters, their
    names and the weights that are saved stay as they are. Numbers agree with those of a run without to
    rounding, not to the last bit.

    Raises:
        UsageError: PyTorch cannot compile on this machine.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler that is missing or broken may say
        last = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(
            "--compile needs what PyTorch compiles with, a C++ compiler on a CPU and Triton on a GPU; "
            f"leave it out, or mend this: {last}"
        ) from error
    target = getattr(method, "target", None)
    for network in (*method.children(), *(target.children() if target is not None else ())):
        if network is not target and any(True for _ in network.parameters()):
            network.compile(mode=mode)
