"""SimSiam: a predictor and a stop-gradient, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods.base import Method, ParamGroup, Step, check_views, register
from fullrank.networks.heads import mlp

__all__ = ["SimSiam", "negative_cosine", "simsiam_loss"]


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -mean_i <p_i, z_i> / (|p_i| |z_i|), in [-1, 1]; SimSiam (2011.10566), equation 1.

    Args:
        p: predictions [n, d].
        z: targets [n, d]; detach them for the stop-gradient.

    Example:
        >>> z = torch.eye(2)
        >>> negative_cosine(z, z).item()
        -1.0
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


def simsiam_loss(p: Sequence[Tensor], z: Sequence[Tensor], stop_gradient: bool = True) -> Tensor:
    """Mean of D(p_a, stopgrad(z_b)) over all ordered pairs of views a != b (equations 2 to 4).

    With two views this is the paper's D(p1, z2)/2 + D(p2, z1)/2. Range [-1, 1]; -1 is perfect invariance,
    which a constant output attains.

    Args:
        p: per view, predictions [n, d].
        z: per view, projections [n, d].
        stop_gradient: detach the targets, which is what keeps SimSiam from collapse.

    Example:
        >>> a, b = torch.eye(2), -torch.eye(2)
        >>> simsiam_loss([a, b], [a, b]).item()
        1.0
    """
    check_views(p)
    targets = [view.detach() for view in z] if stop_gradient else list(z)
    pairs = list(permutations(range(len(p)), 2))
    return torch.stack([negative_cosine(p[a], targets[b]) for a, b in pairs]).mean()


@register("simsiam")
class SimSiam(Method):
    """SimSiam (Chen and He, "Exploring Simple Siamese Representation Learning", 2011.10566).

    Two views share one backbone and projector; a predictor on one must meet the other, detached
    (equations 1 to 4). Every view passes by itself, so BN statistics are per view.

    What keeps it from collapse: the stop-gradient together with the predictor. Without either the loss runs
    to -1: to one point where the projector ends in a plain linear layer; into a thin subspace where it ends
    in an affine-free BN, which holds every channel's variance at one (both are in `fullrank demo`).

    Where reference and paper differ: the reference freezes the bias of the projector's last layer, which
    the BN behind it undoes; so do we.

    Taps: backbone, projector, predictor (where there is one).
    """

    paper, year = "2011.10566", 2020
    mechanism = "stop-gradient and predictor"

    @dataclass(frozen=True)
    class Config:
        """Knobs of SimSiam; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0 takes the backbone's feature width, as
                the reference does (2048 for ResNet-50).
            proj_output_dim: d, width of the projection.
            proj_layers: linear layers in the projector (paper: 3; 2 for CIFAR-10).
            output_bn: whether the projector ends in an affine-free BN.
            pred_hidden_dim: width of the predictor's bottleneck.
            predictor: `mlp`, `fixed` (random, never trained) or `none` (identity).
            stop_gradient: whether targets are detached.
            fixed_predictor_lr: whether the predictor keeps the base rate for the whole run.
        """

        proj_hidden_dim: int = 0
        proj_output_dim: int = 2048
        proj_layers: int = 3
        output_bn: bool = True
        pred_hidden_dim: int = 512
        predictor: Literal["mlp", "fixed", "none"] = "mlp"
        stop_gradient: bool = True
        fixed_predictor_lr: bool = True

        def __post_init__(self) -> None:
            if (
                min(self.proj_output_dim, self.pred_hidden_dim, self.proj_layers) < 1
                or self.proj_hidden_dim < 0
            ):
                raise UsageError("SimSiam's widths and its number of layers must be positive")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, config.proj_hidden_dim or feature_dim
        widths = [feature_dim, *[hidden] * (config.proj_layers - 1), d]
        self.projector = mlp(widths, output_bn=config.output_bn)
        self.predictor: nn.Module = nn.Identity()
        if config.predictor != "none":
            self.predictor = mlp([d, config.pred_hidden_dim, d])
        if config.predictor == "fixed":
            self.predictor.requires_grad_(False)

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """The reference's optimiser; no blur on small images, as in its CIFAR experiments."""
        small = image_size <= 64
        return {
            "optimizer": "sgd",
            "lr": 0.05,
            "weight_decay": 5e-4 if small else 1e-4,
            "views": "simsiam-cifar" if small else "simsiam",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean loss over ordered pairs."""
        taps = [self.embed(view) for view in views]
        p = [tap.get("predictor", tap["projector"]) for tap in taps]
        z = [tap["projector"] for tap in taps]
        return Step(simsiam_loss(p, z, self.config.stop_gradient), taps[0])

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d] and p [n, d]."""
        h = self.backbone(x)
        z = self.projector(h)
        taps = {"backbone": h, "projector": z}
        if self.config.predictor != "none":
            taps["predictor"] = self.predictor(z)
        return taps

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, and the predictor, at a fixed rate by default."""
        groups = [
            ParamGroup("backbone", list(self.backbone.parameters())),
            ParamGroup("projector", list(self.projector.parameters())),
        ]
        if self.config.predictor == "mlp":
            fixed = self.config.fixed_predictor_lr
            groups.append(ParamGroup("predictor", list(self.predictor.parameters()), fixed_lr=fixed))
        return groups
