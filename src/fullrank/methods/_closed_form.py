"""Base of DirectPred, DirectCopy, IsoLoss: predictors from a correlation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.methods._base import SMALL_BATCH_ADAM, SOLO_LARS, Step
from fullrank.methods._two_branch import (
    MomentumConfig,
    MomentumMethod,
    over_pairs,
    regression_loss,
    with_target,
)
from fullrank.networks.correlation import averaged_correlation
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision


@dataclass(frozen=True)
class ClosedFormConfig(MomentumConfig):
    """Options of methods whose predictor is a function of the correlation C.

    Attributes:
        correlation_momentum: averaging coefficient of C, in [0, 1]; 0.998 with a momentum target and 0.5
            without one in the reference, 0.3 once per step in DirectPred's own code.
        update: whether C takes in each view before that view is predicted (`view`, the reference), or all of
            them at once before any is (`step`).
        eps: what the predictor adds to every eigenvalue, at least 0.
        normalise: divide eigenvalues by the largest; else, but in DirectCopy, they are clipped at 1e6, and
            `eps` must be 0 because the reference does not add it then.
        centred: subtract the batch mean from what C takes in (off in the reference).
        distance: `cosine` or `euclidean`.
    """

    not_negative = ("eps",)
    correlation_momentum: float = 0.998
    update: Literal["view", "step"] = "view"
    centred: bool = False
    distance: Literal["cosine", "euclidean"] = "cosine"
    eps: float = 0.0
    normalise: bool = True


@dataclass(frozen=True)
class SpectralConfig(ClosedFormConfig):
    """Options of methods whose predictor is a power of the eigenvalues of C.

    Attributes:
        alpha: power of the eigenvalues: 0.5 on DirectPred's predictor, 1 on DirectCopy's, 2 the square.
    """

    positive = ("alpha",)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.normalise or self.eps == 0, "eps", "must be 0 where normalise is off")


class ClosedFormMethod(MomentumMethod):
    """Projector, correlation C, a subclass's closed-form predictor, momentum target.

    C is a persistent buffer, updated in training mode only (the reference updates it in validation, too) and
    averaged over processes.
    """

    compares_batch = False
    small_image_defaults = SOLO_LARS | {"lr": 1.0}
    large_image_defaults = {"lr": 0.45, "weight_decay": 1e-5, "lars_eta": 0.001, "lars_clip": False}
    small_batch_defaults = SMALL_BATCH_ADAM
    config: ClosedFormConfig
    C: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: ClosedFormConfig) -> None:
        super().__init__(backbone, feature_dim, config)
        d = config.proj_output_dim
        self.projector = mlp([feature_dim, config.proj_hidden_dim, d], hidden_bias=True)
        self.register_buffer("C", torch.zeros(d, d))
        self.make_target("backbone", "projector")

    @abstractmethod
    def predictor_matrix(self) -> Tensor:
        """Wp [d, d] from the present C, without gradient."""

    def distance(self, online: Tensor, target: Tensor) -> Tensor:
        """Distance of [z, p], stacked [2, n, d], to targets [n, d]; p alone, as in BYOL."""
        return regression_loss(online[1], target, self.config.distance)

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """The reference's: small images have up to 96 pixels, for the views up to 64."""
        options = super().defaults(image_size if image_size > 96 else 64)
        return {**options, "views": super().defaults(image_size)["views"]}

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the loss, on the scale of a sum over two directions."""
        online = {a: self.encode_source(views[a]) for a in self.sources(views)}
        one_by_one = self.config.update == "view"
        for together in [[taps] for taps in online.values()] if one_by_one else [[*online.values()]]:
            self._take_in(torch.cat([taps["projector"] for taps in together]))
            for taps in together:
                self._predict(taps)
        targets = self.encode_targets(views)
        pairs = {a: torch.stack([taps["projector"], taps["predictor"]]) for a, taps in online.items()}
        loss = 2.0 * over_pairs(self.distance, pairs, targets, self.view_pairs(views))
        return Step(loss, with_target(online, targets))

    def _take_in(self, z: Tensor) -> None:
        if self.training:
            tau, centred = self.config.correlation_momentum, self.config.centred
            self.C = averaged_correlation(self.C, z.detach(), tau, centred)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z, p and z' [n, d]; C stays as it is."""
        taps = self.encode_source(x)
        self._predict(taps)
        return {**taps, "target": self.encode_target(x)}

    def _predict(self, taps: dict[str, Tensor]) -> None:
        taps["predictor"] = _product(taps["projector"], self.predictor_matrix())


_product = in_full_precision(torch.matmul)
