"""MoCo v3: a predictor meets the keys of a slowly moving average, among the keys of all other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._contrast import info_nce
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs
from fullrank.networks.heads import mlp

__all__ = ["MoCoV3", "moco_distance", "mocov3_loss"]


def moco_distance(q: Tensor, k: Tensor, temperature: float = 0.2) -> Tensor:
    """One direction of MoCo v3: 2 T InfoNCE(q, k), with the keys detached; algorithm 1 of 2104.02057.

    The factor 2 T keeps the size of the gradient from growing as the temperature T falls.

    Args:
        q: queries, the predictor's output [n, d].
        k: keys, the target's projections [n, d], row-aligned.
        temperature: T, positive.

    Example:
        >>> from torch import eye
        >>> round(moco_distance(eye(2), eye(2), temperature=1.0).item(), 4)  # 2 log(1 + 1/e)
        0.6265
    """
    return 2.0 * temperature * info_nce(q, k.detach(), temperature)


def mocov3_loss(q: Sequence[Tensor], k: Sequence[Tensor], temperature: float = 0.2) -> Tensor:
    """Sum of `moco_distance` over two directions; twice the mean over ordered pairs of views.

    Args:
        q: per view, queries [n, d].
        k: per view, keys [n, d].
        temperature: positive.

    Example:
        >>> from torch import eye
        >>> round(mocov3_loss([eye(2)] * 2, [eye(2)] * 2, temperature=1.0).item(), 4)
        1.253
    """
    compare = partial(moco_distance, temperature=temperature)
    return 2.0 * over_pairs(compare, dict(enumerate(q)), dict(enumerate(k)))


@register("mocov3")
class MoCoV3(MomentumMethod):
    """MoCo v3 (Chen et al., "An Empirical Study of Training Self-Supervised ViTs", 2104.02057).

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

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Knobs of MoCo v3; the defaults are solo-learn's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers.
            proj_output_dim: d, width of the projection.
            proj_layers: linear layers in the projector (2; with ViTs 3).
            pred_hidden_dim: width of the predictor's hidden layer.
            pred_output_bn: whether the predictor ends in an affine-free BN, as with ViTs.
            temperature: that cosines are divided by, positive.
            tau_base: averaging coefficient at the start, in [0, 1].
            tau_final: averaging coefficient at the end, in [0, 1].
            target_update: `after-step`, or `before-target` as the authors; see `MomentumConfig`.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 4096
        proj_output_dim: int = 256
        proj_layers: int = 2
        pred_hidden_dim: int = 4096
        pred_output_bn: bool = False
        temperature: float = 0.2

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need(self.proj_layers > 0, "proj_layers", "must be positive")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, [config.proj_hidden_dim] * (config.proj_layers - 1)
        self.projector = mlp([feature_dim, *hidden, d], output_bias=False, output_bn=True)
        widths = [d, config.pred_hidden_dim, d]
        self.predictor = mlp(widths, output_bias=False, output_bn=config.pred_output_bn)
        self.make_target("backbone", "projector")

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """solo-learn's optimiser, the same for CIFAR and ImageNet-100."""
        return {
            "optimizer": "lars",
            "lr": 0.3,
            "weight_decay": 1e-6,
            "lars_eta": 0.02,
            "lars_clip": True,
            "lars_exclude_1d": True,
            "warmup_epochs": -1.0,
            "views": "asymmetric" if image_size <= 64 else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the summed loss; online views pass before target views."""
        online = {a: self._online(views[a]) for a in self.sources(views)}
        k = self.encode_targets(views)
        compare = partial(moco_distance, temperature=self.config.temperature)
        loss = 2.0 * self.compare(compare, {a: tap["predictor"] for a, tap in online.items()}, k, views)
        first = next(iter(online))
        return Step(loss, {**online[first], "target": k.get(first, next(iter(k.values())))})

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d], q [n, d] and the target's k [n, d]."""
        return {**self._online(x), "target": self.encode_target(x)}

    def _online(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        z = self.projector(h)
        return {"backbone": h, "projector": z, "predictor": self.predictor(z)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, predictor; the target has no gradient."""
        return self.groups("backbone", "projector", "predictor")
