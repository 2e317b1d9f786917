"""SwAV: views predict each other's balanced cluster assignments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import SOLO_LARS, PerView, Step, ViewPairs, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import UNIFORM_CODES, FixedPoint
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, over_pairs
from fullrank.networks.heads import mlp
from fullrank.networks.processes import gather_rows, own_rows
from fullrank.networks.soft_targets import Prototypes, cross_entropy, prototype_scores, sinkhorn


def swav_loss(
    scores: PerView, assignments: PerView, temperature: float = 0.1, view_pairs: ViewPairs = ViewPairs()
) -> Tensor:
    """Mean cross-entropy of assignment b and prediction a over a != b (equation 2).

    Args:
        scores: cosines with the prototypes [n, K] by view.
        assignments: of the first views or of all, [n, K], rows summing to one and without gradient.
        temperature: of the prediction, softmax(scores / temperature).
        view_pairs: see `ViewPairs`.

    Example:
        >>> round(swav_loss([torch.zeros(2, 2)] * 2, [torch.eye(2)] * 2).item(), 4)  # log 2
        0.6931
    """
    return over_pairs(partial(cross_entropy, temperature=temperature), scores, assignments, view_pairs)


@register("swav")
class SwAV(TwoBranchMethod):
    """SwAV: Swapped Assignments between Views (Caron et al. 2006.09882).

    The paper is "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments". Projections of
    length one are scored against trained prototypes of length one. The scores of a full-size view become
    assignments by Sinkhorn's iteration over the global batch (equation 3), and those are what every other
    view, small crops included, predicts from its own scores (equation 2). All pairs weigh the same.

    What keeps it from collapse: every prototype gets the same share of a batch, so one prototype for all
    images never matches its target; assignments carry no gradient.

    Where reference and paper differ: directions are weight-normalised instead of renormalised after each
    step; the queue starts as zeros, which take part until it is full; there is one queue per full-size view,
    and the third such view and later ones share those of the first two.

    Taps: backbone, projector (before its length is set to one), codes (scores).
    """

    paper, year = "2006.09882", 2020
    mechanism = "balanced assignments as targets"
    # The reference's, the same for CIFAR and ImageNet-100.
    small_image_defaults = SOLO_LARS | {"lr": 0.6, "weight_decay": 1e-6, "views": "symmetric"}
    fixed_points = (
        FixedPoint(
            "uniform over codes",
            "ln K",
            lambda at: math.log(at.config.num_prototypes),
            ("uniform-assignment", "complete"),
            UNIFORM_CODES,
        ),
    )

    @dataclass(frozen=True)
    class Config(TwoBranchConfig):
        """Options of SwAV; the defaults are the reference's.

        Attributes:
            proj_output_dim: d, width of the projection; 0: 128, less for narrow backbones.
            num_prototypes: K.
            temperature: of the predictions.
            sk_epsilon: entropy of the assignments; smaller ones are harder.
            sk_iters: Sinkhorn iterations.
            sinkhorn_over: `view` balances each view's assignments by themselves (solo-learn), `views` those
                of all full-size views together (stable-pretraining).
            queue_size: recent projections of a view that help to balance its assignments; 0 is none.
            epoch_queue_starts: epochs before the queue, filled from the first step on, is used.
            freeze_prototypes_epochs: epochs in which the prototypes do not move.
            mean_encoding: as in `TwoBranchConfig`, of scores. A mean of targets would change nothing: the
                loss is linear in assignments.
        """

        positive = ("sk_epsilon", "sk_iters")
        not_negative = ("queue_size", "epoch_queue_starts", "freeze_prototypes_epochs")
        proj_output_dim: int = follow_backbone(128)
        num_prototypes: int = 3000
        temperature: float = 0.1
        sk_epsilon: float = 0.05
        sk_iters: int = 3
        sinkhorn_over: Literal["view", "views"] = "view"
        queue_size: int = 3840
        epoch_queue_starts: int = 50
        freeze_prototypes_epochs: int = 2
        mean_encoding: Literal["none", "source"] = "none"

    config: Config
    queue: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        d = config.proj_output_dim
        self.projector = mlp([feature_dim, config.proj_hidden_dim, d], hidden_bias=True)
        self.prototypes = Prototypes(d, config.num_prototypes)
        self.register_buffer("queue", torch.zeros(2, config.queue_size, d))  # newest first
        self.code_temperature = config.temperature

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean cross-entropy over pairs."""
        sources, targets = self.sources(views), self.targets(views)
        taps = {v: self.embed(views[v]) for v in sorted({*sources, *targets})}
        assignments = self.assign({b: taps[b]["codes"] for b in targets})
        if self.training:
            self._remember([taps[b]["projector"] for b in targets])
        scores = {a: taps[a]["codes"] for a in sources}
        loss = swav_loss(scores, assignments, self.config.temperature, self.view_pairs())
        return Step(loss, taps[sources[0]])

    @torch.no_grad()
    def assign(self, scores: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Scores [n, K] by view to assignments, balanced over processes and queue."""
        config = self.config
        in_use = len(self.queue[0]) if self.info.epoch >= config.epoch_queue_starts else 0
        queued = [prototype_scores(self.prototypes, queue[:in_use]) for queue in self.queue]
        of_views = enumerate(scores.values())
        rows = [torch.cat([gather_rows(own.detach()), queued[turn % 2]]) for turn, own in of_views]
        together = [torch.cat(rows)] if config.sinkhorn_over == "views" else rows
        balanced = torch.cat([sinkhorn(part, config.sk_epsilon, config.sk_iters) for part in together])
        parts = balanced.chunk(len(rows))  # as many rows each
        return {v: own_rows(q[: len(q) - in_use]) for v, q in zip(scores, parts, strict=True)}

    @torch.no_grad()
    def _remember(self, projections: Sequence[Tensor]) -> None:
        for queue, z in zip(self.queue, projections, strict=False):
            new = gather_rows(F.normalize(z.detach(), dim=1)).to(queue.dtype)
            queue.copy_(torch.cat([new, queue])[: len(queue)])

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d] and scores [n, K]."""
        taps = super().embed(x)
        unit = F.normalize(taps["projector"], dim=1)
        return {**taps, "codes": prototype_scores(self.prototypes, unit)}

    def after_backward(self) -> None:
        """Drop the gradient of frozen prototypes: no decay, no momentum, no step."""
        if self.info.epoch < self.config.freeze_prototypes_epochs:
            self.prototypes.v.grad = None
