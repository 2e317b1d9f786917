"""Every registered method in a size for tests, whatever its knobs are called."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.methods import METHODS, Method, build_method

WIDTH, SIDE = 12, 4


def shrunk(name: str) -> dict[str, Any]:
    """The method's options with every large whole number an eighth of its default."""
    knobs = dataclasses.fields(METHODS[name].Config)
    return {
        knob.name: max(8, knob.default // 8)
        for knob in knobs
        if isinstance(knob.default, int) and not isinstance(knob.default, bool) and knob.default >= 64
    }


def backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())


def method(name: str, seed: int = 0, **options: Any) -> Method:
    """A seeded method in that size around a backbone of twelve features."""
    torch.manual_seed(seed)
    return build_method(name, backbone(), WIDTH, shrunk(name) | options)


def views(n: int = 16, seed: int = 1, count: int = 2) -> list[Tensor]:
    """Random views [n, 3, 4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, SIDE, SIDE, generator=generator) for _ in range(count)]
