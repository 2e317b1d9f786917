"""DirectPred: the optimal linear predictor, computed instead of trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fullrank.methods._base import register
from fullrank.methods._closed_form import ClosedFormMethod, SpectralConfig
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.networks.correlation import spectral_predictor


@register("directpred")
class DirectPred(ClosedFormMethod):
    """DirectPred (Tian et al., 2102.06810): learning dynamics without contrast.

    BYOL's two networks, but the predictor is Wp = U diag(((s / s_max) + eps)^alpha) U^T from the eigenpairs
    of the running correlation C of online projections (their section 3.2; alpha = 1/2). The loss is BYOL's:
    the sum of 2 - 2 cos(z Wp, stopgrad(z')) over the two directions.

    What keeps it from collapse: predictor and stop-gradient together. Wp multiplies the update of each
    eigenmode by a power of its own variance, which balances decay against growth; modes that start small grow
    slowly and may stay unrecruited (Halvagal et al. 2212.04858, whose IsoLoss removes that factor).

    Where reference and paper differ: the reference (implicit-var-reg) adds eps before the power, updates C
    with every view just before that view is predicted, at 0.998, and starts it at zero. DirectPred's own code
    adds eps after the power with a floor of 1e-4 (`eps_inside` off), and updates once per step at 0.3
    (`update` `step`), after the optimiser's step. The reference's general eigensolver is wrong in repeated
    eigenspaces; here the symmetric one is used. With `normalise` the bias of the zero start cancels.

    Taps: backbone, projector, predictor, target. The buffer `C` holds the correlation.

    Example:
        >>> from torch import nn, zeros
        >>> method = DirectPred(nn.Flatten(), 12, DirectPred.Config(proj_hidden_dim=8, proj_output_dim=4))
        >>> method.eval().predictor_matrix().shape
        torch.Size([4, 4])
    """

    paper, year = "2102.06810", 2021
    mechanism = "closed-form predictor and momentum target"
    fixed_points = (
        FixedPoint(
            "constant",
            "0",
            lambda at: 0.0 if at.config.distance == "cosine" else None,
            ("complete",),
            CONSTANT,
        ),
        FixedPoint(
            "unrelated", "4", lambda at: 4.0 if at.config.distance == "cosine" else None, (), UNRELATED
        ),
    )

    @dataclass(frozen=True)
    class Config(SpectralConfig):
        """Options of DirectPred; the defaults are implicit-var-reg's with a target.

        Attributes:
            eps: added to every normalised eigenvalue, at least 0 (DirectPred's sample command: 0.01).
            eps_inside: whether eps is added before the power.
        """

        eps_inside: bool = True

    config: Config

    def predictor_matrix(self) -> Tensor:
        """Wp [d, d] from the eigendecomposition of C."""
        config = self.config
        return spectral_predictor(self.C, config.alpha, config.eps, config.normalise, config.eps_inside)
