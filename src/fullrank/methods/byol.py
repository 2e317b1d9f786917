"""BYOL: an online network predicts a slowly moving average of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs, regression_loss
from fullrank.networks.heads import mlp

__all__ = ["BYOL", "byol_loss"]


def byol_loss(p: Sequence[Tensor], z: Sequence[Tensor], distance: str = "cosine") -> Tensor:
    """Sum of `regression_loss` over ordered pairs of views a != b, in [0, 8] for two views and the cosine.

    With more than two views each view's mean over its partners is taken, times two, so that the scale, and
    with it the learning rate, stays that of two views.

    Args:
        p: per view, predictions [n, d].
        z: per view, target projections [n, d].
        distance: `cosine` or `euclidean`.

    Example:
        >>> from torch import eye
        >>> byol_loss([eye(2), -eye(2)], [eye(2), -eye(2)]).item()
        8.0
    """
    compare = partial(regression_loss, distance=distance)
    return 2.0 * over_pairs(compare, dict(enumerate(p)), dict(enumerate(z)))


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

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Knobs of BYOL; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer.
            proj_output_dim: d, width of the projection.
            pred_hidden_dim: width of the predictor's hidden layer.
            predictor: `mlp`, or `linear` (one bias-free matrix, as DirectPred's theory has it).
            bias: whether the linear layers of the heads carry biases (Li et al. 2209.15007: no).
            distance: `cosine` or `euclidean`.
            tau_base: averaging coefficient at the start, in [0, 1]; 0 with `tau_final` 0 is no average.
            tau_final: averaging coefficient at the end, in [0, 1].
            target_update: `after-step`, or `before-target` as in Li et al.; see `MomentumConfig`.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 4096
        proj_output_dim: int = 256
        pred_hidden_dim: int = 4096
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
            "warmup_epochs": -1.0,
            "views": "asymmetric" if small else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the summed loss; online views pass before target views."""
        online = {a: self._online(views[a]) for a in self.sources(views)}
        z = self.encode_targets(views)
        compare = partial(regression_loss, distance=self.config.distance)
        loss = 2.0 * self.compare(compare, {a: tap["predictor"] for a, tap in online.items()}, z, views)
        first = next(iter(online))
        return Step(loss, {**online[first], "target": z.get(first, next(iter(z.values())))})

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d], p [n, d] and the target's z' [n, d]."""
        return {**self._online(x), "target": self.encode_target(x)}

    def _online(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        z = self.projector(h)
        return {"backbone": h, "projector": z, "predictor": self.predictor(z)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, predictor; the target has no gradient."""
        return self.groups("backbone", "projector", "predictor")
