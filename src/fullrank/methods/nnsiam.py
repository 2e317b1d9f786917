"""NNSiam: SimSiam whose targets are nearest neighbours in a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import SIMSIAM_SGD, SMALL_BATCH_SGD, Step, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, negative_cosine, over_pairs
from fullrank.networks.heads import mlp
from fullrank.networks.momentum import Queue
from fullrank.networks.precision import in_full_precision


@torch.no_grad()
@in_full_precision
def nearest(z: Tensor, queue: Tensor, metric: str = "euclidean") -> Tensor:
    """Nearest row in the queue [m, d] of each row of z [n, d], without gradient.

    The metric is `euclidean`, or the `cosine` of unit rows.

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
    """NNSiam (Li, Efros, Pathak, 2209.15007): SimSiam with neighbours.

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
    # SimSiam's, as the reference has it; no blur on small images.
    small_image_defaults = SIMSIAM_SGD | {"schedule": "epoch-cosine"}
    large_image_defaults = {"weight_decay": 1e-4}
    least_loss = -1.0
    small_batch_defaults = SMALL_BATCH_SGD | {"lr": 0.2}
    fixed_points = (
        FixedPoint("agreeing", "-1", lambda at: -1.0, ("complete", "dimensional"), CONSTANT),
        FixedPoint("unrelated", "0", lambda at: 0.0, (), UNRELATED),
    )

    @dataclass(frozen=True)
    class Config(TwoBranchConfig):
        """Options of NNSiam; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0 takes the backbone's feature width.
            pred_hidden_dim: width of the predictor's bottleneck; 0: 512, less for narrow backbones.
            queue_size: entries of the queue.
            metric: `euclidean` or `cosine`, of the neighbour search.
            fixed_predictor_lr: whether the predictor keeps the base rate for the whole run.
        """

        positive = ("queue_size",)
        proj_hidden_dim: int = follow_backbone()
        pred_hidden_dim: int = follow_backbone(512)
        queue_size: int = 25600
        metric: Literal["euclidean", "cosine"] = "euclidean"
        fixed_predictor_lr: bool = True

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d, hidden = config.proj_output_dim, config.proj_hidden_dim
        self.projector = mlp([feature_dim, hidden, hidden, d], output_bn=True)
        self.predictor = mlp([d, config.pred_hidden_dim, d])
        self.fixed_lr_parts = ("predictor",) if config.fixed_predictor_lr else ()
        self.queue = Queue(config.queue_size, d, random=True)

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the mean negative cosine to the neighbours."""
        taps, p, z = self.encode_siamese(views, "predictor", "projector")
        rows, metric = self.queue.rows, self.config.metric
        neighbours = {b: nearest(target.detach(), rows, metric) for b, target in z.items()}
        loss = over_pairs(negative_cosine, p, neighbours, self.view_pairs(views))
        if self.training:
            self.queue.push(taps["projector"])
        return Step(loss, taps)
