"""Staged release of a backbone: heads, its last layers, then those below."""

from __future__ import annotations

import math

from fullrank.errors import UsageError
from fullrank.methods import Method
from fullrank.networks.depth import frozen_modules, layer_depths
from fullrank.training.config import TrainConfig


class Thawing:
    """Freezes the layers of a backbone that do not learn yet, epoch by epoch.

    With `thaw_epochs` of e and `thaw_parts` of k, the heads learn alone for e epochs, with the last k-th of
    the layers for e more, and so on; frozen layers keep their statistics. Without `thaw_epochs` nothing is
    touched.

    Raises:
        UsageError: several processes, whose gradients are exchanged by what learns at the start.
    """

    def __init__(self, method: Method, config: TrainConfig, processes: int) -> None:
        self.method, self.epochs, self.parts = method, config.thaw_epochs, config.thaw_parts
        if self.epochs and processes > 1:
            raise UsageError("--thaw-epochs works in one process: take --devices 1")
        self._always_eval = method.eval_parts
        backbone = dict(method.backbone.named_parameters())
        self._learning = {name: p for name, p in backbone.items() if p.requires_grad}
        self._has_heads = any(p.requires_grad for p in set(method.parameters()) - set(backbone.values()))
        self._depths = layer_depths(method.backbone) if self.epochs else {}

    def stage(self, epoch: int) -> int:
        """How many of the parts learn in an epoch: 0 are the heads alone."""
        if not self.epochs:
            return self.parts
        return min(epoch // self.epochs + (not self._has_heads), self.parts)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze and release what this epoch takes."""
        if not self.epochs:
            return
        least = first_depth(max(self._depths.values()) + 1, self.parts, self.stage(epoch))
        for name, parameter in self._learning.items():
            parameter.requires_grad_(self._depths[name] >= least)
        keep_in_eval_mode(self.method, self._always_eval)


def first_depth(depths: int, parts: int, stage: int) -> int:
    """The depth from which layers learn, where `stage` of `parts` are released.

    Example:
        >>> [first_depth(depths=4, parts=3, stage=stage) for stage in range(4)]
        [4, 2, 1, 0]
    """
    return depths - math.ceil(depths * stage / parts)


def keep_in_eval_mode(method: Method, others: tuple[str, ...] = ()) -> None:
    """Keep frozen modules of a backbone, and of its target, in eval mode.

    Those of a target only where it follows the backbone. `others` are modules that stay so besides.
    """
    owners = ["backbone", *(["target.backbone"] if method.target_follows else [])]
    fixed = frozen_modules(method.backbone)
    parts = [f"{owner}.{name}".rstrip(".") for owner in owners for name in fixed]
    method.eval_parts = tuple(dict.fromkeys([*others, *parts]))
    method.train()
