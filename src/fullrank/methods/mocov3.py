"""MoCo v3: predictions find their moving average's keys among all others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fullrank.methods._base import SOLO_LARS, PerView, Step, ViewPairs, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._contrast import info_nce
from fullrank.methods._fixed_points import FOUND, NEGATIVES, FixedPoint, Situation
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs
from fullrank.networks.heads import mlp


def mocov3_loss(
    q: PerView, k: PerView, temperature: float = 0.2, view_pairs: ViewPairs = ViewPairs()
) -> Tensor:
    """Sum of 2 T InfoNCE over two directions; algorithm 1 of 2104.02057.

    The factor 2 T keeps the size of the gradient from growing as the temperature T falls. With more views it
    is twice the mean over ordered pairs.

    Args:
        q: queries, the predictor's outputs [n, d] by view.
        k: keys, the target's projections [n, d] by view, row-aligned, detached here.
        temperature: T, positive.
        view_pairs: see `ViewPairs`.

    Example:
        >>> from torch import eye
        >>> round(mocov3_loss([eye(2)] * 2, [eye(2)] * 2, temperature=1.0).item(), 4)
        1.253
    """

    def distance(query: Tensor, key: Tensor) -> Tensor:
        return 2.0 * temperature * info_nce(query, key.detach(), temperature)

    return 2.0 * over_pairs(distance, q, k, view_pairs)


def _agreeing(at: Situation) -> float:
    t = at.config.temperature
    return float(4 * t * math.log1p((at.n - 1) * math.exp(-1 / t)))


@register("mocov3")
class MoCoV3(MomentumMethod):
    """MoCo v3 (Chen et al., 2104.02057): contrast with a momentum target.

    Queries are predictions of the online network, keys projections of its moving average; each query must
    find the key of its image's other view among the keys of the batch (equation 1, both directions summed).

    What keeps it from collapse: the negatives; predictor and slow average make training stable and better.

    Where reference and paper differ: the authors' code averages the target within the forward pass
    (`target_update = "before-target"`), solo-learn after the step. With ViTs the projector has three layers
    and the predictor ends in BN as well (`proj_layers = 3`, `pred_output_bn = True`); these defaults are
    those of ResNets.

    Taps: backbone, projector, predictor, target.
    """

    paper, year = "2104.02057", 2021
    mechanism = "negatives from a momentum target"
    # solo-learn's optimiser, the same for CIFAR and ImageNet-100.
    small_image_defaults = SOLO_LARS | {"weight_decay": 1e-6}
    fixed_points = (
        FixedPoint(
            "constant",
            "4 T ln n",
            lambda at: 4 * at.config.temperature * math.log(at.n),
            ("complete",),
            NEGATIVES,
        ),
        FixedPoint("agreeing", "4 T ln(1 + (n - 1) exp(-1/T))", _agreeing, (), FOUND),
    )

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Options of MoCo v3; the defaults are solo-learn's.

        Attributes:
            proj_layers: linear layers in the projector (2; with ViTs 3).
            pred_hidden_dim: width of the predictor's hidden layer; 0: 4096, less for narrow backbones.
            pred_output_bn: whether the predictor ends in an affine-free BN, as with ViTs.
            temperature: that cosines are divided by, positive.
        """

        positive = ("proj_layers",)
        proj_layers: int = 2
        pred_hidden_dim: int = follow_backbone(4096)
        pred_output_bn: bool = False
        temperature: float = 0.2

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, [config.proj_hidden_dim] * (config.proj_layers - 1)
        self.projector = mlp([feature_dim, *hidden, d], output_bias=False, output_bn=True)
        widths = [d, config.pred_hidden_dim, d]
        self.predictor = mlp(widths, output_bias=False, output_bn=config.pred_output_bn)
        self.make_target("backbone", "projector")

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the summed loss; online views pass first."""
        taps, q, k = self.encode_branches(views, "predictor")
        return Step(mocov3_loss(q, k, self.config.temperature, self.view_pairs(views)), taps)
