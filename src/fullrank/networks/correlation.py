"""Correlation of embeddings, and predictors and filters from their spectrum."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fullrank.networks.precision import in_full_precision, or_diverged
from fullrank.networks.processes import mean_over_processes

FilterType = Literal["poly", "log", "log_1", "log_2"]
LARGEST_EIGENVALUE = 1e6  # where eigenvalues are not normalised
SQUARINGS = 22  # the estimate is then off by at most 1e-7 of the value, whatever the gap to the next one


@torch.no_grad()
@in_full_precision
def averaged_correlation(c: Tensor, z: Tensor, tau: float, centred: bool = False) -> Tensor:
    """tau C + (1 - tau) z^T z / n over all processes' rows, without gradient.

    Of the average so far C [d, d] and rows z [n, d]; `centred` subtracts the mean row first (a covariance).

    Example:
        >>> averaged_correlation(torch.zeros(4, 4), torch.eye(4), tau=0.5).diagonal().tolist()
        [0.125, 0.125, 0.125, 0.125]
    """
    z = z.to(c.dtype)
    if centred:
        z = z - mean_over_processes(z.mean(dim=0))
    scaled = z / len(z) ** 0.5  # before the product, lest half precision overflow upstream
    return tau * c + (1.0 - tau) * mean_over_processes(scaled.T @ scaled)


@torch.no_grad()
@in_full_precision
def spectral_predictor(
    c: Tensor, alpha: float = 0.5, eps: float = 0.0, normalise: bool = True, eps_inside: bool = True
) -> Tensor:
    """Wp = U diag(w) U^T from the eigenpairs of C; DirectPred (2102.06810), 3.2.

    lam_i = max(s_i, 0) / max_j s_j, and w_i = (lam_i + eps)^alpha, or w_i = max(lam_i^alpha + eps, 1e-4) with
    eps outside, as the paper's own code has it. Where not normalised, lam_i = max(s_i, 0), at most 1e6, and
    nothing is added, as implicit-var-reg has it. A matrix of zeros has lam = 0.

    Args:
        c: C [d, d], symmetric, with eigenvalues s_i.
        alpha: the power, 1/2 in DirectPred, 1 in DirectCopy.
        eps: what every mode gets at least, where normalised.
        normalise: divide by the largest eigenvalue.
        eps_inside: whether eps is added before the power.

    Example:
        >>> spectral_predictor(torch.diag(torch.tensor([4.0, 1.0]))).diagonal().tolist()
        [1.0, 0.5]
    """
    with or_diverged():
        s, u = torch.linalg.eigh((c + c.T) / 2.0)
    lam = s.clamp(min=0.0)
    if normalise:
        lam = lam / s[-1].clamp(min=torch.finfo(s.dtype).tiny)
    else:
        lam, eps = lam.clamp(max=LARGEST_EIGENVALUE), 0.0
    w = (lam + eps) ** alpha if eps_inside else (lam**alpha + eps).clamp(min=1e-4)
    wp: Tensor = (u * w) @ u.T
    return wp


@torch.no_grad()
@in_full_precision
def largest_eigenvalue(c: Tensor) -> Tensor:
    """Largest eigenvalue of a positive semi-definite matrix by repeated squaring.

    C^(2^k) is, but for its scale, the projector onto the leading eigenvectors; the quotient tr(P C) / tr(P)
    is then the eigenvalue. Nothing waits for the device. 0 for a matrix of zeros.

    Example:
        >>> round(largest_eigenvalue(torch.diag(torch.tensor([4.0, 1.0]))).item(), 6)
        4.0
    """
    tiny = torch.finfo(c.dtype).tiny
    p = c / c.trace().clamp(min=tiny)
    for _ in range(SQUARINGS):
        p = p @ p
        p = p / p.trace().clamp(min=tiny)
    value: Tensor = (p * c).sum()
    return value


@torch.no_grad()
@in_full_precision
def copied_predictor(c: Tensor, eps: float = 0.25, normalise: bool = True) -> Tensor:
    """Wp = C / s_max + eps I, normalised or not; DirectCopy (2110.04947), 4.

    Example:
        >>> copied_predictor(torch.diag(torch.tensor([4.0, 1.0])), eps=0.5).diagonal().tolist()
        [1.5, 0.75]
    """
    if normalise:
        c = c / largest_eigenvalue(c).clamp(min=torch.finfo(c.dtype).tiny)
    return c + eps * torch.eye(len(c), dtype=c.dtype, device=c.device)


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
