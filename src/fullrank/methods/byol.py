"""BYOL: an online network predicts a slowly moving average of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from fullrank.methods._base import SMALL_BATCH_SGD, SOLO_LARS, PerView, Step, ViewPairs, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs, regression_loss
from fullrank.networks.heads import mlp


def byol_loss(
    p: PerView, z: PerView, distance: str = "cosine", view_pairs: ViewPairs = ViewPairs()
) -> Tensor:
    """Sum of `regression_loss` over ordered pairs of views, in [0, 8] for two.

    With more than two views each view's mean over its partners is taken, times two, so that the scale, and
    with it the learning rate, stays that of two views.

    Args:
        p: predictions [n, d] by view.
        z: target projections [n, d] by view, detached here.
        distance: `cosine` or `euclidean`.
        view_pairs: see `ViewPairs`.

    Example:
        >>> from torch import eye
        >>> byol_loss([eye(2), -eye(2)], [eye(2), -eye(2)]).item()
        8.0
    """
    return 2.0 * over_pairs(partial(regression_loss, distance=distance), p, z, view_pairs)


@register("byol")
class BYOL(MomentumMethod):
    """BYOL (Grill et al., "Bootstrap Your Own Latent", 2006.07733).

    The online network's predictor meets the target network's projection of the other view (equation 2,
    symmetrised by a sum); the target is an exponential moving average of the online network, with tau rising
    from `tau_base` to `tau_final` along a cosine.

    What keeps it from collapse: the predictor and the detached target; the slow average makes it robust but
    is not needed (`tau_base = tau_final = 0` copies the online parameters after every step, and is what
    Halvagal et al. call SimSiam).

    Where reference and paper differ: only parameters are averaged; the target runs in training mode and keeps
    BN statistics of its own (solo-learn and its forks), and projections have 256 dimensions behind 4096.

    Taps: backbone, projector, predictor, target.
    """

    paper, year = "2006.07733", 2020
    mechanism = "predictor and momentum target"
    compares_batch = False
    # LARS as the reference's; CIFAR and the larger sets differ in rate and views.
    small_image_defaults = SOLO_LARS | {"lr": 1.0, "weight_decay": 1e-5}
    large_image_defaults = {"lr": 0.45, "weight_decay": 1e-6, "lars_eta": 0.001, "lars_clip": False}
    small_batch_defaults = SMALL_BATCH_SGD | {"lr": 0.2}
    fixed_points = (
        FixedPoint("agreeing", "0", lambda at: 0.0, ("complete", "dimensional"), CONSTANT),
        FixedPoint(
            "unrelated", "4", lambda at: 4.0 if at.config.distance == "cosine" else None, (), UNRELATED
        ),
    )

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Options of BYOL; the defaults are the reference's.

        Attributes:
            pred_hidden_dim: width of the predictor's hidden layer; 0: 4096, less for narrow backbones.
            predictor: `mlp`, or `linear` (one bias-free matrix, as DirectPred's theory has it).
            bias: whether the linear layers of the heads carry biases (Li et al. 2209.15007: no).
            distance: `cosine` or `euclidean`.
        """

        pred_hidden_dim: int = follow_backbone(4096)
        predictor: Literal["mlp", "linear"] = "mlp"
        bias: bool = True
        distance: Literal["cosine", "euclidean"] = "cosine"

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d = config.proj_output_dim
        head = partial(mlp, hidden_bias=config.bias, output_bias=config.bias)
        self.projector = head([feature_dim, config.proj_hidden_dim, d])
        self.predictor: nn.Module = nn.Linear(d, d, bias=False)
        if config.predictor == "mlp":
            self.predictor = head([d, config.pred_hidden_dim, d])
        self.make_target("backbone", "projector")

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the summed loss; online views pass first."""
        taps, p, z = self.encode_branches(views, "predictor")
        return Step(byol_loss(p, z, self.config.distance, self.view_pairs(views)), taps)
