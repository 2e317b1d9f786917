"""Barlow Twins: the cross-correlation of two views should be the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fullrank.methods._base import SOLO_LARS, Step, register
from fullrank.methods._config import ProjectorConfig
from fullrank.methods._fixed_points import IDENTICAL, FixedPoint, Situation
from fullrank.methods._one_branch import OneBranchMethod, unordered_pairs
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import gather_rows

Standardise = Literal["batchnorm", "unbiased"]


@in_full_precision
def barlow_loss(
    z: Sequence[Tensor], lamb: float = 0.0051, scale: float = 0.1, standardise: Standardise = "batchnorm"
) -> dict[str, Tensor]:
    """scale * (invariance + lamb * redundancy), equation 1, over pairs of views.

    With C = standardised(z_a)^T standardised(z_b) / n: `invariance` is sum_i (C_ii - 1)^2, `redundancy` is
    sum_{i != j} C_ij^2. Under torch.distributed the rows of all processes count.

    Args:
        z: per view, projections [n, d].
        lamb: weight of the redundancy.
        scale: of the loss.
        standardise: `batchnorm` divides by the root of the biased variance + 1e-5, `unbiased` by the unbiased
            standard deviation + 1e-5 (stable-pretraining), which keeps C_ii below (n - 1) / n.

    Returns:
        `loss`, at least 0, `invariance` and `redundancy`.

    Example:
        >>> {name: round(value.item(), 4) for name, value in barlow_loss([torch.ones(4, 3)] * 2).items()}
        {'loss': 0.3, 'invariance': 3.0, 'redundancy': 0.0}
    """
    unit = [_standardised(gather_rows(view), standardise) for view in z]
    invariances, redundancies = [], []
    for a, b in unordered_pairs(unit):
        c = a.T @ b / len(a)
        on_diagonal = c.diagonal()
        invariances.append((on_diagonal - 1).square().sum())
        redundancies.append(c.square().sum() - on_diagonal.square().sum())
    invariance, redundancy = torch.stack(invariances).mean(), torch.stack(redundancies).mean()
    return {
        "loss": scale * (invariance + lamb * redundancy),
        "invariance": invariance,
        "redundancy": redundancy,
    }


def _standardised(z: Tensor, how: Standardise) -> Tensor:
    centred = z - z.mean(dim=0)
    if how == "unbiased":
        return centred / (z.std(dim=0) + 1e-5)
    return centred / (centred.square().mean(dim=0) + 1e-5).sqrt()


def _repeated(at: Situation) -> float:
    d = at.config.proj_output_dim
    return float(at.config.scale * at.config.lamb * d * (d - 1))


@register("barlow_twins")
class BarlowTwins(OneBranchMethod):
    """Barlow Twins (Zbontar et al., 2103.03230): redundancy reduction.

    Each view's projections are standardised over the batch; the cross-correlation matrix of two views
    (equation 2) approaches the identity (equation 1). No negatives, no predictor, no stop-gradient.

    What keeps it from collapse: a constant channel has no correlation with itself once standardised, which
    costs the diagonal term its full 1 per channel; channels that repeat each other cost the off-diagonal
    term, so the projections keep full rank.

    Where reference and paper differ: the paper's projector is 8192 wide and its loss not scaled; solo-learn's
    experiments use 2048 and a scale of 0.1, and so do we.

    Taps: backbone, projector.
    """

    paper, year = "2103.03230", 2021
    mechanism = "cross-correlation drawn to the identity"
    # solo-learn's optimiser, the same for CIFAR and ImageNet-100.
    small_image_defaults = SOLO_LARS
    fixed_points = (
        FixedPoint(
            "constant",
            "scale d",
            lambda at: float(at.config.scale * at.config.proj_output_dim),
            ("complete",),
            "No channel correlates with itself in the other view: channels are constant.",
        ),
        FixedPoint(
            "one channel repeated",
            "scale lamb d (d - 1)",
            _repeated,
            ("dimensional",),
            "Every channel agrees across views and says the same as all others.",
        ),
        FixedPoint("decorrelated", "0", lambda at: 0.0, ("cluster",), f"{IDENTICAL} No channel is idle."),
    )

    @dataclass(frozen=True)
    class Config(ProjectorConfig):
        """Options of Barlow Twins; the defaults are solo-learn's for CIFAR.

        Attributes:
            lamb: weight of the redundancy term against the invariance term, at least 0.
            scale: of the whole loss, positive.
            standardise: `batchnorm` (biased variance) or `unbiased`; see `barlow_loss`.
        """

        positive = ("scale",)
        not_negative = ("lamb",)
        lamb: float = 0.0051
        scale: float = 0.1
        standardise: Standardise = "batchnorm"

    config: Config

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean loss over unordered pairs."""
        taps, z = self.encode(views, "projector")
        terms = barlow_loss(z, self.config.lamb, self.config.scale, self.config.standardise)
        return Step(terms.pop("loss"), taps, terms)
