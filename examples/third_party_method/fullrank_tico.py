"""TiCo: views agree, and rows keep away from directions that are much in use."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fullrank.methods import MomentumConfig, MomentumMethod, ParamGroup, Step, register, regression_loss
from fullrank.networks.heads import mlp
from fullrank.networks.processes import gather_rows


@register("tico")
class TiCo(MomentumMethod):
    """TiCo (Zhu et al., "Transformation Invariance and Covariance Contrast", 2206.10698).

    With unit rows z of the online network, z' of its moving average, and C, a running average of z^T z / n:
    the mean of 1 - <z, z'> + rho z C z^T. What keeps it from collapse: a direction costs the more, the more
    rows lie along it. Here C averages over views and processes.
    """

    paper, year, mechanism = "2206.10698", 2022, "running covariance as contrast"

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Widths of the projector, rho, and the averaging coefficient of C (the paper's beta)."""

        proj_hidden_dim: int = 4096
        proj_output_dim: int = 256
        rho: float = 20.0
        covariance_momentum: float = 0.9

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        self.projector = mlp([feature_dim, config.proj_hidden_dim, config.proj_output_dim])
        self.register_buffer("C", torch.zeros(config.proj_output_dim, config.proj_output_dim))
        self.make_target("backbone", "projector")

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the loss over views and pairs of them."""
        taps = {a: self.embed(views[a]) for a in self.sources(views)}
        z = {a: tap["projector"] for a, tap in taps.items()}
        agree = self.compare(regression_loss, z, self.encode_targets(views), views) / 2  # 1 - cosine
        rows, beta = gather_rows(normalize(torch.cat([*z.values()]), dim=1)), self.config.covariance_momentum
        C = beta * self.C + (1 - beta) * (rows.T @ rows) / len(rows)
        self.C = C.detach() if self.training else self.C
        return Step(agree + self.config.rho * (rows @ C * rows).sum(dim=1).mean(), next(iter(taps.values())))

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z [n, d] and the target's z' [n, d]."""
        h = self.backbone(x)
        return {"backbone": h, "projector": self.projector(h), "target": self.encode_target(x)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone and projector."""
        return [ParamGroup(name, list(self.get_submodule(name).parameters())) for name in self.target]
