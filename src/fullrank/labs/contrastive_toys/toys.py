"""Two causes of dimensional collapse in linear networks (Jing et al. 2110.09348).

Strong augmentation: where the noise of the views outweighs the data, one layer all but gives the direction
up. At amplitude 1.5 its variance falls to a fourteenth of the others' within 2,000 steps and stays there; a
lower rate or a larger batch changes nothing.
Implicit regularisation: in several layers small singular values grow more slowly than large ones, so that a
deep network ends with few directions, however weak the augmentation. The second needs layers whose singular
values decay from the start; from PyTorch's usual uniform weights two layers stay flat but for a direction.

The set-up is that of their code; the outcomes to expect were measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fullrank.errors import UsageError

Matrix: TypeAlias = npt.NDArray[np.floating[Any]]
Values: TypeAlias = npt.NDArray[np.float64]

FRESH = 1_000  # points that spectra are measured on
LIVE_MARGIN = 1.5  # in ln sigma: a direction further below the largest is not in use


@dataclass(frozen=True)
class ContrastiveToy:
    """A linear network trained with InfoNCE on Gaussian points; SGD, no weight decay.

    Attributes:
        layers: bias-free layers, each dim x dim.
        noise: amplitude of the standard normal noise that each view adds.
        noisy_dims: coordinates that get it, the last ones; the others are the same in both views.
        init: uniform in (-1/4, 1/4) (more generally 1/sqrt(dim)), or `decaying`: random singular vectors and
            singular values `exp(-decay * i)`, i = 0 .. dim-1.
        subvector: the loss sees only that many of the outputs, the first (DirectCLR); 0: all.
        temperature: of InfoNCE on the outputs as they are, not normalised.
        seed: of points, weights, batches and noise.
        record_every: updates between spectra.

    Raises:
        UsageError: a number out of its range.
    """

    layers: int = 1
    lr: float = 1e-3
    noise: float = 1e-3
    noisy_dims: int = 16
    init: Literal["uniform", "decaying"] = "uniform"
    decay: float = 0.35
    subvector: int = 0
    dim: int = 16
    points: int = 10_000
    batch_size: int = 128
    steps: int = 10_000
    temperature: float = 0.1
    seed: int = 0
    record_every: int = 500

    def __post_init__(self) -> None:
        for name in ("layers", "dim", "points", "batch_size", "steps", "record_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of a contrastive toy must be at least 1, not {getattr(self, name)}")
        for name in ("noisy_dims", "subvector"):
            if not 0 <= getattr(self, name) <= self.dim:
                raise UsageError(
                    f"{name} of a contrastive toy lies in 0 to {self.dim}, not {getattr(self, name)}"
                )
        if self.temperature <= 0 or self.lr < 0 or self.noise < 0:
            raise UsageError("a contrastive toy needs temperature > 0, lr >= 0 and noise >= 0")


@dataclass(frozen=True)
class ContrastiveTrajectory:
    """What a contrastive toy went through.

    Attributes:
        steps: int64 [r], updates before each record; the first is 0.
        log_spectra: [r, dim], ln of the singular values of the covariance of the outputs of fresh points,
            largest first.
    """

    steps: npt.NDArray[np.int64]
    log_spectra: Values

    @property
    def live(self) -> npt.NDArray[np.int64]:
        """int64 [r]: directions in use at each record."""
        return np.array([live_dimensions(spectrum) for spectrum in self.log_spectra])


def strong_augmentation(noise: float, seed: int = 0) -> ContrastiveToy:
    """Case 1: one layer, noise on 8 last dims; at 1.5 they all but die, at 0.01 none."""
    return ContrastiveToy(layers=1, lr=1e-3, noise=noise, noisy_dims=8, seed=seed)


def implicit_regularisation(
    layers: int, init: Literal["uniform", "decaying"] = "decaying", seed: int = 0
) -> ContrastiveToy:
    """Case 2: little noise; one layer keeps all directions, 2-3 decaying ones do not."""
    return ContrastiveToy(layers=layers, lr=1e-2, noise=1e-3, init=init, seed=seed)


def live_dimensions(log_spectrum: Values, margin: float = LIVE_MARGIN) -> int:
    """How many ln singular values are within `margin` of the largest.

    Example:
        >>> live_dimensions(np.array([-1.5, -2.0, -3.1]))
        2
    """
    return int((log_spectrum > log_spectrum.max() - margin).sum())


def train_contrastive(toy: ContrastiveToy) -> ContrastiveTrajectory:
    """Train a contrastive toy; 10,000 steps take about two seconds.

    Example:
        >>> trained = train_contrastive(ContrastiveToy(lr=1e-2, noise=2.0, noisy_dims=8, steps=1_000))
        >>> trained.live[[0, -1]].tolist()
        [9, 8]
    """
    rng = np.random.default_rng(toy.seed)
    points = rng.standard_normal((toy.points, toy.dim), dtype=np.float32)
    weights = [_initial(toy, rng) for _ in range(toy.layers)]
    fresh = np.random.default_rng([toy.seed, 1]).standard_normal((FRESH, toy.dim))
    amplitude = np.zeros(toy.dim, np.float32)
    amplitude[toy.dim - toy.noisy_dims :] = toy.noise
    steps, spectra = [0], [_log_spectrum(weights, fresh)]
    for step in range(1, toy.steps + 1):
        x = points[rng.integers(toy.points, size=toy.batch_size)]
        x1, x2 = (x + amplitude * rng.standard_normal(x.shape, dtype=np.float32) for _ in range(2))
        gradients = _gradients(weights, x1, x2, toy)
        weights = [W - toy.lr * g for W, g in zip(weights, gradients, strict=True)]
        if step % toy.record_every == 0 or step == toy.steps:
            steps.append(step)
            spectra.append(_log_spectrum(weights, fresh))
    return ContrastiveTrajectory(np.array(steps), np.array(spectra))


def _initial(toy: ContrastiveToy, rng: np.random.Generator) -> Matrix:
    if toy.init == "uniform":
        return np.asarray(rng.uniform(-1, 1, (toy.dim, toy.dim)) / toy.dim**0.5, np.float32)
    U, V = (np.linalg.qr(rng.standard_normal((toy.dim, toy.dim)))[0] for _ in range(2))
    return np.asarray((U * np.exp(-toy.decay * np.arange(toy.dim))) @ V.T, np.float32)


def _gradients(weights: list[Matrix], x1: Matrix, x2: Matrix, toy: ContrastiveToy) -> list[Matrix]:
    """InfoNCE gradients of every layer, by the chain rule: W_L ... W_1 =: M, z = M x."""
    below: list[Matrix] = [np.eye(toy.dim, dtype=np.float32)]  # what each layer sees, as a matrix
    for W in weights:
        below.append(W @ below[-1])
    seen = toy.subvector or toy.dim
    M = below.pop()[:seen]
    z1, z2 = x1 @ M.T, x2 @ M.T
    at_logits = _softmax(z1 @ z2.T / np.float32(toy.temperature))
    at_logits[np.diag_indices(len(x1))] -= 1
    at_logits /= np.float32(len(x1) * toy.temperature)
    at_M: Matrix = np.zeros((toy.dim, toy.dim), np.float32)
    at_M[:seen] = (at_logits @ z2).T @ x1 + (at_logits.T @ z1).T @ x2
    gradients: list[Matrix] = []
    for W, under in zip(reversed(weights), reversed(below), strict=True):
        gradients.append(at_M @ under.T)
        at_M = W.T @ at_M
    return gradients[::-1]


def _softmax(logits: Matrix) -> Matrix:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _log_spectrum(weights: list[Matrix], fresh: Values) -> Values:
    z = fresh
    for W in weights:
        z = z @ W.T
    # singular values of centred points in double precision: of a covariance, those below 1e-16 would be noise
    sigma = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    return np.asarray(np.log(np.maximum(sigma**2 / (len(z) - 1), np.finfo(np.float64).tiny)))
