"""Spectral filters: functions of the singular values of embeddings (RDM)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fullrank.networks.precision import in_full_precision, or_diverged

FilterType = Literal["poly", "log", "log_1", "log_2"]


def gain(s: Tensor, kind: str = "poly", sigma: float = 1.0) -> Tensor:
    """g(S) of RDM (2303.02387): S^sigma, log S, log(S + 1) or log(S^2 + 1).

    Example:
        >>> gain(torch.tensor([2.0, 3.0]), "poly", sigma=2.0).tolist()
        [4.0, 9.0]
    """
    logarithms = {"log": torch.log, "log_1": torch.log1p, "log_2": lambda s: s.square().log1p()}
    return logarithms[kind](s) if kind in logarithms else s**sigma


@torch.no_grad()
@in_full_precision
def right_singular(x: Tensor, solver: str = "gram", rank_threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Singular values [r] and right vectors [d, r] of rows [n, d], no gradient.

    Args:
        x: rows.
        solver: `gram`, eigenvectors of the smaller of x x^T and x^T x in double precision, several times
            faster where n and d differ, which drops what may be the rows' own rounding: singular values below
            max(n, d) eps of the largest, in double precision below 4e-8; or `svd`, which does not.
        rank_threshold: directions whose singular value is at most this share of the largest are dropped, and
            those of value zero always: value and vector read 0, so that no shape depends on a value.

    Example:
        >>> s, v = right_singular(torch.diag(torch.tensor([3.0, 2.0])))
        >>> s.tolist()
        [3.0, 2.0]
    """
    n, d = x.shape
    if solver == "svd":
        with or_diverged():
            _, s, vh = torch.linalg.svd(x, full_matrices=False)
        v = vh.T
    else:
        exact = x if x.device.type == "mps" else x.double()  # Apple's devices have no doubles
        with or_diverged():
            eigenvalues, u = torch.linalg.eigh(exact @ exact.T if n < d else exact.T @ exact)
        s, v = eigenvalues.clamp(min=0.0).sqrt().flip(0), u.flip(1)
        if n < d:
            v = exact.T @ v / s.clamp(min=torch.finfo(s.dtype).tiny)
        # rounding moves eigenvalues by up to 3 eps of the largest: allow 9
        noise = max(n, d) * torch.finfo(x.dtype).eps, 3.0 * torch.finfo(s.dtype).eps ** 0.5
        rank_threshold = max(rank_threshold, *noise)
    kept = (s > rank_threshold * s[0]) & (s > 0)
    return torch.where(kept, s, 0.0).to(x.dtype), torch.where(kept, v, 0.0).to(x.dtype)


@in_full_precision
def filter_rows(x: Tensor, s: Tensor, v: Tensor, kind: str = "poly", sigma: float = 1.0) -> Tensor:
    """x V diag(g(S)) V^T, rows [n, d] filtered; gradient flows through x alone.

    Directions whose singular value reads 0 pass nothing.

    Example:
        >>> x = torch.diag(torch.tensor([3.0, 2.0]))
        >>> filter_rows(x, *right_singular(x), sigma=-1.0).abs().round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    gains = torch.where(s > 0, gain(torch.where(s > 0, s, 1.0), kind, sigma), 0.0)
    return ((x @ v.to(x.dtype)) * gains.to(x.dtype)) @ v.T.to(x.dtype)
