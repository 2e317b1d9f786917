"""DirectCopy: the correlation as the predictor, no eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fullrank.methods._base import register
from fullrank.methods._closed_form import ClosedFormConfig, ClosedFormMethod
from fullrank.methods._fixed_points import CONSTANT, UNRELATED, FixedPoint
from fullrank.networks.correlation import copied_predictor


@register("directcopy")
class DirectCopy(ClosedFormMethod):
    """DirectCopy (Wang et al., 2110.04947): DirectPred without eigenvectors.

    DirectPred with the predictor Wp = C / s_max + eps I: the power is 1, so that no eigenvectors are needed.

    What keeps it from collapse: predictor and stop-gradient together, as in DirectPred; the identity's share
    eps lets weak modes grow, and weight decay removes those that augmentation noise dominates.

    Where reference and paper differ: the reference (implicit-var-reg) divides by the largest eigenvalue,
    which DirectPred's authors' own DirectCopy code does not (`normalise` off), and takes eps 0.25.

    Taps: backbone, projector, predictor, target. The buffer `C` holds the correlation.
    """

    paper, year = "2110.04947", 2021
    mechanism = "correlation as predictor and momentum target"
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
    class Config(ClosedFormConfig):
        """Options of DirectCopy; the defaults are implicit-var-reg's with a target.

        Attributes:
            eps: share of the identity in the predictor, at least 0.
        """

        eps: float = 0.25

    config: Config

    def predictor_matrix(self) -> Tensor:
        """Wp [d, d], a shifted copy of C."""
        return copied_predictor(self.C, self.config.eps, self.config.normalise)
