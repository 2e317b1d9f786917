"""Base of methods with one branch: one network for all views, with gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

from torch import Tensor, nn

from fullrank.methods._base import Method, check_views
from fullrank.methods._config import ProjectorConfig
from fullrank.networks.heads import mlp

__all__ = ["OneBranchMethod", "unordered_pairs"]


class OneBranchMethod(Method):
    """A method whose loss compares the projections of all views."""

    proj_layers: ClassVar[int] = 3
    """Linear layers in the projector."""
    proj_bn: ClassVar[bool] = True
    """Whether BN follows the projector's hidden layers."""

    def __init__(self, backbone: nn.Module, feature_dim: int, config: ProjectorConfig) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden = [config.proj_hidden_dim] * (self.proj_layers - 1)
        widths = [feature_dim, *hidden, config.proj_output_dim]
        self.projector = mlp(widths, hidden_bias=True, hidden_bn=self.proj_bn)


def unordered_pairs(z: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Every unordered pair of views, the earlier view first.

    Raises:
        UsageError: there is only one view.

    Example:
        >>> from torch import zeros
        >>> len(unordered_pairs([zeros(2, 3)] * 4))
        6
    """
    check_views(z)
    return list(combinations(z, 2))
