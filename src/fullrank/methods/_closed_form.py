"""What DirectPred, DirectCopy and IsoLoss share: a predictor written down from the correlation of
projections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod
from fullrank.networks.correlation import averaged_correlation
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision

__all__ = ["ClosedFormConfig", "ClosedFormMethod"]


@dataclass(frozen=True)
class ClosedFormConfig(MomentumConfig):
    """Knobs of every method whose predictor is a function of the correlation matrix C.

    Attributes:
        proj_hidden_dim: width of the projector's hidden layer.
        proj_output_dim: d, width of the projection.
        correlation_momentum: averaging coefficient of C, in [0, 1]; 0.998 with a momentum target and 0.5
            without one in the reference, 0.3 once per step in DirectPred's own code.
        update: whether C takes in each view before that view is predicted (`view`, the reference), or all of
            them at once before any is (`step`).
        centred: subtract the batch mean from what C takes in (off in the reference).
        distance: `cosine` or `euclidean`.
    """

    proj_hidden_dim: int = 4096
    proj_output_dim: int = 256
    correlation_momentum: float = 0.998
    update: Literal["view", "step"] = "view"
    centred: bool = False
    distance: Literal["cosine", "euclidean"] = "cosine"


class ClosedFormMethod(MomentumMethod):
    """Projector, correlation C, closed-form predictor and momentum target; the subclass says which predictor.

    C is a persistent buffer, updated in training mode only (the reference updates it in validation, too) and
    averaged over processes.
    """

    config: ClosedFormConfig
    C: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: ClosedFormConfig) -> None:
        super().__init__(backbone, feature_dim, config)
        d = config.proj_output_dim
        self.projector = mlp([feature_dim, config.proj_hidden_dim, d], hidden_bias=True)
        self.register_buffer("C", torch.zeros(d, d))
        self.make_target("backbone", "projector")

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """LARS as the reference's; ImageNet differs in rate and views."""
        small = image_size <= 96
        return {
            "optimizer": "lars",
            "lr": 1.0 if small else 0.45,
            "weight_decay": 1e-4 if small else 1e-5,
            "lars_eta": 0.02 if small else 0.001,
            "lars_clip": small,
            "lars_exclude_1d": True,
            "warmup_epochs": -1.0,
            "views": "asymmetric" if image_size <= 64 else "asymmetric-imagenet",
        }

    @abstractmethod
    def predictor_matrix(self) -> Tensor:
        """Wp [d, d] from the present C, without gradient."""

    @abstractmethod
    def distance(self, online: Tensor, target: Tensor) -> Tensor:
        """From [z, p], stacked [2, n, d], to the target projection [n, d]."""

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the loss, summed over the two directions (on that scale for more)."""
        online: dict[int, dict[str, Tensor]] = {}
        for a in self.sources(views):
            h = self.backbone(views[a])
            z = self.projector(h)
            online[a] = {"backbone": h, "projector": z}
            if self.config.update == "view":
                self._take_in(z)
                online[a]["predictor"] = _predict(z, self.predictor_matrix())
        if self.config.update == "step":
            self._take_in(torch.cat([tap["projector"] for tap in online.values()]))
            for tap in online.values():
                tap["predictor"] = _predict(tap["projector"], self.predictor_matrix())
        targets = self.encode_targets(views)
        pairs = {a: torch.stack([tap["projector"], tap["predictor"]]) for a, tap in online.items()}
        loss = 2.0 * self.compare(self.distance, pairs, targets, views)
        first = next(iter(online))
        return Step(loss, {**online[first], "target": targets.get(first, next(iter(targets.values())))})

    def _take_in(self, z: Tensor) -> None:
        if self.training:
            tau, centred = self.config.correlation_momentum, self.config.centred
            self.C = averaged_correlation(self.C, z.detach(), tau, centred)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z, p and the target's z' [n, d]; C stays as it is."""
        h = self.backbone(x)
        z = self.projector(h)
        p = _predict(z, self.predictor_matrix())
        return {"backbone": h, "projector": z, "predictor": p, "target": self.encode_target(x)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone and projector; the predictor has no parameters."""
        return self.groups("backbone", "projector")


@in_full_precision
def _predict(z: Tensor, wp: Tensor) -> Tensor:
    return z @ wp.to(z.dtype)
