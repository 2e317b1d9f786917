"""One update of the implicit variance regularisation toys, by formula.

Halvagal, Laborieux and Zenke 2023 (2212.04858). A single layer `z = phi(W x)` sees `x1 ~ N(0, I)` and a view
of it, `x2`; the predictor `Wp = U |Lambda|^alpha U^T` comes in closed form from `W W^T = U Lambda U^T`.
Samples are columns: `X` is [in, n], `W` is [out, in].

Four arms: `base` (a predictor and a stop-gradient, as DirectPred), `iso` (IsoLoss: the gradient of base
without the predictor on its left), `nosg` (gradients into both branches), `nopred` (`Wp = I`); each with the
Euclidean or the cosine distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from fullrank.errors import UsageError

Arm: TypeAlias = Literal["nosg", "nopred", "base", "iso"]
Distance: TypeAlias = Literal["euclidean", "cosine"]
Activation: TypeAlias = Literal["identity", "relu"]

GUARD = 1e-8  # added to every norm of the cosine settings that have a predictor


@dataclass(frozen=True)
class Setting:
    """What a toy network does.

    Attributes:
        arm: see the head of this file.
        distance: euclidean, `|p - z2|^2 / 2`, or cosine, `-cos(p, z2)`.
        activation: phi.
    """

    arm: Arm
    distance: Distance
    activation: Activation = "identity"

    def __str__(self) -> str:
        return f"{self.arm} {self.distance}" + (" relu" if self.activation == "relu" else "")

    def phi(self, a: Tensor) -> Tensor:
        """The activation."""
        return a.relu() if self.activation == "relu" else a

    def slope(self, a: Tensor) -> Tensor:
        """Its derivative; 0 at 0."""
        return (a > 0).to(a.dtype) if self.activation == "relu" else torch.ones_like(a)


SETTINGS = tuple(Setting(arm, distance) for distance in get_args(Distance) for arm in get_args(Arm))
"""The eight panels of Figure 2, linear."""


def closed_form_predictor(W: Tensor, alpha: float = 1.0) -> Tensor:
    """`Wp = U |Lambda|^alpha U^T` with `W W^T = U Lambda U^T`: [out, out], symmetric.

    Example:
        >>> closed_form_predictor(torch.tensor([[2.0, 0.0], [0.0, 3.0]])).round().tolist()
        [[4.0, 0.0], [0.0, 9.0]]
    """
    values, vectors = torch.linalg.eigh(W @ W.T)
    predictor: Tensor = (vectors * values.abs().pow(alpha)) @ vectors.T
    return predictor


def predictor_from_samples(Z1: Tensor, Z2: Tensor, alpha: float = 1.0) -> Tensor:
    """Predictor [out, out] from `Z1 Z2^T / n`, two views' outputs [out, n] each.

    That matrix is not symmetric: as in the reference its right eigenvectors and their inverse are taken.

    Raises:
        UsageError: complex eigenvalues, of which the reference would keep half.
    """
    values, vectors = torch.linalg.eig(Z1 @ Z2.T / Z1.shape[1])
    if bool((values.imag != 0).any()):
        raise UsageError(
            f"the correlation of {Z1.shape[1]} samples has complex eigenvalues; use more samples"
        )
    right: Tensor = vectors.real
    predictor: Tensor = (right * values.real.abs().pow(alpha)) @ torch.linalg.inv(right)
    return predictor


def reference_descent(
    setting: Setting, W: Tensor, X1: Tensor, X2: Tensor, Wp: Tensor, guard: float = GUARD
) -> Tensor:
    """Update direction of `W` in the published notebook, with its approximations.

    They are: with relu, the Euclidean settings apply the slope before the predictor, and `nopred` none at
    all; `nosg` Euclidean uses the slope of view 1 for view 2; `nosg` cosine pairs everything with `x1` and
    the norms of the first branch; `nopred` cosine has no guard, so that one sample without any output makes
    the whole direction NaN (which `nan_to_num` then turns into no step). Elsewhere it is the exact gradient
    but for the guard.

    Example:
        >>> W, X = torch.tensor([[0.5]]), torch.ones(1, 4)
        >>> Wp = closed_form_predictor(W)
        >>> reference_descent(Setting("iso", "euclidean"), W, X, X, Wp).item()  # (1 - lambda) w
        0.375
    """
    n, A1 = X1.shape[1], W @ X1
    Z1, Z2, slope = setting.phi(A1), setting.phi(W @ X2), setting.slope(A1)
    if setting.distance == "euclidean":
        if setting.arm == "nopred":
            return (Z2 - Z1) @ X1.T / n
        E = (Wp @ Z1 - Z2) * slope
        if setting.arm == "iso":
            return -E @ X1.T / n
        direction = -Wp.T @ E @ X1.T / n
        return direction + E @ X2.T / n if setting.arm == "nosg" else direction
    if setting.arm == "nopred":
        return _cosine_pull(Z2, Z1, Z1, Z2, guard=0.0).mul(slope) @ X1.T / n
    P = Wp @ Z1
    match setting.arm:
        case "base":
            pull = _cosine_pull(Wp @ Z2, Wp @ P, P, Z2, guard)
        case "iso":
            pull = _cosine_pull(Z2, P, P, Z2, guard)
        case "nosg":
            pull = _cosine_pull(Wp @ (Z1 + Z2), Wp @ P + Z2, P, Z2, guard)
    return (pull * slope) @ X1.T / n


def _cosine_pull(towards: Tensor, away: Tensor, P: Tensor, Z2: Tensor, guard: float) -> Tensor:
    """`towards / (|p| |z2|) - <p, z2> away / (|p|^3 |z2|)`, column by column."""
    p, z2 = _norm(P) + guard, _norm(Z2) + guard
    inverse = 1 / (p * z2)
    return towards * inverse - away * ((P * Z2).sum(dim=0) * inverse / (p * p))


def _norm(columns: Tensor) -> Tensor:
    return columns.square().sum(dim=0).sqrt()  # `norm(dim=0)` is ten times slower


def exact_descent(
    setting: Setting, W: Tensor, X1: Tensor, X2: Tensor, Wp: Tensor, guard: float = GUARD
) -> Tensor:
    """Negative gradient of the setting's loss by autograd, with `Wp` constant.

    `iso` has no loss: its direction is that of `base` with the predictor taken out where the chain rule puts
    it, before the slope of the activation.

    Example:
        >>> W, X = torch.tensor([[0.5]]), torch.ones(1, 4)
        >>> exact_descent(Setting("base", "euclidean"), W, X, X, closed_form_predictor(W)).item()
        0.09375
    """
    W = W.detach().requires_grad_()
    Z1, Z2 = setting.phi(W @ X1), setting.phi(W @ X2)
    P = Z1 if setting.arm == "nopred" else Wp @ Z1
    if setting.arm != "nosg":
        Z2 = Z2.detach()
    if setting.arm == "iso":
        P = P.detach().requires_grad_()
    if setting.distance == "euclidean":
        losses = 0.5 * (P - Z2).square().sum(dim=0)
    else:
        losses = -(P * Z2).sum(dim=0) / ((P.norm(dim=0) + guard) * (Z2.norm(dim=0) + guard))
    if setting.arm == "iso":
        (at_prediction,) = torch.autograd.grad(losses.mean(), P)
        return -torch.autograd.grad(Z1, W, at_prediction)[0]
    return -torch.autograd.grad(losses.mean(), W)[0]
