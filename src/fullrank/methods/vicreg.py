"""VICReg: invariance, a floor under every channel's variance, no covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.methods._base import SMALL_BATCH_ADAM, SOLO_LARS, Step, register
from fullrank.methods._config import ProjectorConfig
from fullrank.methods._fixed_points import IDENTICAL, FixedPoint, Situation
from fullrank.methods._one_branch import OneBranchMethod, unordered_pairs
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import gather_rows

OverViews = Literal["sum", "mean"]


@in_full_precision
def variance(z: Tensor) -> Tensor:
    """Mean over channels of max(0, 1 - sqrt(var + 1e-4)) of z [n, d]; eqs. 1, 2.

    In [0, 0.99]; 0 where every channel's standard deviation is 1 or more. The variance is unbiased.

    Example:
        >>> round(variance(torch.ones(3, 2)).item(), 2)
        0.99
    """
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


@in_full_precision
def covariance(z: Tensor) -> Tensor:
    """Squared off-diagonal covariances of z [n, d], summed, over d; eqs. 3, 4.

    Example:
        >>> covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).item()  # off the diagonal: 2, twice
        4.0
    """
    centred = z - z.mean(dim=0)
    cov = centred.T @ centred / (len(z) - 1)
    return (cov.square().sum() - cov.diagonal().square().sum()) / z.shape[1]


@in_full_precision
def vicreg_loss(
    z: Sequence[Tensor],
    sim_weight: float = 25.0,
    var_weight: float = 25.0,
    cov_weight: float = 1.0,
    variance_over_views: OverViews = "sum",
) -> dict[str, Tensor]:
    """The weighted sum of three terms, equation 6, on the scale of two views.

    `invariance` is a mean over unordered pairs of views. `covariance` is the sum over two views, or twice the
    mean over any number; so is `variance`, unless its views are averaged. Under torch.distributed the rows of
    all processes count.

    Args:
        z: per view, projections [n, d].
        sim_weight: of the invariance.
        var_weight: of the variance.
        cov_weight: of the covariance.
        variance_over_views: `sum` (the paper and solo-learn) or `mean` (the authors' code, lightly).

    Returns:
        `loss`, at least 0, and the unweighted `invariance`, `variance` and `covariance`.

    Example:
        >>> {name: round(value.item(), 2) for name, value in vicreg_loss([torch.ones(4, 3)] * 2).items()}
        {'loss': 49.5, 'invariance': 0.0, 'variance': 1.98, 'covariance': 0.0}
    """
    rows = [gather_rows(view) for view in z]
    spread = torch.stack([variance(view) for view in rows]).mean()
    sim = torch.stack([F.mse_loss(a, b) for a, b in unordered_pairs(rows)]).mean()
    var = 2 * spread if variance_over_views == "sum" else spread
    cov = 2 * torch.stack([covariance(view) for view in rows]).mean()
    loss = sim_weight * sim + var_weight * var + cov_weight * cov
    return {"loss": loss, "invariance": sim, "variance": var, "covariance": cov}


def _views(at: Situation) -> float:
    return 1.0 if at.config.variance_over_views == "mean" else 2.0


@register("vicreg")
class VICReg(OneBranchMethod):
    """VICReg (Bardes et al., 2105.04906): three regularisers.

    Views attract each other (equation 5) while each view by itself must keep a standard deviation of 1 per
    channel (equations 1, 2) and channels without covariance (equations 3, 4); equation 6 weighs the three.

    What keeps it from collapse: the variance hinge forbids constant channels, the covariance term channels
    that repeat each other. Both act on the projections only, with gradient in both branches.

    Where reference and paper differ: the paper sums the variance term over views, as solo-learn does, the
    authors' code averages it; the paper's invariance sums over channels, every code averages over them.

    Taps: backbone, projector.
    """

    paper, year = "2105.04906", 2021
    mechanism = "variance floor and decorrelation"
    # solo-learn's optimiser; its own views crop from 20 % of the area and solarize both.
    small_image_defaults = SOLO_LARS
    small_batch_defaults = SMALL_BATCH_ADAM
    fixed_points = (
        FixedPoint(
            "constant",
            "1.98 var_weight",
            lambda at: 0.99 * _views(at) * at.config.var_weight,
            ("complete",),
            "Views agree and no channel varies: only the variance term is left, 1 - sqrt(1e-4) a view.",
        ),
        FixedPoint(
            "one channel repeated",
            "2 (d - 1) cov_weight",
            lambda at: 2.0 * (at.config.proj_output_dim - 1) * at.config.cov_weight,
            ("dimensional",),
            "Every channel varies enough and says the same as all others.",
        ),
        FixedPoint("decorrelated", "0", lambda at: 0.0, ("cluster",), f"{IDENTICAL} No channel is idle."),
    )

    @dataclass(frozen=True)
    class Config(ProjectorConfig):
        """Options of VICReg; the defaults are solo-learn's for CIFAR.

        Attributes:
            sim_weight: of the invariance term, at least 0.
            var_weight: of the variance term, at least 0; without it the projections shrink to a point.
            cov_weight: of the covariance term, at least 0; without it channels repeat each other.
            variance_over_views: `sum` or `mean`; see `vicreg_loss`.
        """

        not_negative = ("sim_weight", "var_weight", "cov_weight")
        sim_weight: float = 25.0
        var_weight: float = 25.0
        cov_weight: float = 1.0
        variance_over_views: OverViews = "sum"

    config: Config

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the weighted sum of the three terms."""
        taps, z = self.encode(views, "projector")
        c = self.config
        terms = vicreg_loss(z, c.sim_weight, c.var_weight, c.cov_weight, c.variance_over_views)
        return Step(terms.pop("loss"), taps, terms)
