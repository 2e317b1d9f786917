"""SimCLR: views of an image attract, all other rows of the batch repel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.methods._base import SOLO_LARS, Step, register
from fullrank.methods._config import ProjectorConfig, follow_backbone
from fullrank.methods._contrast import nt_xent
from fullrank.methods._fixed_points import FOUND, NEGATIVES, FixedPoint, Situation
from fullrank.methods._one_branch import OneBranchMethod
from fullrank.networks.processes import world


def _constant(at: Situation) -> float:
    return math.log((at.views * at.n - 1) / (at.views - 1))


def _agreeing(at: Situation) -> float:
    negatives = at.views * (at.n - 1) / (at.views - 1)
    return math.log1p(negatives * math.exp(-1 / at.config.temperature))


@register("simclr")
class SimCLR(OneBranchMethod):
    """SimCLR (Chen et al., "A Simple Framework for Contrastive Learning", 2002.05709).

    Every row of every view must find the other views of its image among all rows of the batch (NT-Xent,
    equation 1; `contrast.nt_xent`). Any number of views: the positives of a row are summed inside the
    logarithm.

    What keeps it from collapse: the negatives. A constant output has the loss log((m - 1) / (V - 1)) for m
    rows of V views, where a good one nears 0. Dimensional collapse remains possible and does happen in the
    projections (Jing et al. 2110.09348).

    Where reference and paper differ: solo-learn's projector has no BN, its paper counterpart has; the
    reference exponentiates without subtracting the maximum and overflows at temperatures below about 0.011,
    ours does not.

    Taps: backbone, projector.
    """

    paper, year = "2002.05709", 2020
    mechanism = "negatives"
    # solo-learn's optimiser; CIFAR and ImageNet-100 differ in the rate.
    small_image_defaults = SOLO_LARS | {"lr": 0.4, "views": "symmetric"}
    large_image_defaults = {"lr": 0.3}
    fixed_points = (
        FixedPoint("constant", "ln((v n - 1) / (v - 1))", _constant, ("complete",), NEGATIVES),
        FixedPoint("agreeing", "ln(1 + v (n - 1) / (v - 1) exp(-1/T))", _agreeing, (), FOUND),
    )

    @dataclass(frozen=True)
    class Config(ProjectorConfig):
        """Options of SimCLR; the defaults are solo-learn's for CIFAR.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer (ImageNet-100: 4096); 0: 2048, less for
                narrow backbones.
            proj_output_dim: d, width of the projection (ImageNet-100: 512; the paper: 128); 0: 256, less
                for narrow backbones.
            temperature: that cosines are divided by, positive.
        """

        proj_output_dim: int = follow_backbone(256)
        temperature: float = 0.2

    config: Config
    proj_layers = 2
    proj_bn = False

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to NT-Xent over the rows of all views and processes."""
        taps, z = self.encode(views, "projector")
        n = len(z[0])
        index = torch.arange(n, device=z[0].device) + world()[0] * n
        return Step(nt_xent(torch.cat(z), index.repeat(len(z)), self.config.temperature), taps)
