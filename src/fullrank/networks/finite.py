"""Weights with a number that is not finite, by their names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fullrank.networks.sharded import local_part


def is_finite(values: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite, in one pass where that is so.

    Example:
        >>> is_finite(torch.ones(3)), is_finite(torch.tensor([1.0, float("nan")])), is_finite(torch.tensor(3))
        (True, False, True)
    """
    if not (values.is_floating_point() or values.is_complex()):
        return True
    wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
    return bool(values.sum(dtype=wide).isfinite()) or bool(values.isfinite().all())


@torch.no_grad()
def first_not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Name of the first tensor with a NaN or an infinite number; empty without one.

    On a GPU this waits once for all of them. Of sharded ones the part of this process is looked through.

    Example:
        >>> first_not_finite({"weight": torch.ones(2), "bias": torch.tensor([1.0, float("inf")])})
        'bias'
    """
    parts = {name: local_part(t) for name, t in tensors.items()}
    floats = {name: t for name, t in parts.items() if t.is_floating_point() and t.numel()}
    by_device: dict[torch.device, list[str]] = {}
    for name, t in floats.items():
        by_device.setdefault(t.device, []).append(name)
    suspects: set[str] = set()
    for names in by_device.values():
        sums = torch.stack([floats[name].sum(dtype=torch.float32) for name in names]).isfinite().tolist()
        suspects |= {name for name, sound in zip(names, sums, strict=True) if not sound}
    return next((name for name in floats if name in suspects and not is_finite(floats[name])), "")
