"""NNSiam: SimSiam whose targets are the nearest neighbours of the projections in a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, negative_cosine
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision
from fullrank.networks.queue import Queue

__all__ = ["NNSiam", "nearest"]


@torch.no_grad()
@in_full_precision
def nearest(z: Tensor, queue: Tensor, metric: str = "euclidean") -> Tensor:
    """For each row of z [n, d] the row of the queue [m, d] that is nearest to it; no gradient.

    Args:
        z: projections.
        queue: candidates.
        metric: `euclidean`, or `cosine` of unit rows.

    Example:
        >>> nearest(torch.tensor([[1.0, 0.1]]), torch.eye(2)).tolist()
        [[1.0, 0.0]]
    """
    rows = queue.to(z.dtype)
    if metric == "cosine":
        return queue[(F.normalize(z, dim=1) @ F.normalize(rows, dim=1).T).argmax(dim=1)]
    # |z|^2 is the same for all candidates
    return queue[(rows.square().sum(dim=1) - 2.0 * z @ rows.T).argmin(dim=1)]


@register("nnsiam")
class NNSiam(TwoBranchMethod):
    """NNSiam (Li, Efros, Pathak, "Understanding Collapse in Non-Contrastive Siamese Representation Learning",
    2209.15007).

    SimSiam's networks and loss, but the target of each view is the entry of a first-in-first-out queue that
    is nearest to its projection, as NNCLR (2104.14548) takes its positives; the queue is filled with the
    first view's projections after each step.

    What keeps it from collapse: stop-gradient and predictor, as in SimSiam; neighbours make the task harder
    than two views of one image do.

    Where reference and paper differ: the reference compares by squared Euclidean distance, and its queue
    starts with random unit rows while what enters it is not normalised; both are kept (`metric` `cosine` is
    NNCLR's).

    Taps: backbone, projector, predictor.
    """

    paper, year = "2209.15007", 2022
    mechanism = "stop-gradient, predictor and neighbours"

    @dataclass(frozen=True)
    class Config(TwoBranchConfig):
        """Knobs of NNSiam; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0 takes the backbone's feature width.
            proj_output_dim: d, width of the projection.
            pred_hidden_dim: width of the predictor's bottleneck.
            queue_size: entries of the queue.
            metric: `euclidean` or `cosine`, of the neighbour search.
            fixed_predictor_lr: whether the predictor keeps the base rate for the whole run.
            mean_encoding: as in `TwoBranchConfig`.
        """

        proj_hidden_dim: int = 0
        proj_output_dim: int = 2048
        pred_hidden_dim: int = 512
        queue_size: int = 25600
        metric: Literal["euclidean", "cosine"] = "euclidean"
        fixed_predictor_lr: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need(self.queue_size > 0, "queue_size", "must be positive")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, config.proj_hidden_dim or feature_dim
        self.projector = mlp([feature_dim, hidden, hidden, d], output_bn=True)
        self.predictor = mlp([d, config.pred_hidden_dim, d])
        self.queue = Queue(config.queue_size, d, random=True)

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """SimSiam's, as the reference has it; no blur on small images."""
        small = image_size <= 64
        return {
            "optimizer": "sgd",
            "lr": 0.05,
            "weight_decay": 5e-4 if small else 1e-4,
            "schedule": "epoch-cosine",
            "views": "simsiam-cifar" if small else "simsiam",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean negative cosine of predictions and neighbours."""
        sources, targets = self.sources(views), self.targets(views)
        taps = {v: self.embed(views[v]) for v in sorted({*sources, *targets})}
        p = {a: taps[a]["predictor"] for a in sources}
        z = {b: nearest(taps[b]["projector"].detach(), self.queue.rows, self.config.metric) for b in targets}
        loss = self.compare(negative_cosine, p, z, views)
        if self.training:
            self.queue.push(taps[sources[0]]["projector"])
        return Step(loss, taps[sources[0]])

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d] and p [n, d]."""
        h = self.backbone(x)
        z = self.projector(h)
        return {"backbone": h, "projector": z, "predictor": self.predictor(z)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, and the predictor, at a fixed rate by default."""
        fixed = self.config.fixed_predictor_lr
        return [
            ParamGroup("backbone", list(self.backbone.parameters())),
            ParamGroup("projector", list(self.projector.parameters())),
            ParamGroup("predictor", list(self.predictor.parameters()), fixed_lr=fixed),
        ]
