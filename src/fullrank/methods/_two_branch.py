"""What methods with two branches share: distances, the pairing of views, and momentum targets.

One branch, the source, has gradient; the other, the target, gives it what to match. In the symmetric methods
every view takes both roles, one after the other; the asymmetric designs of Wang et al. (2204.00613) give
views one role only (`Method.roles`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods._base import Method, MethodConfig, check_views
from fullrank.networks.momentum import cosine_tau, momentum_copy, update_momentum
from fullrank.networks.precision import in_full_precision

__all__ = [
    "Distance",
    "MeanEncoding",
    "MomentumConfig",
    "MomentumMethod",
    "TwoBranchConfig",
    "TwoBranchMethod",
    "negative_cosine",
    "over_pairs",
    "regression_loss",
]

Distance = Callable[[Tensor, Tensor], Tensor]
MeanEncoding = Literal["none", "source", "target", "both"]


@in_full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -mean_i <p_i, z_i> / (|p_i| |z_i|), in [-1, 1]; SimSiam (2011.10566), equation 1.

    Args:
        p: predictions [n, d].
        z: targets [n, d]; detach them for the stop-gradient.

    Example:
        >>> z = torch.eye(2)
        >>> negative_cosine(z, z).item()
        -1.0
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


@in_full_precision
def regression_loss(p: Tensor, z: Tensor, distance: str = "cosine") -> Tensor:
    """One direction of BYOL (2006.07733), equation 2, averaged over rows.

    `cosine`: mean_i (2 - 2 cos(p_i, z_i)), in [0, 4], which equals |p/|p| - z/|z||^2.
    `euclidean`: mean_i |p_i - z_i|^2, summed over dimensions (Halvagal et al. 2212.04858).

    Args:
        p: predictions [n, d].
        z: targets [n, d], detached here.
        distance: `cosine` or `euclidean`.

    Example:
        >>> regression_loss(torch.eye(2), torch.eye(2)).item()
        0.0
    """
    z = z.detach()
    if distance == "cosine":
        return 2.0 - 2.0 * F.cosine_similarity(p, z, dim=1).mean()
    return (p - z).square().sum(dim=1).mean()


def over_pairs(
    distance: Distance,
    p: Mapping[int, Tensor],
    z: Mapping[int, Tensor],
    small: Sequence[int] = (),
    mean_encoding: MeanEncoding = "none",
) -> Tensor:
    """The mean distance over pairs of a source view a and a target view b != a.

    Pairs with a small crop form a mean of their own, which is added (Wang et al. 2204.00613, section 4.1).
    With a mean encoding (section 4.5) a branch's views are averaged first: each source meets the mean of the
    targets of the other views, or the mean of the sources meets each target, or mean meets mean.

    Args:
        distance: of a source [n, d] to a target [n, d].
        p: view to source encoding.
        z: view to target encoding, detached where it must be.
        small: views that are small crops.
        mean_encoding: the branch whose encodings are averaged.

    Raises:
        UsageError: no view can be paired with another.

    Example:
        >>> a, b = torch.eye(2), -torch.eye(2)
        >>> over_pairs(negative_cosine, {0: a, 1: b}, {0: a, 1: b}).item()
        1.0
    """

    def mean_but(own: int, encodings: Mapping[int, Tensor]) -> Tensor:
        return torch.stack([e for view, e in encodings.items() if view != own]).mean(dim=0)

    pairs = [(a, b) for a in p for b in z if a != b]
    if not pairs:
        check_views({*p, *z})
        raise UsageError("no source view meets a target view: give one of them the other role")
    met: list[tuple[int, int, Tensor, Tensor]]
    if mean_encoding == "target":
        met = [(a, a, p[a], mean_but(a, z)) for a in dict.fromkeys(a for a, _ in pairs)]
    elif mean_encoding == "source":
        met = [(b, b, mean_but(b, p), z[b]) for b in dict.fromkeys(b for _, b in pairs)]
    elif mean_encoding == "both":
        met = [(-1, -1, mean_but(-1, p), mean_but(-1, z))]
    else:
        met = [(a, b, p[a], z[b]) for a, b in pairs]
    main = [distance(x, y) for a, b, x, y in met if a not in small and b not in small]
    extra = [distance(x, y) for a, b, x, y in met if a in small or b in small]
    total = [torch.stack(part).mean() for part in (main, extra) if part]
    return total[0] if len(total) == 1 else total[0] + total[1]


@dataclass(frozen=True)
class TwoBranchConfig(MethodConfig):
    """Knobs of every method with two branches.

    Attributes:
        mean_encoding: the branch whose encodings of several views are averaged before they are compared
            (Wang et al. 2204.00613, 4.5): none, source, target or both.
    """

    mean_encoding: MeanEncoding = "none"


class TwoBranchMethod(Method):
    """A method that compares source encodings with target encodings of other views."""

    two_branches = True
    config: TwoBranchConfig

    def sources(self, views: Sequence[Tensor]) -> list[int]:
        """The views that pass the source branch."""
        return self._with_role("source", len(views))

    def targets(self, views: Sequence[Tensor]) -> list[int]:
        """The views that pass the target branch; small crops only where that is their one role."""
        small, found = small_crops(views), self._with_role("target", len(views))
        return [b for b in found if b not in small or self.roles[b : b + 1] == ("target",)]

    def compare(
        self,
        distance: Distance,
        p: Mapping[int, Tensor],
        z: Mapping[int, Tensor],
        views: Sequence[Tensor],
    ) -> Tensor:
        """`over_pairs` with this method's mean encoding; small crops are told by their size."""
        return over_pairs(distance, p, z, small_crops(views), self.config.mean_encoding)

    def _with_role(self, role: str, count: int) -> list[int]:
        check_views(range(count))
        if self.roles and len(self.roles) != count:
            raise UsageError(f"{count} views came, but {len(self.roles)} have a role")
        found = [i for i in range(count) if not self.roles or self.roles[i] in ("both", role)]
        if not found:
            raise UsageError(f"no view passes the {role} branch: give one of them the role {role}, or both")
        return found


def small_crops(views: Sequence[Tensor]) -> list[int]:
    """The views that are smaller than the largest.

    Example:
        >>> small_crops([torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 16, 16)])
        [1]
    """
    largest = max(view.shape[-1] for view in views)
    return [i for i, view in enumerate(views) if view.shape[-1] < largest]


@dataclass(frozen=True)
class MomentumConfig(TwoBranchConfig):
    """Knobs of every method whose target is a moving average of the source.

    Attributes:
        tau_base: averaging coefficient at the start, in [0, 1]; 0 copies the source after every step.
        tau_final: averaging coefficient at the end, in [0, 1], reached along a cosine.
        target_update: `after-step` averages when the optimiser has stepped (solo-learn and its forks);
            `before-target` averages within the next forward pass, after the source's, so that the target lags
            one step less behind what it is compared with (MoCo v3's code and Li et al. 2209.15007).
    """

    tau_base: float = 0.99
    tau_final: float = 1.0
    target_update: Literal["after-step", "before-target"] = "after-step"


class MomentumMethod(TwoBranchMethod):
    """A two-branch method whose target network is a momentum copy of the source network.

    Only parameters are averaged; the target runs in training mode and keeps BN statistics of its own, as the
    references have it.
    """

    config: MomentumConfig
    target: nn.ModuleDict

    def make_target(self, *parts: str) -> None:
        """Copies the named parts (`backbone`, `projector`, ...); call it last in `__init__`."""
        self.target = nn.ModuleDict({part: momentum_copy(getattr(self, part)) for part in parts})
        self._moved = -1

    @torch.no_grad()
    def encode_targets(self, views: Sequence[Tensor]) -> dict[int, Tensor]:
        """Target views to their encodings, without gradient; call it after the source's forward pass."""
        if self.config.target_update == "before-target" and self.training and self._moved != self.when.step:
            self._move(self.when.progress)
            self._moved = self.when.step  # once per optimiser step, however many batches it has
        return {b: self.encode_target(views[b]) for b in self.targets(views)}

    def encode_target(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] through the target network, part after part, to [n, d]."""
        for part in self.target.values():
            x = part(x)
        return x

    def after_step(self, progress: float) -> None:
        """Moves the target towards the source with the tau of this point of the run."""
        if self.config.target_update == "after-step":
            self._move(progress)

    def _move(self, progress: float) -> None:
        tau = cosine_tau(self.config.tau_base, self.config.tau_final, progress)
        for name, part in self.target.items():
            update_momentum(part, getattr(self, name), tau)
