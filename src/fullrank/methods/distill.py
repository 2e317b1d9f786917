"""Distillation of a random network: what an architecture can represent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import SIMSIAM_SGD, Method, Step, check_views, register
from fullrank.methods._config import MethodConfig
from fullrank.methods._fixed_points import FixedPoint
from fullrank.methods._two_branch import negative_cosine
from fullrank.networks.backbones import reinitialized
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import mean_over_processes

LEAST_STD = 1e-6  # a feature that is constant, as many of a random ReLU network's are, stays zero


@in_full_precision
def distill_loss(p: Tensor, z: Tensor, distance: str = "mse") -> Tensor:
    """Mean distance of the student's outputs p [n, d] to the teacher's z, detached.

    `mse`: the mean of (p - z)^2 over rows and dimensions; 1 is what zeros attain on standardised targets.
    `cosine`: -cos(p_i, z_i), in [-1, 1].

    Example:
        >>> distill_loss(torch.ones(3, 2), torch.zeros(3, 2)).item()
        1.0
    """
    return F.mse_loss(p, z.detach()) if distance == "mse" else negative_cosine(p, z.detach())


@register("distill")
class Distill(Method):
    """Frozen-teacher control of Li, Efros, Pathak (2209.15007), random teacher.

    A linear layer on the student's features regresses the features of a frozen network of the same
    architecture, initialised by itself, for the same view. Targets are standardised per dimension with
    running statistics. Whatever keeps a siamese method's rank low, the student's capacity or its dynamics,
    this tells which.

    What keeps it from collapse: nothing in the target depends on the student, so a constant never matches it.
    It cannot have more content than the teacher either.

    Where reference and paper differ: the reference distils trained networks into smaller ones and can start
    from saved statistics; here they start as 0 and 1, and those of a batch come in before its own targets are
    made. The teacher runs in evaluation mode.

    Taps: backbone, projector (the linear layer), target (the standardised features of the teacher).
    """

    paper, year = "2209.15007", 2022
    mechanism = "frozen random target"
    # The optimiser and views of SimSiam, as the reference has it.
    compares_batch = False
    caveat = "a control: it learns what a random network sees, which need not be classes"
    small_image_defaults = SIMSIAM_SGD
    large_image_defaults = {"weight_decay": 1e-4}
    least_loss = None
    fixed_points = (
        FixedPoint(
            "agreeing",
            "0, or -1 of the cosine",
            lambda at: 0.0 if at.config.distance == "mse" else -1.0,
            (),
            "The student equals a target that never moves, and is as varied.",
        ),
        FixedPoint(
            "at zero",
            "1, or 0 of the cosine",
            lambda at: 0.0 if at.config.distance == "cosine" else (1.0 if at.config.standardise else None),
            ("complete",),
            "The student's outputs tell nothing of its standardised targets, as zeros do.",
        ),
    )

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Options of the control; the defaults are the reference's.

        Attributes:
            distance: `mse` or `cosine`.
            standardise: targets have mean 0 and standard deviation 1 in every dimension.
            target_momentum: of the running statistics that they are standardised with, in [0, 1].
        """

        distance: Literal["mse", "cosine"] = "mse"
        standardise: bool = True
        target_momentum: float = 0.95

    config: Config
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        self.projector = nn.Linear(feature_dim, feature_dim)
        self.target = nn.ModuleDict({"backbone": reinitialized(backbone).requires_grad_(False)})
        self.register_buffer("target_mean", torch.zeros(feature_dim))
        self.register_buffer("target_std", torch.ones(feature_dim))
        self.eval_parts = ("target",)
        self.train()

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the mean distance of each to its own target."""
        check_views(views, self.views_needed)
        with torch.no_grad():
            features = [self.target["backbone"](view) for view in views]
            if self.training:
                self._observe(torch.cat(features))
        taps = [self.encode_source(view) for view in views]
        z = [self._standardised(feature) for feature in features]
        pairs = zip(taps, z, strict=True)
        losses = [distill_loss(tap["projector"], target, self.config.distance) for tap, target in pairs]
        return Step(torch.stack(losses).mean(), {**taps[0], "target": z[0]})

    @torch.no_grad()
    def _observe(self, rows: Tensor) -> None:
        rows = rows.to(self.target_mean.dtype)
        mean = mean_over_processes(rows.mean(dim=0))
        var = mean_over_processes((rows - mean).square().mean(dim=0))
        for running, value in ((self.target_mean, mean), (self.target_std, var.sqrt())):
            running.lerp_(value, 1.0 - self.config.target_momentum)

    def _standardised(self, z: Tensor) -> Tensor:
        if not self.config.standardise:
            return z
        return (z - self.target_mean) / self.target_std.clamp(min=LEAST_STD)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h, prediction and standardised target [n, F]."""
        return {**self.encode_source(x), "target": self._standardised(self.target["backbone"](x))}
