"""Barlow Twins: the cross-correlation of two views should be the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.methods._base import MethodConfig, Step, register
from fullrank.methods._one_branch import OneBranchMethod, pairs
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import gather_rows

__all__ = ["BarlowTwins", "barlow_loss", "barlow_terms"]

Standardise = Literal["batchnorm", "unbiased"]


@in_full_precision
def barlow_terms(z: Sequence[Tensor], standardise: Standardise = "batchnorm") -> dict[str, Tensor]:
    """The two sums of equation 1, each a mean over unordered pairs of views.

    With C = standardised(z_a)^T standardised(z_b) / n: `invariance` is sum_i (C_ii - 1)^2, `redundancy` is
    sum_{i != j} C_ij^2. Under torch.distributed the rows of all processes count.

    Args:
        z: per view, projections [n, d].
        standardise: `batchnorm` divides by the root of the biased variance + 1e-5, `unbiased` by the unbiased
            standard deviation + 1e-5 (stable-pretraining), which keeps C_ii below (n - 1) / n.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> {name: round(value.item(), 4) for name, value in barlow_terms([z, z]).items()}
        {'invariance': 0.0, 'redundancy': 0.0}
    """
    unit = [_standardised(gather_rows(view), standardise) for view in z]
    invariance, redundancy = [], []
    for a, b in pairs(unit):
        c = a.T @ b / len(a)
        on_diagonal = c.diagonal()
        invariance.append((on_diagonal - 1).square().sum())
        redundancy.append(c.square().sum() - on_diagonal.square().sum())
    return {"invariance": torch.stack(invariance).mean(), "redundancy": torch.stack(redundancy).mean()}


def barlow_loss(
    z: Sequence[Tensor], lamb: float = 0.0051, scale: float = 0.1, standardise: Standardise = "batchnorm"
) -> Tensor:
    """scale * (invariance + lamb * redundancy), at least 0; see `barlow_terms`.

    Example:
        >>> round(barlow_loss([torch.ones(4, 3)] * 2, scale=1.0).item(), 4)  # constant: C is zero
        3.0
    """
    return _weighed(barlow_terms(z, standardise), lamb, scale)


def _weighed(terms: Mapping[str, Tensor], lamb: float, scale: float) -> Tensor:
    return scale * (terms["invariance"] + lamb * terms["redundancy"])


def _standardised(z: Tensor, how: Standardise) -> Tensor:
    centred = z - z.mean(dim=0)
    if how == "unbiased":
        return centred / (z.std(dim=0) + 1e-5)
    return centred / (centred.square().mean(dim=0) + 1e-5).sqrt()


@register("barlow_twins")
class BarlowTwins(OneBranchMethod):
    """Barlow Twins (Zbontar et al., "Self-Supervised Learning via Redundancy Reduction", 2103.03230).

    Each view's projections are standardised over the batch; the cross-correlation matrix of two views
    (equation 2) is drawn to the identity (equation 1). No negatives, no predictor, no stop-gradient.

    What keeps it from collapse: a constant channel has no correlation with itself once standardised, which
    costs the diagonal term its full 1 per channel; channels that repeat each other cost the off-diagonal
    term, so the projections keep full rank.

    Where reference and paper differ: the paper's projector is 8192 wide and its loss not scaled; solo-learn's
    experiments use 2048 and a scale of 0.1, and so do we.

    Taps: backbone, projector.
    """

    paper, year = "2103.03230", 2021
    mechanism = "cross-correlation drawn to the identity"

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Knobs of Barlow Twins; the defaults are solo-learn's for CIFAR.

        Attributes:
            proj_hidden_dim: width of the projector's two hidden layers.
            proj_output_dim: d, width of the projection.
            lamb: weight of the redundancy term against the invariance term, at least 0.
            scale: of the whole loss, positive.
            standardise: `batchnorm` (biased variance) or `unbiased`; see `barlow_terms`.
        """

        proj_hidden_dim: int = 2048
        proj_output_dim: int = 2048
        lamb: float = 0.0051
        scale: float = 0.1
        standardise: Standardise = "batchnorm"

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need(self.lamb >= 0, "lamb", "must not be negative")
            self.need(self.scale > 0, "scale", "must be positive")

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden = config.proj_hidden_dim
        self.projector = mlp([feature_dim, hidden, hidden, config.proj_output_dim], hidden_bias=True)

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """solo-learn's optimiser, the same for CIFAR and ImageNet-100."""
        return {
            "optimizer": "lars",
            "lr": 0.3,
            "weight_decay": 1e-4,
            "lars_eta": 0.02,
            "lars_clip": True,
            "lars_exclude_1d": True,
            "warmup_epochs": -1.0,
            "views": "asymmetric" if image_size <= 64 else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean loss over unordered pairs."""
        taps, z = self.encode(views)
        terms = barlow_terms(z, self.config.standardise)
        return Step(_weighed(terms, self.config.lamb, self.config.scale), taps, terms)
