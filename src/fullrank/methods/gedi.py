"""GEDI without its generative term: learned codes, all used and agreed upon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import SMALL_BATCH_ADAM, SOLO_LARS, Method, Step, check_views, register
from fullrank.methods._config import MethodConfig, follow_backbone
from fullrank.methods._fixed_points import UNIFORM_CODES, FixedPoint, Situation
from fullrank.networks.codes import log_mean_of_codes
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision


@in_full_precision
def gedi_loss(z: Sequence[Tensor], beta: float = 0.1) -> dict[str, Tensor]:
    """Half of the prior plus half of beta times the cross-entropy to other views.

    prior = -sum_j log pbar_j over c codes, pbar the mean of softmax(z_1) over the rows of all processes: c
    times KL(uniform || pbar), plus c log c. Gradients flow through both arguments of the cross-entropy.

    Args:
        z: per view, scores [n, c] already divided by the temperature.
        beta: weight of the cross-entropy.

    Returns:
        `loss`, `prior` and `invariance`; the prior is at least c log c.

    Example:
        >>> round(gedi_loss([torch.zeros(4, 8)] * 2)["prior"].item(), 4)  # 8 log 8
        16.6355
    """
    check_views(z)
    first, *others = (F.log_softmax(view, dim=1) for view in z)
    prior = -log_mean_of_codes(first).sum()
    invariance = beta * torch.stack([-(other.exp() * first).sum(dim=1).mean() for other in others]).mean()
    return {"loss": 0.5 * prior + 0.5 * invariance, "prior": prior, "invariance": invariance}


def _uniform(at: Situation) -> float:
    c = at.config.num_codes
    return float(0.5 * (c + at.config.beta) * math.log(c))


@register("gedi")
class GEDI(Method):
    """GEDI without generative term (Sansone and Manhaeve, 2212.13425).

    The baseline of CPLearn, after the code of 2410.04959. A projector scores c learned codes at temperature
    0.1. All codes of the first view must be used alike, and its assignment must agree with the second's.

    What keeps it from collapse: the prior excludes one point and unused codes; nothing asks for spread within
    a code or for more dimensions than the codes need.

    Where reference and paper differ: the reference's prior is a sum over codes, not a mean, so that it dwarfs
    the invariance; the loss is not symmetrised. With more than two views the first meets the mean of the
    others.

    Taps: backbone, projector (its hidden layer, the reference's embedding), codes (scores).
    """

    paper, year = "2212.13425", 2022
    mechanism = "uniform use of learned codes"
    caveat = "a weak baseline, without the generative term: ends below on generated shapes"
    # LARS with its bare defaults: the reference's configuration names it and passes nothing on.
    small_image_defaults = SOLO_LARS | {"lars_eta": 0.001, "lars_clip": False, "lars_exclude_1d": False}
    least_loss = None
    small_batch_defaults = SMALL_BATCH_ADAM
    fixed_points = (
        FixedPoint(
            "uniform over codes", "(c ln c + beta ln c) / 2", _uniform, ("uniform-assignment",), UNIFORM_CODES
        ),
        FixedPoint(
            "a code for each image",
            "c ln c / 2",
            lambda at: 0.5 * at.config.num_codes * math.log(at.config.num_codes),
            (),
            "The lowest value: codes are used alike, and every image has few of them, the same in all views.",
        ),
    )

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Options of GEDI; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer, the embedding; 0: 2048, less for narrow
                backbones.
            num_codes: c, width of the projector's output.
            temperature: scores are divided by it.
            beta: weight of the invariance.
        """

        proj_hidden_dim: int = follow_backbone(2048)
        num_codes: int = 2048
        temperature: float = 0.1
        beta: float = 0.1

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        self.projector = mlp([feature_dim, config.proj_hidden_dim, config.num_codes], hidden_bias=True)

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to prior and invariance."""
        taps, scores = self.encode(views, "codes")
        terms = gedi_loss(scores, self.config.beta)
        return Step(terms.pop("loss"), taps, terms)

    def prototype_rows(self) -> Tensor:
        """Weights [c, H] of the projector's last layer."""
        last = self.projector[-1]
        assert isinstance(last, nn.Linear)
        return last.weight.detach()

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], the hidden layer [n, H] and scores [n, c]."""
        h = self.backbone(x)
        e = self.projector[:-1](h)
        return {"backbone": h, "projector": e, "codes": self.projector[-1](e) / self.config.temperature}
