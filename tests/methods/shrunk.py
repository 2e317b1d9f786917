"""Every registered method in a size for tests, whatever its knobs are called."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.methods import METHODS, Method, Step, StepInfo, build_method

WIDTH, SIDE = 12, 4


def shrunk(name: str) -> dict[str, Any]:
    """The method's options with every large whole number an eighth of its default."""
    knobs = dataclasses.fields(METHODS[name].Config)
    full = {knob.name: knob.metadata.get("paper") or knob.default for knob in knobs}
    return {
        knob: max(8, value // 8)
        for knob, value in full.items()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 64
    }


def backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())


class TokenBackbone(nn.Module):
    """Four patches, in timm's form."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, SIDE // 2, stride=SIDE // 2), nn.BatchNorm1d(WIDTH)

    def forward_features(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.patches(x).flatten(2)).relu().mT
        return tokens

    def forward_head(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def method(name: str, seed: int = 0, **options: Any) -> Method:
    """A seeded method in that size around a backbone of twelve features, with tokens where it needs them."""
    torch.manual_seed(seed)
    network = TokenBackbone() if METHODS[name].needs_tokens else backbone()
    return build_method(name, network, WIDTH, shrunk(name) | options)


def training_step(m: Method, batch: list[Tensor], info: StepInfo, lr: float = 0.1) -> Step:
    """A step of gradient descent with all hooks, as the loop takes it; gradients stay."""
    m.before_step(info)
    step = m.loss(batch)
    m.zero_grad()
    step.loss.backward()
    m.after_backward()
    with torch.no_grad():
        for p in m.parameters():
            if p.grad is not None:
                p.sub_(lr * p.grad)
    m.after_step(info)
    return step


def needed(name: str, n: int = 16, seed: int = 1, more: int = 0) -> list[Tensor]:
    """As many random views as the method needs, and some more."""
    return views(n, seed, METHODS[name].views_needed + more)


def views(n: int = 16, seed: int = 1, count: int = 2) -> list[Tensor]:
    """Random views [n, 3, 4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, SIDE, SIDE, generator=generator) for _ in range(count)]
