"""Base of methods with two branches: distances, pairs, momentum targets.

One branch, the source, has gradient; the other, the target, gives it what to match. In the symmetric methods
every view takes both roles, one after the other; the asymmetric designs of Wang et al. (2204.00613) give
views one role only (`Method.roles`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods._base import MeanEncoding, Method, PerView, StepInfo, ViewPairs, check_views
from fullrank.methods._config import ProjectorConfig, follow_backbone
from fullrank.networks.momentum import cosine_tau, update_momentum
from fullrank.networks.precision import in_full_precision

__all__ = [
    "Distance",
    "MomentumConfig",
    "MomentumMethod",
    "TwoBranchConfig",
    "TwoBranchMethod",
    "negative_cosine",
    "over_pairs",
    "regression_loss",
]

Distance = Callable[[Tensor, Tensor], Tensor]
Taps = dict[str, Tensor]
Encoded = tuple[Taps, dict[int, Tensor], dict[int, Tensor]]


@in_full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -mean_i <p_i, z_i> / (|p_i| |z_i|); SimSiam (2011.10566), eq. 1.

    Of predictions p and targets z [n, d], which are not detached here.

    Example:
        >>> z = torch.eye(2)
        >>> negative_cosine(z, z).item()
        -1.0
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


@in_full_precision
def regression_loss(p: Tensor, z: Tensor, distance: str = "cosine") -> Tensor:
    """One direction of BYOL (2006.07733), equation 2, averaged over rows.

    Of predictions p and targets z [n, d], which are detached here. `cosine`: mean_i (2 - 2 cos(p_i, z_i)), in
    [0, 4], which equals |p/|p| - z/|z||^2. `euclidean`: mean_i |p_i - z_i|^2, summed over dimensions
    (Halvagal et al. 2212.04858).

    Example:
        >>> regression_loss(torch.eye(2), torch.eye(2)).item()
        0.0
    """
    z = z.detach()
    if distance == "cosine":
        return 2.0 - 2.0 * F.cosine_similarity(p, z, dim=1).mean()
    return (p - z).square().sum(dim=1).mean()


def over_pairs(distance: Distance, p: PerView, z: PerView, view_pairs: ViewPairs = ViewPairs()) -> Tensor:
    """The mean distance over pairs of a source view a and a target view b != a.

    Args:
        distance: of a source [n, d] to a target [n, d].
        p: source encodings by view.
        z: target encodings by view, detached where they must be.
        view_pairs: small crops and mean encodings; see `ViewPairs`.

    Raises:
        UsageError: no view can be paired with another.

    Example:
        >>> a, b = torch.eye(2), -torch.eye(2)
        >>> over_pairs(negative_cosine, [a, b], [a, b]).item()
        1.0
    """
    p, z = (side if isinstance(side, Mapping) else dict(enumerate(side)) for side in (p, z))
    pairs = [(a, b) for a in p for b in z if a != b]
    if not pairs:
        check_views({*p, *z})
        raise UsageError("no source view meets a target view: give one of them the other role")
    compared, small = _compared(p, z, pairs, view_pairs.mean_encoding), {*view_pairs.small}
    main = [distance(x, y) for a, b, x, y in compared if not {a, b} & small]
    extra = [distance(x, y) for a, b, x, y in compared if {a, b} & small]
    total = [torch.stack(group).mean() for group in (main, extra) if group]
    return total[0] if len(total) == 1 else total[0] + total[1]


def _compared(
    p: Mapping[int, Tensor], z: Mapping[int, Tensor], pairs: list[tuple[int, int]], averaged: MeanEncoding
) -> list[tuple[int, int, Tensor, Tensor]]:
    def mean_but(own: int, encodings: Mapping[int, Tensor]) -> Tensor:
        return torch.stack([e for view, e in encodings.items() if view != own]).mean(dim=0)

    match averaged:
        case "target":
            return [(a, a, p[a], mean_but(a, z)) for a in dict.fromkeys(a for a, _ in pairs)]
        case "source":
            return [(b, b, mean_but(b, p), z[b]) for b in dict.fromkeys(b for _, b in pairs)]
        case "both":
            return [(-1, -1, mean_but(-1, p), mean_but(-1, z))]
        case _:
            return [(a, b, p[a], z[b]) for a, b in pairs]


@dataclass(frozen=True)
class TwoBranchConfig(ProjectorConfig):
    """Options of every method with two branches.

    Attributes:
        mean_encoding: the branch whose encodings of several views are averaged before they are compared
            (Wang et al. 2204.00613, 4.5): none, source, target or both.
    """

    mean_encoding: MeanEncoding = "none"


class TwoBranchMethod(Method):
    """A method that compares source encodings with target encodings of other views.

    Taps: backbone, projector, and predictor where there is one.
    """

    two_branches = True
    config: TwoBranchConfig

    def sources(self, views: Sequence[Tensor]) -> list[int]:
        """The views that pass the source branch."""
        return self._with_role("source", len(views))

    def targets(self, views: Sequence[Tensor]) -> list[int]:
        """Views that pass the target branch; small crops if that is their only role."""
        small, of_role = small_crops(views), self._with_role("target", len(views))
        return [b for b in of_role if b not in small or self.roles[b : b + 1] == ("target",)]

    def view_pairs(self, views: Sequence[Tensor] = ()) -> ViewPairs:
        """How `over_pairs` compares these views; without views no crop is small."""
        return ViewPairs(small_crops(views), self.config.mean_encoding)

    def encode_siamese(self, views: Sequence[Tensor], source_tap: str, target_tap: str) -> Encoded:
        """Views to the first one's taps, p and z [n, d] by view, in one network."""
        sources, targets = self.sources(views), self.targets(views)
        taps = {v: self.embed(views[v]) for v in sorted({*sources, *targets})}
        z = {b: taps[b][target_tap] for b in targets}
        return taps[sources[0]], {a: taps[a][source_tap] for a in sources}, z

    def _with_role(self, role: str, count: int) -> list[int]:
        check_views(range(count), self.views_needed)
        if self.roles and len(self.roles) != count:
            raise UsageError(f"{count} views came, but {len(self.roles)} have a role")
        of_role = [i for i in range(count) if not self.roles or self.roles[i] in ("both", role)]
        if not of_role:
            raise UsageError(f"no view passes the {role} branch: give one of them the role {role}, or both")
        return of_role


def with_target(sources: Mapping[int, Taps], targets: Mapping[int, Tensor]) -> Taps:
    """Taps of the first source view, and its target or else the first one."""
    view, taps = next(iter(sources.items()))
    target = targets.get(view, next(iter(targets.values()), None))
    return taps if target is None else {**taps, "target": target}  # without any, `over_pairs` refuses


def small_crops(views: Sequence[Tensor]) -> list[int]:
    """The views that are smaller than the largest.

    Example:
        >>> small_crops([torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 16, 16)])
        [1]
    """
    largest = max((view.shape[-1] for view in views), default=0)
    return [i for i, view in enumerate(views) if view.shape[-1] < largest]


@dataclass(frozen=True)
class MomentumConfig(TwoBranchConfig):
    """Options of every method whose target is a moving average of the source.

    Attributes:
        proj_hidden_dim: width of the projector's hidden layers; 0: 4096, less for narrow backbones.
        proj_output_dim: d, width of the projection; 0: 256, less for narrow backbones.
        tau_base: averaging coefficient of the target at the start, in [0, 1]; 0 with `tau_final` 0 copies the
            source after every step: no average.
        tau_final: averaging coefficient at the end, in [0, 1], reached along a cosine.
        target_update: `after-step` averages when the optimiser has stepped (solo-learn and its forks);
            `before-target` averages within the next forward pass, after the source's, so that the target lags
            one step less behind what it is compared with (MoCo v3's code and Li et al. 2209.15007).
    """

    proj_hidden_dim: int = follow_backbone(4096)
    proj_output_dim: int = follow_backbone(256)
    tau_base: float = 0.99
    tau_final: float = 1.0
    target_update: Literal["after-step", "before-target"] = "after-step"


class MomentumMethod(TwoBranchMethod):
    """A two-branch method whose target is a momentum copy of the source network.

    Only parameters are averaged; the target runs in training mode and keeps BN statistics of its own, as the
    references have it. Taps: those of `TwoBranchMethod`, and target.
    """

    dip = 0.15
    config: MomentumConfig
    target: nn.ModuleDict

    def make_target(self, *parts: str) -> None:
        """Copy the named child modules (`backbone`, ...); call it last in `__init__`."""
        self.target = nn.ModuleDict({part: deepcopy(getattr(self, part)) for part in parts})
        self.target.requires_grad_(False)
        self._averaged_at = -1

    @property
    def target_follows(self) -> bool:
        """A moving average starts as a copy."""
        return "backbone" in self.target

    def encode_branches(self, views: Sequence[Tensor], source_tap: str) -> Encoded:
        """Views to the first one's taps, p and z [n, d] by view, sources first."""
        sources = {a: self.encode_source(views[a]) for a in self.sources(views)}
        z = self.encode_targets(views)
        return with_target(sources, z), {a: taps[source_tap] for a, taps in sources.items()}, z

    @torch.no_grad()
    def encode_targets(self, views: Sequence[Tensor]) -> dict[int, Tensor]:
        """Target views to encodings without gradient, after the source's forward pass."""
        step, before = self.info.step, self.config.target_update == "before-target"
        if before and self.training and self._averaged_at != step:
            self._average(self.info)
            self._averaged_at = step  # once per optimiser step, however many batches it has
        return {b: self.encode_target(views[b]) for b in self.targets(views)}

    def encode_target(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] through the target network, part after part, to [n, d]."""
        for part in self.target.values():
            x = part(x)
        return x

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to the source's taps and the target's z' [n, d]."""
        return {**self.encode_source(x), "target": self.encode_target(x)}

    def after_step(self, info: StepInfo) -> None:
        """Move the target towards the source with the tau of this point of the run."""
        if self.config.target_update == "after-step":
            self._average(info)

    def _average(self, info: StepInfo) -> None:
        tau = cosine_tau(self.config.tau_base, self.config.tau_final, info.progress)
        for name, part in self.target.items():
            update_momentum(part, getattr(self, name), tau)
