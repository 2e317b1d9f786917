"""W-MSE: views are compared after each has been whitened."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.methods._base import Step, register
from fullrank.methods._config import ProjectorConfig, follow_backbone
from fullrank.methods._fixed_points import IDENTICAL, UNRELATED, FixedPoint
from fullrank.methods._one_branch import OneBranchMethod, unordered_pairs
from fullrank.methods._two_branch import negative_cosine
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import from_first_process, gather_rows, world


@in_full_precision
def whiten(z: Tensor, eps: float = 0.0) -> Tensor:
    """Whiten rows [n, d]: centred, with unbiased covariance I where eps is 0.

    The covariance is mixed with the identity, (1 - eps) cov + eps I = L L^T, and the centred rows are
    multiplied by the inverse of L, its Cholesky factor.

    Raises:
        UsageError: fewer than two rows, or, where eps is 0, no more rows than dimensions; or the mixed
            covariance is singular.

    Example:
        >>> z = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(whiten(z).T.cov(), torch.eye(3, dtype=torch.float64))
        True
    """
    n, d = z.shape
    if n < 2 or (n <= d and not eps):
        least, remedy = (
            ("1 row", "") if eps else (f"{d} rows", ", lower proj-output-dim, or set whitening-eps above 0")
        )
        raise UsageError(
            f"whitening {d} dimensions takes more than {least}, not {n}: raise the batch size{remedy}"
        )
    centred = z - z.mean(dim=0)
    cov = centred.T @ centred / (n - 1)
    mixed = (1 - eps) * cov + eps * torch.eye(d, dtype=z.dtype, device=z.device)
    factor, failed = torch.linalg.cholesky_ex(mixed)
    if failed and mixed.isfinite().all():
        raise UsageError(
            f"the covariance of {n} projections in {d} dimensions is singular and cannot be whitened: raise"
            " whitening-eps above 0 or lower proj-output-dim"
        )
    white: Tensor = torch.linalg.solve_triangular(factor, centred.T, upper=False)
    return white.T


@in_full_precision
def wmse_loss(
    z: Sequence[Tensor],
    order: Tensor | None = None,
    whitening_size: int = 0,
    whitening_eps: float = 0.0,
    detach_second: bool = True,
) -> Tensor:
    """Mean over pairs of views a < b of 2 - 2 cos between whitened rows, in [0, 4].

    The rows, of all processes under torch.distributed, are cut into sub-batches which are whitened by
    themselves, the same ones in every view.

    Args:
        z: per view, projections [n, d].
        order: permutation of all rows before they are cut; None: as they come.
        whitening_size: rows of a sub-batch, or more where the batch is no multiple of it; a smaller batch is
            whitened whole; 0: all rows.
        whitening_eps: share of the identity in the covariance, in [0, 1).
        detach_second: let the gradient reach the earlier view of each pair only, as the reference does.

    Raises:
        UsageError: see `whiten`.

    Example:
        >>> z = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
        >>> round(wmse_loss([z, 2 * z + 1]).item(), 4)  # equal but for scale and offset
        0.0
    """
    rows = [gather_rows(view) for view in z]
    n = len(rows[0])
    every = torch.arange(n, device=rows[0].device) if order is None else order
    batches = every.tensor_split(max(n // (whitening_size or n), 1))
    white = [torch.cat([whiten(view[rows_of], whitening_eps) for rows_of in batches]) for view in rows]
    compared = [(a, b.detach() if detach_second else b) for a, b in unordered_pairs(white)]
    return torch.stack([2 + 2 * negative_cosine(a, b) for a, b in compared]).mean()


@register("wmse")
class WMSE(OneBranchMethod):
    """W-MSE (Ermolov et al., 2007.06346): whitening for self-supervision.

    The projections of each view are whitened over random sub-batches, new ones at every step (section 3);
    then views of an image attract each other. The gradient passes through the whitening.

    What keeps it from collapse: whitened rows have identity covariance whatever the network does, so all d
    directions stay in use; a projection of lower rank cannot be whitened at all, which is an error here
    unless `whitening_eps` is above 0.

    Where reference and paper differ: the paper gives gradient to both views of a pair; solo-learn detaches
    the later view of each pair, so that the first view alone receives gradient when there are two. Values
    agree, gradients do not. Sub-batches here take up the remainder of a batch that is no multiple of
    `whitening_size`, which the reference refuses.

    Taps: backbone, projector (before whitening).
    """

    paper, year = "2007.06346", 2020
    mechanism = "whitening of every view"
    # solo-learn's optimiser; its own views crop from 20 % of the area.
    small_image_defaults = {
        "optimizer": "adam",
        "lr": 2e-3,
        "weight_decay": 1e-6,
        "warmup_epochs": -1.0,
        "warmup_lr": 0.0,
        "views": "symmetric",
    }
    small_batch_defaults = small_image_defaults
    fixed_points = (
        FixedPoint("unrelated", "2", lambda at: 2.0, (), UNRELATED),
        FixedPoint(
            "agreeing",
            "0",
            lambda at: 0.0,
            ("cluster",),
            f"{IDENTICAL} Whitening keeps all directions.",
        ),
    )

    @dataclass(frozen=True)
    class Config(ProjectorConfig):
        """Options of W-MSE; the defaults are solo-learn's for CIFAR.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layer; 0: 1024, less for narrow backbones.
            proj_output_dim: d, width of the projection, which the batch, over all processes, must exceed
                unless `whitening_eps` is above 0; 0: 64, less for narrow backbones.
            whitening_size: rows that are whitened together, more than d (the paper: 2 d), or at least 2 where
                `whitening_eps` is above 0; a smaller batch is whitened whole.
            whitening_iters: how many random partitions into sub-batches a step's loss is averaged over.
            whitening_eps: share of the identity that is mixed into the covariance, in [0, 1).
            detach_second: detach the later view of each pair, as the reference does.
        """

        positive, below_one = ("whitening_iters",), ("whitening_eps",)
        proj_hidden_dim: int = follow_backbone(1024)
        proj_output_dim: int = follow_backbone(64)
        whitening_size: int = 128
        whitening_iters: int = 1
        whitening_eps: float = 0.0
        detach_second: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            least, remedy = 1, "must be at least 2"
            if self.whitening_eps == 0:
                least = self.proj_output_dim
                remedy = f"must be larger than proj-output-dim, which is {least}, where whitening-eps is 0"
            self.require(self.whitening_size > least, "whitening_size", remedy)

    config: Config
    proj_layers = 2

    @classmethod
    def option_defaults(cls, batch: int, named: Collection[str]) -> Mapping[str, tuple[Any, str]]:
        """See `Method.option_defaults`."""
        if batch // 2 >= 64 or "proj_output_dim" in named:
            return {}
        return {"proj_output_dim": (max(batch // 2, 2), f"half of a batch of {batch}, as in the paper")}

    def permutation(self, n: int) -> Tensor:
        """A random order of the n rows of all processes, the same on all of them."""
        return from_first_process(torch.randperm(n).to(next(self.parameters()).device))

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean loss over pairs of views and partitions."""
        taps, z = self.encode(views, "projector")
        c, n = self.config, len(z[0]) * world()[1]
        options = c.whitening_size, c.whitening_eps, c.detach_second
        losses = [wmse_loss(z, self.permutation(n), *options) for _ in range(c.whitening_iters)]
        return Step(torch.stack(losses).mean(), taps)
