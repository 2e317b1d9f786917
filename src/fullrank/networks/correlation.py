"""Correlation of embeddings, and predictors computed from it."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.networks.precision import in_full_precision, or_diverged
from fullrank.networks.processes import mean_over_processes

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
