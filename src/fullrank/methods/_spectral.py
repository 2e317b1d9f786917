"""Base of RDM-SimSiam and RDM-BYOL: the filter in a predictor's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fullrank.methods._two_branch import TwoBranchConfig
from fullrank.networks.correlation import FilterType, filter_rows, right_singular
from fullrank.networks.processes import gather_rows


@dataclass(frozen=True)
class FilterConfig(TwoBranchConfig):
    """Options of a spectral filter on either branch.

    Attributes:
        pred_type: `poly` S^sigma, `log` log S, `log_1` log(S + 1) or `log_2` log(S^2 + 1).
        pred_location: the branch that is filtered, `online` (a low pass) or `target` (a high pass).
        sigma: the power of `poly`; 1 is the paper's low pass online, -1 whitens the target.
        stats: whose singular values a filtered target has: its `own`, or those of the `other` view's online
            output (the reference's ImageNet code).
        rank_threshold: singular values of at most this share of the largest are dropped; 0 keeps all but
            zeros, as the reference does.
        solver: `gram`, eigenvectors of the smaller Gram matrix in double precision, or `svd`, the reference's
            slower way, which also keeps directions that are rounding noise.
    """

    below_one = ("rank_threshold",)
    pred_type: FilterType = "poly"
    pred_location: Literal["online", "target"] = "online"
    sigma: float = 1.0
    stats: Literal["own", "other"] = "own"
    rank_threshold: float = 0.0
    solver: Literal["gram", "svd"] = "gram"


def filtered_pair(p: Tensor, z: Tensor, config: FilterConfig) -> tuple[Tensor, Tensor]:
    """Both sides of a comparison, rows of all processes, one of them filtered.

    Args:
        p: online outputs [n, d] of one view; gradient flows through them.
        z: target outputs [n, d] of another view, detached here.
        config: which filter, where.

    Example:
        >>> from torch import eye
        >>> p, z = filtered_pair(2 * eye(3), eye(3), FilterConfig(sigma=2.0))
        >>> p.diagonal().tolist()
        [8.0, 8.0, 8.0]
    """
    p, z = gather_rows(p), gather_rows(z.detach())
    online = config.pred_location == "online"
    source = p if online or config.stats == "other" else z
    s, v = right_singular(source.detach(), config.solver, config.rank_threshold)
    if online:
        return filter_rows(p, s, v, config.pred_type, config.sigma), z
    return p, filter_rows(z, s, v, config.pred_type, config.sigma)
