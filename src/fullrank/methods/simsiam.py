"""SimSiam: a predictor and a stop-gradient, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from fullrank.methods._base import SIMSIAM_SGD, PerView, Step, ViewPairs, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, negative_cosine, over_pairs
from fullrank.networks.heads import mlp


def simsiam_loss(
    p: PerView, z: PerView, stop_gradient: bool = True, view_pairs: ViewPairs = ViewPairs()
) -> Tensor:
    """Mean of D(p_a, stopgrad(z_b)) over ordered pairs of views (equations 2 to 4).

    With two views this is the paper's D(p1, z2)/2 + D(p2, z1)/2. Range [-1, 1]; -1 is perfect invariance,
    which a constant output attains.

    Args:
        p: predictions [n, d] by view.
        z: projections [n, d] by view.
        stop_gradient: detach the targets, which is what keeps SimSiam from collapse.
        view_pairs: see `ViewPairs`.

    Example:
        >>> from torch import eye
        >>> simsiam_loss([eye(2), -eye(2)], [eye(2), -eye(2)]).item()
        1.0
    """

    def distance(source: Tensor, target: Tensor) -> Tensor:
        return negative_cosine(source, target.detach() if stop_gradient else target)

    return over_pairs(distance, p, z, view_pairs)


@register("simsiam")
class SimSiam(TwoBranchMethod):
    """SimSiam (Chen and He, 2011.10566): simple siamese learning.

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
    # The reference's optimiser; no blur on small images, as in its CIFAR experiments.
    compares_batch = False
    small_image_defaults = SIMSIAM_SGD
    large_image_defaults = {"weight_decay": 1e-4}
    least_loss = -1.0
    fixed_points = (
        FixedPoint("agreeing", "-1", lambda at: -1.0, ("complete", "dimensional"), CONSTANT),
        FixedPoint("unrelated", "0", lambda at: 0.0, (), UNRELATED),
    )

    @dataclass(frozen=True)
    class Config(TwoBranchConfig):
        """Options of SimSiam; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0 takes the backbone's feature width, as
                the reference does (2048 for ResNet-50).
            proj_layers: linear layers in the projector (paper: 3; 2 for CIFAR-10).
            hidden_bn: BN after the hidden layers of projector and predictor.
            output_bn: whether the projector ends in an affine-free BN.
            pred_output_bn: whether the predictor ends in one too (the paper's "all BN", which is unstable).
            pred_hidden_dim: width of the predictor's bottleneck; 0: 512, less for narrow backbones.
            predictor: `mlp`, `fixed` (random, never trained) or `none` (identity).
            stop_gradient: whether targets are detached.
            fixed_predictor_lr: whether the predictor keeps the base rate for the whole run.
        """

        positive = ("proj_layers",)
        proj_hidden_dim: int = follow_backbone()
        proj_layers: int = 3
        hidden_bn: bool = True
        output_bn: bool = True
        pred_output_bn: bool = False
        pred_hidden_dim: int = follow_backbone(512)
        predictor: Literal["mlp", "fixed", "none"] = "mlp"
        stop_gradient: bool = True
        fixed_predictor_lr: bool = True

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, config.proj_hidden_dim
        widths = [feature_dim, *[hidden] * (config.proj_layers - 1), d]
        head = partial(mlp, hidden_bn=config.hidden_bn, hidden_bias=not config.hidden_bn)
        self.projector = head(widths, output_bn=config.output_bn)
        if config.predictor != "none":
            widths = [d, config.pred_hidden_dim, d]
            self.predictor = head(widths, output_bn=config.pred_output_bn)
            self.predictor.requires_grad_(config.predictor == "mlp")
        self.fixed_lr_parts = ("predictor",) if config.fixed_predictor_lr else ()

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the mean loss over pairs of views."""
        last = "projector" if self.config.predictor == "none" else "predictor"
        taps, p, z = self.encode_siamese(views, last, "projector")
        return Step(simsiam_loss(p, z, self.config.stop_gradient, self.view_pairs(views)), taps)
