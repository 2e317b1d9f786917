"""RDM-SimSiam: SimSiam whose predictor is a fixed spectral filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fullrank.methods._base import SIMSIAM_SGD, Step, register
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods._two_branch import TwoBranchMethod, negative_cosine, over_pairs
from fullrank.networks.heads import mlp


@register("rdm_simsiam")
class RDMSimSiam(TwoBranchMethod):
    """RDM-SimSiam (Zhuo et al., 2303.02387): rank differential mechanism.

    SimSiam without a predictor: with p = U S V^T the projections of one view, the online branch becomes
    p V g(S) V^T (a low pass; the filter carries no gradient), or the target branch U S^(1 + sigma) V^T of its
    own decomposition (a high pass; sigma = -1 whitens it). The loss is the mean of -cos over the two
    directions.

    What keeps it from collapse: the rank difference. The filter gives the online branch a lower effective
    rank than the target's, so that matching the target raises the rank (their theorem on dynamics).

    Where reference and paper differ: the decomposition is of the batch as it is, not centred and not divided
    by sqrt(n), so `log` types depend on batch size and scale. On the target the reference ignores
    `pred_type`; here it counts, and `poly` is the reference's. Its ImageNet code takes the target's filter
    from the online view (`stats` `other`). Directions whose singular value is exactly zero are dropped; the
    reference gives them weight 0^(1 + sigma), or NaN. Between batch size n <= d and BN before it, one such
    direction always exists up to rounding: `rank_threshold` 1e-5 drops it.

    Taps: backbone, projector.
    """

    paper, year = "2303.02387", 2023
    mechanism = "stop-gradient and spectral filter"
    # The reference's: solo-learn's SimSiam settings up to 64 pixels, the official ones above.
    small_image_defaults = SIMSIAM_SGD | {
        "lr": 0.5,
        "weight_decay": 1e-5,
        "schedule": "cosine",
        "warmup_epochs": -1.0,
    }
    large_image_defaults = {
        "lr": 0.05,
        "weight_decay": 1e-4,
        "schedule": "epoch-cosine",
        "warmup_epochs": 0.0,
    }
    least_loss = -1.0
    fixed_points = (
        FixedPoint("agreeing", "-1", lambda at: -1.0, ("complete", "dimensional"), CONSTANT),
        FixedPoint("unrelated", "0", lambda at: 0.0, (), UNRELATED),
    )

    @dataclass(frozen=True)
    class Config(FilterConfig):
        """Options of RDM-SimSiam; the defaults are the reference's scripts'."""

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden = config.proj_hidden_dim
        self.projector = mlp([feature_dim, hidden, hidden, config.proj_output_dim], output_bn=True)

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean negative cosine over pairs."""
        taps, p, z = self.encode_siamese(views, "projector", "projector")

        def distance(p: Tensor, z: Tensor) -> Tensor:
            return negative_cosine(*filtered_pair(p, z, self.config))

        return Step(over_pairs(distance, p, z, self.view_pairs(views)), taps)
