"""RDM-BYOL: BYOL whose predictor is a fixed spectral filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fullrank.methods._base import SOLO_LARS, Step, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs, regression_loss
from fullrank.networks.heads import mlp


@register("rdm_byol")
class RDMBYOL(MomentumMethod):
    """RDM-BYOL (Zhuo et al., 2303.02387): rank differential mechanism.

    BYOL without a predictor: the online projection, or the target's, passes a spectral filter of its own
    decomposition (see RDM-SimSiam); the loss is the sum of 2 - 2 cos over the two directions.

    What keeps it from collapse: the rank difference that the filter makes between the branches, and the
    slowly moving target.

    Where reference and paper differ: as in RDM-SimSiam: raw singular values, `pred_type` counts on the target
    too, exact zeros are dropped.

    Taps: backbone, projector, target.
    """

    paper, year = "2303.02387", 2023
    mechanism = "spectral filter and momentum target"
    # LARS as the reference's scripts have it.
    small_image_defaults = SOLO_LARS | {"lr": 1.0, "weight_decay": 1e-5}
    large_image_defaults = {"lr": 0.5}
    fixed_points = (
        FixedPoint("agreeing", "0", lambda at: 0.0, ("complete", "dimensional"), CONSTANT),
        FixedPoint("unrelated", "4", lambda at: 4.0, (), UNRELATED),
    )

    @dataclass(frozen=True)
    class Config(FilterConfig, MomentumConfig):
        """Options of RDM-BYOL; the defaults are the reference's scripts'.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer; 0: 4096, less for narrow backbones.
            proj_output_dim: d, width of the projection; 0: 256, less for narrow backbones.
        """

        proj_hidden_dim: int = follow_backbone(4096)
        proj_output_dim: int = follow_backbone(256)

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        widths = [feature_dim, config.proj_hidden_dim, config.proj_output_dim]
        self.projector = mlp(widths, hidden_bias=True)
        self.make_target("backbone", "projector")

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the summed loss; online views pass first."""
        taps, p, z = self.encode_branches(views, "projector")

        def distance(p: Tensor, z: Tensor) -> Tensor:
            return regression_loss(*filtered_pair(p, z, self.config))

        return Step(2.0 * over_pairs(distance, p, z, self.view_pairs(views)), taps)
