"""DirectCopy: the correlation itself as the predictor, without an eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fullrank.methods._base import register
from fullrank.methods._closed_form import ClosedFormConfig, ClosedFormMethod
from fullrank.methods._two_branch import regression_loss
from fullrank.networks.correlation import copied_predictor

__all__ = ["DirectCopy"]


@register("directcopy")
class DirectCopy(ClosedFormMethod):
    """DirectCopy (Wang et al., "Towards Demystifying Representation Learning with Non-contrastive
    Self-supervision", 2110.04947).

    DirectPred with the predictor Wp = C / s_max + eps I: the power is 1, so that no eigenvectors are needed.

    What keeps it from collapse: predictor and stop-gradient together, as in DirectPred; the identity's share
    eps lets weak modes grow, and weight decay removes those that augmentation noise dominates.

    Where reference and paper differ: the reference (implicit-var-reg) divides by the largest eigenvalue,
    which DirectPred's authors' own DirectCopy code does not (`normalise` off), and takes eps 0.25.

    Taps: backbone, projector, predictor, target. The buffer `C` holds the correlation.
    """

    paper, year = "2110.04947", 2021
    mechanism = "correlation as predictor and momentum target"

    @dataclass(frozen=True)
    class Config(ClosedFormConfig):
        """Knobs of DirectCopy; the defaults are those of implicit-var-reg with a momentum target.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer.
            proj_output_dim: d, width of the projection.
            eps: share of the identity in the predictor, at least 0.
            normalise: divide C by its largest eigenvalue.
            correlation_momentum: averaging coefficient of C, in [0, 1].
            update: C takes in each `view` before it is predicted, or all of them once per `step`.
            centred: subtract the batch mean from what C takes in.
            distance: `cosine` or `euclidean`.
            tau_base: averaging coefficient of the target at the start; 0 with `tau_final` 0 is no average.
            tau_final: averaging coefficient of the target at the end.
            target_update: `after-step` or `before-target`; see `MomentumConfig`.
            mean_encoding: as in `TwoBranchConfig`.
        """

        eps: float = 0.25
        normalise: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            self.need(self.eps >= 0, "eps", "must not be negative")

    config: Config

    def predictor_matrix(self) -> Tensor:
        """Wp [d, d], a shifted copy of C."""
        return copied_predictor(self.C, self.config.eps, self.config.normalise)

    def distance(self, online: Tensor, target: Tensor) -> Tensor:
        """BYOL's regression of the prediction, the second of `online` [2, n, d], on the target [n, d]."""
        return regression_loss(online[1], target, self.config.distance)
