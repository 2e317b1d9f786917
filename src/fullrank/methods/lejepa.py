"""LeJEPA: views agree, and random directions of projections look normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import Step, register
from fullrank.methods._config import ProjectorConfig, follow_backbone
from fullrank.methods._fixed_points import FixedPoint, Situation
from fullrank.methods._one_branch import OneBranchMethod
from fullrank.methods._two_branch import small_crops
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import mean_over_processes, world

Combination = Literal["convex", "sum"]


@in_full_precision
def epps_pulley(x: Tensor, t_max: float = 3.0, num_knots: int = 17) -> Tensor:
    """Epps-Pulley statistic of columns against N(0, 1), [..., n, s] to [..., s].

    n * integral of |phi_x(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt over [-t_max, t_max], with phi_x the
    empirical characteristic function, by the trapezoidal rule on `num_knots` points of [0, t_max], doubled.
    Neither mean nor scale of x is removed. About 1 for a normal sample, proportional to n for any other.
    Under torch.distributed n rows of every process form one sample.

    Example:
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> [bool(value < 2) for value in epps_pulley(x)], bool((epps_pulley(0 * x) > 300).all())
        ([True, True], True)
    """
    t = torch.linspace(0, t_max, num_knots, dtype=x.dtype, device=x.device)
    normal = (-t.square() / 2).exp()
    weights = torch.full_like(t, 2 * t_max / (num_knots - 1))
    weights[:: num_knots - 1] /= 2  # the first and the last
    angles = x.unsqueeze(-1) * t
    # every process holds as many rows, so the mean of means is the mean
    real = mean_over_processes(angles.cos().mean(dim=-3))
    imaginary = mean_over_processes(angles.sin().mean(dim=-3))
    error = (real - normal).square() + imaginary.square()
    statistic: Tensor = error @ (weights * normal) * (x.shape[-2] * world()[1])
    return statistic


@in_full_precision
def sigreg(z: Tensor, directions: Tensor, t_max: float = 3.0, num_knots: int = 17) -> Tensor:
    """SIGReg: mean Epps-Pulley statistic of z [..., n, d] along directions [d, s].

    Each view of a leading axis is tested on its own n rows.

    Example:
        >>> z = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
        >>> directions = random_directions(4, 8, seed=0)
        >>> bool(sigreg(z, directions) < 2 < sigreg(z * torch.tensor([1.0, 1, 1, 0]), directions))
        True
    """
    return epps_pulley(z @ directions.to(z), t_max, num_knots).mean()


def random_directions(dim: int, count: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Random unit columns [dim, count], decided by seed and kind of device.

    Example:
        >>> random_directions(3, 5, seed=0).norm(dim=0).allclose(torch.ones(5))
        True
    """
    generator = torch.Generator(device).manual_seed(seed)
    return F.normalize(torch.randn(dim, count, generator=generator, device=device), dim=0)


@in_full_precision
def lejepa_loss(
    z: Sequence[Tensor],
    directions: Tensor,
    lamb: float = 0.05,
    combination: Combination = "convex",
    flatten_views: bool = False,
    small: Sequence[int] = (),
    t_max: float = 3.0,
    num_knots: int = 17,
) -> dict[str, Tensor]:
    """lamb * sigreg + invariance, which `convex` weighs with 1 - lamb, `sum` with 1.

    `invariance` is the mean squared difference of all views to their mean.

    Args:
        z: per view, projections [n, d].
        directions: [d, s], of length 1.
        lamb: weight of SIGReg.
        combination: `convex` or `sum`.
        flatten_views: test the rows of all views as one sample instead of each view by itself.
        small: views that are small crops, which are compared with the mean but are no part of it.
        t_max: see `epps_pulley`, as for `num_knots`.

    Returns:
        `loss`, and the unweighted `invariance` and `sigreg`.

    Example:
        >>> lejepa_loss([torch.ones(3, 2), -torch.ones(3, 2)], torch.eye(2), lamb=0.0)["loss"].item()
        1.0
    """
    rows = torch.stack(list(z))
    centre = torch.stack([view for i, view in enumerate(z) if i not in small]).mean(dim=0)
    sample = rows.flatten(0, 1) if flatten_views else rows
    invariance, normality = (centre - rows).square().mean(), sigreg(sample, directions, t_max, num_knots)
    loss = lamb * normality + (1 - lamb if combination == "convex" else 1.0) * invariance
    return {"loss": loss, "invariance": invariance, "sigreg": normality}


def _at_zero(at: Situation) -> float:
    c, rows = at.config, at.n * (at.views if at.config.flatten_views else 1)
    return float(c.lamb * epps_pulley(torch.zeros(rows, 1), c.t_max, c.num_knots).item())


@register("lejepa")
class LeJEPA(OneBranchMethod):
    """LeJEPA (Balestriero and LeCun, 2511.08544): tested for normality.

    Projections of all views approach the mean of the full-size views' (invariance), while SIGReg tests
    them for a standard normal distribution along random directions, new ones at every step, and descends the
    test's statistic. No negatives, predictor, stop-gradient or target.

    What keeps it from collapse: a normal distribution with identity covariance has full rank; a point, a line
    or clusters fail the test along almost every direction, by a statistic that grows with the batch.

    Where reference and paper differ: the paper's code and lightly weigh convexly, lamb SIGReg + (1 - lamb)
    invariance, and test each view by itself; stable-pretraining adds lamb SIGReg to the full invariance and
    tests all views' rows as one sample. The defaults are those of the authors' minimal example with the
    paper's lamb.

    Taps: backbone, projector.
    """

    paper, year = "2511.08544", 2025
    mechanism = "random projections tested for normality"
    # The minimal example's optimiser; its own views are sometimes solarized too.
    small_image_defaults = {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 5e-2,
        "warmup_epochs": -1.0,
        "views": "symmetric",
    }
    small_batch_defaults = small_image_defaults
    fixed_points = (
        FixedPoint(
            "at zero",
            "lamb n times the statistic of a point mass",
            _at_zero,
            ("complete",),
            "Views agree and all embeddings are zero: only SIGReg is left, which grows with the batch.",
        ),
    )

    @dataclass(frozen=True)
    class Config(ProjectorConfig):
        """Options of LeJEPA.

        Attributes:
            proj_output_dim: d, width of the projection (the example's own run: 16); 0: 128, less for narrow
                backbones.
            lamb: weight of SIGReg, in [0, 1] (the example's own run: 0.02).
            num_slices: random directions per step (the library's README: 1024).
            t_max: end of the integral over frequencies, positive.
            num_knots: points of the integral on [0, t_max], at least 2.
            combination: `convex` weighs invariance with 1 - lamb, `sum` with 1.
            flatten_views: test the rows of all views as one sample instead of each view by itself.
        """

        positive = ("t_max",)
        proj_output_dim: int = follow_backbone(128)
        lamb: float = 0.05
        num_slices: int = 256
        t_max: float = 3.0
        num_knots: int = 17
        combination: Combination = "convex"
        flatten_views: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            self.require(0 <= self.lamb <= 1, "lamb", "lies in [0, 1]")
            self.require(self.num_knots >= 2, "num_knots", "must be 2 or more")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        self.batches = 0  # seen in training: the seed of their directions on every process

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the weighted sum of invariance and SIGReg."""
        taps, z = self.encode(views, "projector")
        c = self.config
        directions = random_directions(c.proj_output_dim, c.num_slices, self.batches, z[0].device)
        self.batches += self.training
        options = c.lamb, c.combination, c.flatten_views, small_crops(views), c.t_max, c.num_knots
        terms = lejepa_loss(z, directions, *options)
        return Step(terms.pop("loss"), taps, terms)

    def get_extra_state(self) -> Tensor:
        """Number of batches seen, so that a resumed run takes the next directions."""
        return torch.tensor(self.batches)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the count of `get_extra_state`."""
        self.batches = int(state)
