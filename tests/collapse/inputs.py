"""Example input for every metric, changes of it, and the ranges that values must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.metrics import METRICS, Metric

Inputs = tuple[Tensor, ...]

# Fewer draws and shorter fits: what is tested here does not depend on how many there are.
QUICK: dict[str, dict[str, Any]] = {
    "alpha_req": {"first": 2},
    "cluster_learnability": {"seeds": 2},
    "dense_score": {"clusters": 4, "clusters_per_image": 2},
    "dime": {"pairings": 2},
    "legacy_mixture_entropy": {"components": 2, "samples": 400, "repeats": 2, "width": 16},
    "local_dimension": {"k": 5},
    "local_dimension_moments": {"k": 5},
    "local_dimension_spread": {"k": 5},
    "mixture_entropy": {"components": 2, "samples": 400, "repeats": 2},
    "sigreg_ratio": {"directions": 16},
    "sigreg_ratio_standardised": {"directions": 16},
    "visreg_shape": {"directions": 16},
}
CLASSES = 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value(name: str, *inputs: Any) -> float | None:
    return METRICS[name](*inputs, **QUICK.get(name, {}))


def around(entry: Metric, z: Tensor) -> Inputs:
    """Input of the right kind made of rows [n, d], which may be degenerate."""
    n = len(z)
    if entry.needs == "pairs":
        return z, z.clone()
    if entry.needs == "views":
        return (torch.stack([z, z.clone()], dim=1),)
    if entry.needs in ("labels", "classifier"):
        labels = torch.arange(n) % CLASSES
        return (z, labels, drawn(CLASSES, z.shape[1])) if entry.needs == "classifier" else (z, labels)
    if entry.needs == "tokens":
        return (z.reshape(1, n, -1),)
    return (z,)


def example(entry: Metric, n: int, d: int, seed: int) -> Inputs:
    """Rows with a mean, a decaying spectrum and three classes, and views, labels or tokens of them."""
    scale = torch.linspace(2, 0.5, d, dtype=torch.float64)
    centres = 2 * drawn(CLASSES, d, seed=seed + 1)
    z = drawn(n, d, seed=seed) * scale + 0.7 + centres[torch.arange(n) % CLASSES]
    noise = 0.3 * drawn(n, 3, d, seed=seed + 2)
    if entry.needs == "pairs":
        return z, z + noise[:, 0]
    if entry.needs == "views":
        return (z[:, None] + noise,)
    if entry.needs == "classifier":
        return z, torch.arange(n) % CLASSES, centres, drawn(CLASSES, seed=seed + 3)
    if entry.needs == "tokens":
        return (z[:, None].expand(n, 3, d).clone() + noise,)
    return around(entry, z)


def rows_of(entry: Metric) -> int:
    """How many of the inputs hold one item an image; the others are the classifier's."""
    return 2 if entry.needs in ("pairs", "labels", "classifier") else 1


def changed(entry: Metric, inputs: Inputs, change: str, seed: int) -> Inputs:
    """The input after one of the changes that `Metric.invariances` speaks of."""
    parts, rest = list(inputs[: rows_of(entry)]), inputs[rows_of(entry) :]
    if change in ("permutation", "replication"):
        n = len(parts[0])
        order = torch.arange(n).repeat(2)
        if change == "permutation":
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        return (*(part[order] for part in parts), *rest)
    d = parts[0].shape[-1]
    q, shift = torch.linalg.qr(drawn(d, d, seed=seed)).Q, 3 * drawn(d, seed=seed)
    factor = 10 ** float(drawn(1, seed=seed))
    acts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "rotation": lambda z: z @ q,
        "scale": lambda z: z * factor,
        "translation": lambda z: z + shift,
    }
    act = acts[change]
    return (*(act(part) if part.is_floating_point() else part for part in parts), *rest)


def assert_in_range(entry: Metric, found: float | None, inputs: Inputs, case: str = "") -> None:
    """None, or a finite value within the range that the entry states."""
    if found is None:
        return
    assert math.isfinite(found), f"{entry.name} is {found} {case}"
    z = inputs[0]
    n = z.shape[0] * z.shape[1] if entry.needs == "tokens" else len(z)
    low, high = entry.bounds(n, z.shape[-1], K=z.shape[-1], C=CLASSES)
    slack = 1e-9 * (1 + abs(found))
    assert low - slack <= found <= high + slack, f"{entry.name} is {found}, not in [{low}, {high}] {case}"
