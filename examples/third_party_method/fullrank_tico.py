"""TiCo: views agree, and rows keep away from directions that are much in use."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fullrank.methods import MomentumConfig, MomentumMethod, Step, mlp, over_pairs, register, regression_loss
from fullrank.networks.processes import gather_rows


@register("tico")
class TiCo(MomentumMethod):
    """TiCo (Zhu et al., 2206.10698): transformation invariance and covariance contrast.

    With unit rows z of the online network, z' of its moving average, and C, a running average of z^T z / n:
    the mean of 1 - <z, z'> + rho z C z^T. What keeps it from collapse: a direction costs the more, the more
    rows lie along it. Here C averages over views and processes.
    """

    paper, year, mechanism = "2206.10698", 2022, "running covariance as contrast"

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Options of TiCo.

        Attributes:
            rho: weight of the covariance term.
            covariance_momentum: averaging coefficient of C, in [0, 1] (the paper's beta).
        """

        rho: float = 20.0
        covariance_momentum: float = 0.9

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        self.projector = mlp([feature_dim, config.proj_hidden_dim, config.proj_output_dim])
        self.register_buffer("C", torch.zeros(config.proj_output_dim, config.proj_output_dim))
        self.make_target("backbone", "projector")

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the loss over views and pairs of them."""
        taps, z, targets = self.encode_branches(views, "projector")
        agree = over_pairs(regression_loss, z, targets, self.view_pairs(views)) / 2  # 1 - cosine
        rows, beta = gather_rows(normalize(torch.cat([*z.values()]), dim=1)), self.config.covariance_momentum
        C = beta * self.C + (1 - beta) * (rows.T @ rows) / len(rows)
        self.C = C.detach() if self.training else self.C
        return Step(agree + self.config.rho * (rows @ C * rows).sum(dim=1).mean(), taps)
