"""Spectral filters: embeddings whose singular values are replaced by a function of them (RDM)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fullrank.networks.precision import in_full_precision, or_diverged

__all__ = ["FilterType", "filter_rows", "gain", "right_singular"]

FilterType = Literal["poly", "log", "log_1", "log_2"]


def gain(s: Tensor, kind: str = "poly", sigma: float = 1.0) -> Tensor:
    """g(S): S^sigma (`poly`), log S (`log`), log(S + 1) (`log_1`) or log(S^2 + 1) (`log_2`); RDM
    (2303.02387).

    Example:
        >>> gain(torch.tensor([2.0, 3.0]), "poly", sigma=2.0).tolist()
        [4.0, 9.0]
    """
    match kind:
        case "poly":
            return s**sigma
        case "log":
            return s.log()
        case "log_1":
            return s.log1p()
        case _:
            return s.square().log1p()


@torch.no_grad()
@in_full_precision
def right_singular(x: Tensor, solver: str = "svd", rank_threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Singular values [r] and right singular vectors [d, r] of rows [n, d], without gradient.

    Args:
        x: rows.
        solver: `svd`, or `gram`: eigenvectors of the smaller of x x^T and x^T x, several times faster where n
            and d differ. It cannot tell singular values below 1e-3 of the largest (single precision; 4e-8 in
            double) from zero, and drops them.
        rank_threshold: directions whose singular value is at most this share of the largest are dropped, and
            those of value zero always: they hold nothing, and their vectors are arbitrary.

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
    elif n < d:
        with or_diverged():
            eigenvalues, u = torch.linalg.eigh(x @ x.T)
        s = eigenvalues.clamp(min=0.0).sqrt().flip(0)
        v = x.T @ u.flip(1) / s.clamp(min=torch.finfo(s.dtype).tiny)
    else:
        with or_diverged():
            eigenvalues, v = torch.linalg.eigh(x.T @ x)
        s, v = eigenvalues.clamp(min=0.0).sqrt().flip(0), v.flip(1)
    if solver == "gram":  # rounding moves eigenvalues by up to 3 eps of the largest: allow 9
        rank_threshold = max(rank_threshold, 3.0 * torch.finfo(s.dtype).eps ** 0.5)
    kept = (s > rank_threshold * s[0]) & (s > 0)
    return s[kept], v[:, kept]


@in_full_precision
def filter_rows(x: Tensor, s: Tensor, v: Tensor, kind: str = "poly", sigma: float = 1.0) -> Tensor:
    """x V diag(g(S)) V^T: rows [n, d] through the filter of `right_singular`; gradient flows through x alone.

    Example:
        >>> x = torch.diag(torch.tensor([3.0, 2.0]))
        >>> filter_rows(x, *right_singular(x), sigma=-1.0).abs().round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return ((x @ v.to(x.dtype)) * gain(s, kind, sigma).to(x.dtype)) @ v.T.to(x.dtype)
