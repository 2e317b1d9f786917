"""IsoLoss: DirectPred without the factor that makes small eigenmodes slow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.methods._base import register
from fullrank.methods._closed_form import ClosedFormMethod, SpectralConfig
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint, Situation
from fullrank.networks.correlation import copied_predictor, spectral_predictor
from fullrank.networks.precision import in_full_precision


@in_full_precision
def isoloss_cosine(z: Tensor, p: Tensor, energy: Tensor, t: Tensor) -> Tensor:
    """One direction of IsoLoss for the cosine (2212.04858, section 4), mean of rows.

    -2 mean_i [ <z, t> / sg(|p| |t|) - 1/2 sg(<p, t> / (|p|^3 |t|)) energy ], with energy = z Wp z^T. Its
    gradient for z is that of 2 - 2 cos(z Wp, t) without the left factor Wp. The value is no similarity and
    has no meaning of its own.

    Args:
        z: projections [n, d], with gradient.
        p: predictions z Wp [n, d], detached here.
        energy: [n], z_i Wp z_i^T, with gradient; |z Wp^(1/2)|^2.
        t: target projections [n, d], detached here.

    Example:
        >>> z = torch.eye(2)
        >>> isoloss_cosine(z, z, torch.ones(2), z).item()
        -1.0
    """
    p, t = p.detach(), t.detach()
    length, far = p.norm(dim=1), t.norm(dim=1)
    alive = (length > 0) & (far > 0)
    length, far = length.where(alive, 1.0), far.where(alive, 1.0)
    # unit rows first: |p|^3 leaves the range of single precision long before |p| does
    p, t = p / length[:, None], t / far[:, None]
    attraction = (z * t).sum(dim=1) / length
    restraint = 0.5 * (p * t).sum(dim=1) * (energy / length / length)
    return -2.0 * torch.where(alive, attraction - restraint, 0.0).mean()


@in_full_precision
def isoloss_euclidean(z: Tensor, p: Tensor, t: Tensor) -> Tensor:
    """One direction of Euclidean IsoLoss: mean_i |z_i - sg(t_i + z_i - p_i)|^2.

    The value equals mean |p - t|^2; the gradient for z is 2 (p - t) / n, again without Wp.

    Example:
        >>> isoloss_euclidean(torch.eye(2), torch.eye(2), torch.zeros(2, 2)).item()
        1.0
    """
    return (z - (t + z - p).detach()).square().sum(dim=1).mean()


def _constant(at: Situation) -> float | None:
    if at.config.distance != "cosine" or not at.config.normalise:
        return None  # depends on the scale
    return float(-2.0 / (1.0 + at.config.eps) ** at.config.alpha)


@register("isoloss")
class IsoLoss(ClosedFormMethod):
    """IsoLoss (Halvagal et al., 2212.04858): implicit variance regularisation.

    DirectPred's networks and predictor, but the loss's gradient for z lacks the left factor Wp (their section
    4): all eigenmodes of the representation converge at one rate instead of rates proportional to a power of
    their own eigenvalue. With `alpha` 1 and `eps` 0.25 it is what the reference calls IsoCopy.

    What keeps it from collapse: predictor and stop-gradient regularise the variance of every mode implicitly;
    as small modes are no longer slow, it also trains without a momentum target (`tau_base = tau_final = 0`).

    Where reference and paper differ: the cosine form carries the factor 2 of BYOL's loss. A row whose
    prediction is zero is 0/0 in the reference; here it is left out of gradient and value, so that a dead row
    is no NaN.

    Taps: backbone, projector, predictor, target. The buffer `C` holds the correlation.
    """

    paper, year = "2212.04858", 2022
    mechanism = "isotropic gradient through a closed-form predictor"
    least_loss = None
    fixed_points = (
        FixedPoint("constant", "-2 / (1 + eps)^alpha", _constant, ("complete",), CONSTANT),
        FixedPoint(
            "unrelated", "0", lambda at: 0.0 if at.config.distance == "cosine" else None, (), UNRELATED
        ),
    )

    @dataclass(frozen=True)
    class Config(SpectralConfig):
        """Options of IsoLoss; the defaults are implicit-var-reg's with a target.

        Attributes:
            eps: added to every normalised eigenvalue before the power, at least 0 (IsoCopy: 0.25).
        """

    config: Config

    def predictor_matrix(self) -> Tensor:
        """Wp [d, d] from the eigenpairs of C, which a normalised power of 1 does without."""
        config = self.config
        if config.alpha == 1.0 and config.normalise:
            return copied_predictor(self.C, config.eps)
        return spectral_predictor(self.C, config.alpha, config.eps, config.normalise)

    def distance(self, online: Tensor, target: Tensor) -> Tensor:
        """IsoLoss of the pair z, p in `online` [2, n, d] against the target [n, d]."""
        z, p = online
        if self.config.distance == "euclidean":
            return isoloss_euclidean(z, p, target)
        return isoloss_cosine(z, p, (z * p).sum(dim=1), target)
