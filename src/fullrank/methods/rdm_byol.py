"""RDM-BYOL: BYOL whose predictor is a fixed spectral filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, regression_loss
from fullrank.networks.heads import mlp

__all__ = ["RDMBYOL"]


@register("rdm_byol")
class RDMBYOL(MomentumMethod):
    """RDM-BYOL (Zhuo et al., "Towards a Unified Theoretical Understanding of Non-contrastive Learning via
    Rank Differential Mechanism", 2303.02387).

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

    @dataclass(frozen=True)
    class Config(FilterConfig, MomentumConfig):
        """Knobs of RDM-BYOL; the defaults are the reference's scripts'.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer.
            proj_output_dim: d, width of the projection.
            pred_type: `poly`, `log`, `log_1` or `log_2`; see `FilterConfig`.
            pred_location: the filtered branch, `online` or `target`.
            sigma: the power of `poly`.
            stats: whose singular values a filtered target has, its `own` or the `other` view's.
            rank_threshold: smaller singular values, relative to the largest, are dropped; in [0, 1).
            solver: `gram` or `svd`.
            tau_base: averaging coefficient of the target at the start; 0 with `tau_final` 0 is no average.
            tau_final: averaging coefficient of the target at the end.
            target_update: `after-step` or `before-target`; see `MomentumConfig`.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 4096
        proj_output_dim: int = 256

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        widths = [feature_dim, config.proj_hidden_dim, config.proj_output_dim]
        self.projector = mlp(widths, hidden_bias=True)
        self.make_target("backbone", "projector")

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """LARS as the reference's scripts have it."""
        return {
            "optimizer": "lars",
            "lr": 1.0 if image_size <= 64 else 0.5,
            "weight_decay": 1e-5,
            "lars_eta": 0.02,
            "lars_clip": True,
            "lars_exclude_1d": True,
            "warmup_epochs": -1.0,
            "views": "asymmetric" if image_size <= 64 else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the summed loss; online views pass before target views."""
        online = {a: self._online(views[a]) for a in self.sources(views)}
        z = self.encode_targets(views)

        def distance(p: Tensor, z: Tensor) -> Tensor:
            return regression_loss(*filtered_pair(p, z, self.config))

        p = {a: tap["projector"] for a, tap in online.items()}
        loss = 2.0 * self.compare(distance, p, z, views)
        first = next(iter(online))
        return Step(loss, {**online[first], "target": z.get(first, next(iter(z.values())))})

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d] and the target's z' [n, d]."""
        return {**self._online(x), "target": self.encode_target(x)}

    def _online(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {"backbone": h, "projector": self.projector(h)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone and projector; the filter has no parameters, the target no gradient."""
        return self.groups("backbone", "projector")
