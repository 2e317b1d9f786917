"""DirectCLR: contrast on some of the backbone's channels, no projector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods._base import SOLO_LARS, Method, Step, register
from fullrank.methods._config import MethodConfig
from fullrank.methods._contrast import info_nce
from fullrank.methods._fixed_points import FOUND, NEGATIVES, FixedPoint, Situation
from fullrank.methods._two_branch import over_pairs
from fullrank.networks.processes import from_first_process


def directclr_loss(h: Sequence[Tensor], channels: Sequence[Tensor], temperature: float = 0.1) -> Tensor:
    """Mean InfoNCE over sets of channels and ordered pairs of views, at least 0.

    Of features h [n, F] per view; each set of channel numbers is compared by itself. With two views and one
    set this is (InfoNCE(r1, r2) + InfoNCE(r2, r1)) / 2 on the sub-vectors r.

    Example:
        >>> h = torch.cat([torch.eye(2), torch.ones(2, 5)], dim=1)
        >>> round(directclr_loss([h, h], [torch.arange(2)], temperature=1.0).item(), 4)  # log(1 + 1/e)
        0.3133
    """
    losses = []
    for some in channels:
        r = [features[:, some] for features in h]
        losses.append(over_pairs(lambda q, k: info_nce(q, k, temperature), r, r))
    return torch.stack(losses).mean()


def _agreeing(at: Situation) -> float:
    return math.log1p((at.n - 1) * math.exp(-1 / at.config.temperature))


@register("directclr")
class DirectCLR(Method):
    """DirectCLR (Jing et al., 2110.09348): contrast without a projector.

    InfoNCE (section 6) on the first d0 channels of the backbone's features, with no projector: the gradient
    reaches the other channels through the backbone's earlier layers only. In place of one sub-vector,
    `num_groups` random disjoint groups of channels can be contrasted, each by itself, others at every step.

    What keeps it from collapse: the negatives, against one point; against dimensional collapse of the
    features, that the loss sees a low-rank part of them only, as it would through a fixed low-rank linear
    projector.

    Where reference and paper differ: the paper's d0 is 360 of ResNet-50's 2048 channels; for other widths we
    keep that share. The reference has a switch between sub-vector and groups of 256; here `num_groups` is
    that switch.

    Taps: backbone, projector (the first d0 channels; all of them with groups).
    """

    paper, year = "2110.09348", 2021
    mechanism = "negatives on a sub-vector of the features"
    # The reference's optimiser (4.8 for 4096 images); LARS on small images as solo-learn sets it.
    small_image_defaults = SOLO_LARS | {"weight_decay": 1e-6, "views": "symmetric"}
    large_image_defaults = {"lars_eta": 0.001, "lars_clip": False}
    fixed_points = (
        FixedPoint("constant", "ln n", lambda at: math.log(at.n), ("complete",), NEGATIVES),
        FixedPoint("agreeing", "ln(1 + (n - 1) exp(-1/T))", _agreeing, (), FOUND),
    )

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Options of DirectCLR; the defaults are the reference's.

        Attributes:
            num_channels: d0, channels of the sub-vector, or of each group; 0: 360/2048 of the features'
                width, or with groups an equal share of it (256 for eight groups of 2048).
            num_groups: random disjoint groups of channels, over which the loss is averaged (the reference's
                other mode: 8); 0: the first channels only.
            temperature: that cosines are divided by, positive.
        """

        num_channels: int = 0
        num_groups: int = 0
        temperature: float = 0.1

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        groups = config.num_groups
        share = feature_dim // groups if groups else max(round(feature_dim * 360 / 2048), 1)
        self.width, taken = config.num_channels or share, max(groups, 1)
        if not 1 <= self.width * taken <= feature_dim:
            raise UsageError(
                f"DirectCLR compares {taken} x {self.width} channels, but the backbone has {feature_dim}:"
                " lower num-channels or num-groups"
            )

    def channels(self) -> list[Tensor]:
        """The sets of channels that this step contrasts, the same on all processes."""
        device = next(self.parameters()).device
        if not self.config.num_groups:
            return [torch.arange(self.width, device=device)]
        order = from_first_process(torch.randperm(self.feature_dim).to(device))
        return list(order[: self.width * self.config.num_groups].view(-1, self.width))

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the mean InfoNCE over sets of channels and pairs."""
        taps, features = self.encode(views, "backbone")
        return Step(directclr_loss(features, self.channels(), self.config.temperature), taps)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F] and its contrasted channels [n, d0]."""
        h = self.backbone(x)
        return {"backbone": h, "projector": h if self.config.num_groups else h[:, : self.width]}
