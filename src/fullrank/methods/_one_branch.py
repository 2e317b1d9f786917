"""What methods with one branch share: every view passes the same backbone and projector, all with
gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor, nn

from fullrank.methods._base import Method, ParamGroup, check_views

__all__ = ["OneBranchMethod", "pairs"]


class OneBranchMethod(Method):
    """A method whose loss is a function of the projections of all views; taps: backbone, projector."""

    projector: nn.Module

    def encode(self, views: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Views, each [n, 3, S, S], to the first one's taps and the projections [n, d] of all of them."""
        check_views(views)
        taps = [self.embed(view) for view in views]
        return taps[0], [tap["projector"] for tap in taps]

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F] and z [n, d]."""
        h = self.backbone(x)
        return {"backbone": h, "projector": self.projector(h)}

    def param_groups(self) -> list[ParamGroup]:
        """Backbone and projector."""
        return self.groups("backbone", "projector")


def pairs(z: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Every unordered pair of views, the earlier view first.

    Raises:
        UsageError: there is only one view.

    Example:
        >>> from torch import zeros
        >>> len(pairs([zeros(2, 3)] * 4))
        6
    """
    check_views(z)
    return list(combinations(z, 2))
