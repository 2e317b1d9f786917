"""SimSiam: a predictor and a stop-gradient, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, negative_cosine, over_pairs
from fullrank.networks.heads import mlp

__all__ = ["SimSiam", "simsiam_loss"]


def simsiam_loss(p: Sequence[Tensor], z: Sequence[Tensor], stop_gradient: bool = True) -> Tensor:
    """Mean of D(p_a, stopgrad(z_b)) over all ordered pairs of views a != b (equations 2 to 4).

    With two views this is the paper's D(p1, z2)/2 + D(p2, z1)/2. Range [-1, 1]; -1 is perfect invariance,
    which a constant output attains.

    Args:
        p: per view, predictions [n, d].
        z: per view, projections [n, d].
        stop_gradient: detach the targets, which is what keeps SimSiam from collapse.

    Example:
        >>> from torch import eye
        >>> simsiam_loss([eye(2), -eye(2)], [eye(2), -eye(2)]).item()
        1.0
    """
    targets = [view.detach() for view in z] if stop_gradient else z
    return over_pairs(negative_cosine, dict(enumerate(p)), dict(enumerate(targets)))


@register("simsiam")
class SimSiam(TwoBranchMethod):
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
    class Config(TwoBranchConfig):
        """Knobs of SimSiam; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0 takes the backbone's feature width, as
                the reference does (2048 for ResNet-50).
            proj_output_dim: d, width of the projection.
            proj_layers: linear layers in the projector (paper: 3; 2 for CIFAR-10).
            hidden_bn: BN after the hidden layers of projector and predictor.
            output_bn: whether the projector ends in an affine-free BN.
            pred_output_bn: whether the predictor ends in one too (the paper's "all BN", which is unstable).
            pred_hidden_dim: width of the predictor's bottleneck.
            predictor: `mlp`, `fixed` (random, never trained) or `none` (identity).
            stop_gradient: whether targets are detached.
            fixed_predictor_lr: whether the predictor keeps the base rate for the whole run.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 0
        proj_output_dim: int = 2048
        proj_layers: int = 3
        hidden_bn: bool = True
        output_bn: bool = True
        pred_output_bn: bool = False
        pred_hidden_dim: int = 512
        predictor: Literal["mlp", "fixed", "none"] = "mlp"
        stop_gradient: bool = True
        fixed_predictor_lr: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need(self.proj_layers > 0, "proj_layers", "must be positive")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, config.proj_hidden_dim or feature_dim
        widths = [feature_dim, *[hidden] * (config.proj_layers - 1), d]
        head = partial(mlp, hidden_bn=config.hidden_bn, hidden_bias=not config.hidden_bn)
        self.projector = head(widths, output_bn=config.output_bn)
        self.predictor: nn.Module = nn.Identity()
        if config.predictor != "none":
            widths = [d, config.pred_hidden_dim, d]
            self.predictor = head(widths, output_bn=config.pred_output_bn)
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
        """Views, each [n, 3, S, S], to the mean loss over pairs of source and target views."""
        sources, targets = self.sources(views), self.targets(views)
        taps = {v: self.embed(views[v]) for v in sorted({*sources, *targets})}
        p = {a: taps[a].get("predictor", taps[a]["projector"]) for a in sources}
        z = {b: taps[b]["projector"] for b in targets}
        if self.config.stop_gradient:
            z = {b: target.detach() for b, target in z.items()}
        return Step(self.compare(negative_cosine, p, z, views), taps[sources[0]])

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
