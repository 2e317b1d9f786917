"""BYOL: an online network predicts a slowly moving average of itself."""

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
from fullrank.networks.momentum import cosine_tau, momentum_copy, update_momentum

__all__ = ["BYOL", "byol_loss", "regression_loss"]


def regression_loss(p: Tensor, z: Tensor, distance: str = "cosine") -> Tensor:
    """One direction of BYOL (2006.07733), equation 2, averaged over rows.

    `cosine`: mean_i (2 - 2 cos(p_i, z_i)), in [0, 4], which equals |p/|p| - z/|z||^2.
    `euclidean`: mean_i |p_i - z_i|^2, summed over dimensions (Halvagal et al. 2212.04858).

    Args:
        p: predictions [n, d].
        z: targets [n, d], detached here.
        distance: `cosine` or `euclidean`.

    Example:
        >>> regression_loss(torch.eye(2), torch.eye(2)).item()
        0.0
    """
    z = z.detach()
    if distance == "cosine":
        return 2.0 - 2.0 * F.cosine_similarity(p, z, dim=1).mean()
    return (p - z).square().sum(dim=1).mean()


def byol_loss(p: Sequence[Tensor], z: Sequence[Tensor], distance: str = "cosine") -> Tensor:
    """Sum of `regression_loss` over ordered pairs of views a != b, in [0, 8] for two views and the cosine.

    With more than two views each view's mean over its partners is taken, times two, so that the scale, and
    with it the learning rate, stays that of two views.

    Args:
        p: per view, predictions [n, d].
        z: per view, target projections [n, d].
        distance: `cosine` or `euclidean`.

    Example:
        >>> a, b = torch.eye(2), -torch.eye(2)
        >>> byol_loss([a, b], [a, b]).item()
        8.0
    """
    check_views(p)
    pairs = list(permutations(range(len(p)), 2))
    return 2.0 * torch.stack([regression_loss(p[a], z[b], distance) for a, b in pairs]).mean()


@register("byol")
class BYOL(Method):
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

    @dataclass(frozen=True)
    class Config:
        """Knobs of BYOL; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer.
            proj_output_dim: d, width of the projection.
            pred_hidden_dim: width of the predictor's hidden layer.
            predictor: `mlp`, or `linear` (one bias-free matrix, as DirectPred's theory has it).
            distance: `cosine` or `euclidean`.
            tau_base: averaging coefficient at the start, in [0, 1].
            tau_final: averaging coefficient at the end, in [0, 1].
        """

        proj_hidden_dim: int = 4096
        proj_output_dim: int = 256
        pred_hidden_dim: int = 4096
        predictor: Literal["mlp", "linear"] = "mlp"
        distance: Literal["cosine", "euclidean"] = "cosine"
        tau_base: float = 0.99
        tau_final: float = 1.0

        def __post_init__(self) -> None:
            if min(self.proj_hidden_dim, self.proj_output_dim, self.pred_hidden_dim) < 1:
                raise UsageError("BYOL's widths must be positive")
            if not (0.0 <= self.tau_base <= 1.0 and 0.0 <= self.tau_final <= 1.0):
                raise UsageError(f"tau lies in [0, 1], not {self.tau_base} to {self.tau_final}")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d = config.proj_output_dim
        self.projector = mlp([feature_dim, config.proj_hidden_dim, d], hidden_bias=True)
        if config.predictor == "mlp":
            self.predictor: nn.Module = mlp([d, config.pred_hidden_dim, d], hidden_bias=True)
        else:
            self.predictor = nn.Linear(d, d, bias=False)
        self.target = nn.ModuleDict(
            {"backbone": momentum_copy(self.backbone), "projector": momentum_copy(self.projector)}
        )

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """LARS as the reference's; CIFAR and the larger sets differ in rate and views."""
        small = image_size <= 64
        return {
            "optimizer": "lars",
            "lr": 1.0 if small else 0.45,
            "weight_decay": 1e-5 if small else 1e-6,
            "lars_eta": 0.02 if small else 0.001,
            "lars_clip": small,
            "lars_exclude_1d": True,
            "views": "asymmetric" if small else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the summed loss; online views pass before target views."""
        online = [self._online(view) for view in views]
        with torch.no_grad():
            targets = [self._target(view) for view in views]
        p = [tap["predictor"] for tap in online]
        return Step(byol_loss(p, targets, self.config.distance), {**online[0], "target": targets[0]})

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d], p [n, d] and the target's z' [n, d]."""
        return {**self._online(x), "target": self._target(x)}

    def _online(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        z = self.projector(h)
        return {"backbone": h, "projector": z, "predictor": self.predictor(z)}

    def _target(self, x: Tensor) -> Tensor:
        z: Tensor = self.target["projector"](self.target["backbone"](x))
        return z

    def after_step(self, progress: float) -> None:
        """Moves the target towards the online network with the tau of this point of the run."""
        tau = cosine_tau(self.config.tau_base, self.config.tau_final, progress)
        update_momentum(self.target["backbone"], self.backbone, tau)
        update_momentum(self.target["projector"], self.projector, tau)

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, predictor; the target has no gradient."""
        parts = {"backbone": self.backbone, "projector": self.projector, "predictor": self.predictor}
        return [ParamGroup(name, list(part.parameters())) for name, part in parts.items()]
