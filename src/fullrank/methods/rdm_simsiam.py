"""RDM-SimSiam: SimSiam whose predictor is a fixed spectral filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods._two_branch import TwoBranchMethod, negative_cosine
from fullrank.networks.heads import mlp

__all__ = ["RDMSimSiam"]


@register("rdm_simsiam")
class RDMSimSiam(TwoBranchMethod):
    """RDM-SimSiam (Zhuo et al., "Towards a Unified Theoretical Understanding of Non-contrastive Learning via
    Rank Differential Mechanism", 2303.02387).

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

    @dataclass(frozen=True)
    class Config(FilterConfig):
        """Knobs of RDM-SimSiam; the defaults are the reference's scripts'.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers.
            proj_output_dim: d, width of the projection.
            pred_type: `poly`, `log`, `log_1` or `log_2`; see `FilterConfig`.
            pred_location: the filtered branch, `online` or `target`.
            sigma: the power of `poly`.
            stats: whose singular values a filtered target has, its `own` or the `other` view's.
            rank_threshold: smaller singular values, relative to the largest, are dropped; in [0, 1).
            solver: `gram` or `svd`.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 2048
        proj_output_dim: int = 2048

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden = config.proj_hidden_dim
        self.projector = mlp([feature_dim, hidden, hidden, config.proj_output_dim], output_bn=True)

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """The reference's: solo-learn's SimSiam settings up to 64 pixels, the official ones above."""
        small = image_size <= 64
        return {
            "optimizer": "sgd",
            "lr": 0.5 if small else 0.05,
            "weight_decay": 1e-5 if small else 1e-4,
            "schedule": "cosine" if small else "epoch-cosine",
            "warmup_epochs": -1.0 if small else 0.0,
            "views": "simsiam-cifar" if small else "simsiam",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean negative cosine over pairs."""
        sources, targets = self.sources(views), self.targets(views)
        taps = {v: self.embed(views[v]) for v in sorted({*sources, *targets})}

        def distance(p: Tensor, z: Tensor) -> Tensor:
            return negative_cosine(*filtered_pair(p, z, self.config))

        p, z = ({v: taps[v]["projector"] for v in branch} for branch in (sources, targets))
        return Step(self.compare(distance, p, z, views), taps[sources[0]])

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F] and z [n, d]."""
        h = self.backbone(x)
        return {"backbone": h, "projector": self.projector(h)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone and projector; the filter has no parameters."""
        return self.groups("backbone", "projector")
