"""Toy networks of implicit variance regularisation (Figures 2, 5 and 6).

Halvagal, Laborieux and Zenke 2023 (2212.04858). In expectation, without noise and activation, the eigenvalues
of `W W^T` follow, for the Euclidean distance, `lambda' = 2 lambda^(1 + alpha) (1 - lambda^alpha)` with a
predictor and a stop-gradient, and `lambda' = 2 lambda (1 - lambda^alpha)` under IsoLoss: the predictor's
eigenvalue is a learning rate of each mode, which IsoLoss takes away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.labs.eigenmodes.toy_steps import (
    GUARD,
    SETTINGS,
    Activation,
    Setting,
    closed_form_predictor,
    exact_descent,
    predictor_from_samples,
    reference_descent,
)

Preset: TypeAlias = Literal["laptop", "paper"]
Values: TypeAlias = npt.NDArray[np.float64]

SAMPLES: dict[Preset, int] = {"paper": 50_000, "laptop": 2_000}  # the expected step is the same for any
STEPS: dict[Preset, int] = {"paper": 1_500, "laptop": 1_500}
STEPS_WITHOUT_PREDICTOR: dict[Preset, int] = {"paper": 100_000, "laptop": 6_000}


@dataclass(frozen=True)
class Toy:
    """A toy network and its training: each step x1 ~ N(0, I) and x2 = x1 + noise.

    Attributes:
        samples: inputs drawn for each step. Fewer than the published 50,000 leave the expected step as it is
            and make single steps noisier.
        noise: standard deviation of what view 2 adds.
        alpha: exponent of the predictor's eigenvalues.
        predictor: from the weights in closed form, or from the outputs of as many samples of its own.
        gradient: `reference`, the published notebook's, or `exact`.
        guard: of norms, in the reference's cosine settings.
        seed: of initial weights and samples.
        record_every: updates between records.

    Raises:
        UsageError: a count that is not positive, or a negative coefficient.
    """

    setting: Setting
    in_dim: int = 15
    out_dim: int = 10
    lr: float = 0.01
    steps: int = 1_500
    samples: int = 50_000
    noise: float = 0.1
    alpha: float = 1.0
    weight_decay: float = 0.0
    predictor: Literal["closed-form", "samples"] = "closed-form"
    gradient: Literal["reference", "exact"] = "reference"
    guard: float = GUARD
    seed: int = 2
    record_every: int = 1

    def __post_init__(self) -> None:
        for name in ("in_dim", "out_dim", "steps", "samples", "record_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of a toy network must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "noise", "alpha", "weight_decay", "guard", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} of a toy network must not be negative, not {getattr(self, name)}")

    def initial_weights(self) -> Tensor:
        """Standard normal over 4, from the seed: float32 [out_dim, in_dim]."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.out_dim, self.in_dim, generator=generator) / 4


@dataclass(frozen=True)
class Trajectory:
    """What a toy network went through.

    Attributes:
        toy: the network.
        steps: int64 [r], updates before each record; the first is 0.
        eigenvalues: [r, out_dim] of W W^T, largest first.
        outputs: [r, k, out_dim], of the probe inputs; k is 0 without any.
        diverged: whether the weights left the range of their precision; nothing is recorded after that.
    """

    toy: Toy
    steps: npt.NDArray[np.int64]
    eigenvalues: Values
    outputs: Values
    diverged: bool


def simulate(
    toy: Toy,
    weights: Tensor | None = None,
    probes: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Trajectory:
    """Train a toy network from `weights`, [out_dim, in_dim], or its own initial ones.

    `probes` are inputs whose outputs are recorded, [in_dim, k]. Other devices draw other samples.

    Example:
        >>> toy = Toy(Setting("iso", "euclidean"), in_dim=6, out_dim=2, lr=0.1, steps=60, samples=500)
        >>> simulate(toy).eigenvalues[-1].round(1).tolist()
        [1.0, 1.0]
    """
    W = (toy.initial_weights() if weights is None else weights).to(device, dtype, copy=True)
    if W.shape != (toy.out_dim, toy.in_dim):
        raise UsageError(
            f"weights of shape {list(W.shape)} do not fit {toy.in_dim} inputs and {toy.out_dim} outputs"
        )
    inputs = torch.empty(toy.in_dim, 0) if probes is None else probes
    inputs = inputs.to(device, dtype)
    generator = torch.Generator(device).manual_seed(toy.seed + 1)  # not the draws of the initial weights
    steps, eigenvalues, outputs = list[int](), list[Tensor](), list[Tensor]()

    def record(step: int) -> None:
        steps.append(step)
        exact = W.double()  # in single precision small eigenvalues beside large ones turn negative
        eigenvalues.append(torch.linalg.eigvalsh(exact @ exact.T).flip(0).clamp(min=0.0))
        outputs.append(toy.setting.phi(W @ inputs).T)

    record(0)
    diverged = False
    for step in range(1, toy.steps + 1):
        W = _updated(W, toy, generator)
        if not bool(torch.isfinite(W @ W.T).all()):
            diverged = True
            break
        if step % toy.record_every == 0 or step == toy.steps:
            record(step)
    return Trajectory(
        toy,
        np.array(steps),
        torch.stack(eigenvalues).cpu().numpy(),
        torch.stack(outputs).double().cpu().numpy(),
        diverged,
    )


def _updated(W: Tensor, toy: Toy, generator: torch.Generator) -> Tensor:
    def normal() -> Tensor:
        return torch.randn(toy.in_dim, toy.samples, generator=generator, dtype=W.dtype, device=W.device)

    X1 = normal()
    X2 = X1 + toy.noise * normal()
    if toy.predictor == "closed-form":
        Wp = closed_form_predictor(W, toy.alpha)
    else:
        X = normal()
        Z1, Z2 = (toy.setting.phi(W @ (X + toy.noise * normal())) for _ in range(2))
        Wp = predictor_from_samples(Z1, Z2, toy.alpha)
    if toy.gradient == "exact":
        direction = exact_descent(toy.setting, W, X1, X2, Wp, toy.guard)
    else:
        direction = reference_descent(toy.setting, W, X1, X2, Wp, toy.guard)
    return W + torch.nan_to_num(toy.lr * (direction - toy.weight_decay * W))


def largest_probes(weights: Tensor, count: int = 20, drawn: int = 5_000, seed: int = 0) -> Tensor:
    """Largest by norm of `drawn` standard normal inputs, float32 [in, count].

    Example:
        >>> largest_probes(torch.ones(2, 6)).shape
        torch.Size([6, 20])
    """
    X = torch.randn(weights.shape[1], drawn, generator=torch.Generator().manual_seed(seed))
    return X[:, X.norm(dim=0).topk(count).indices]


def figure_panels(activation: Activation = "identity", preset: Preset = "laptop", seed: int = 2) -> list[Toy]:
    """The eight networks of Figure 2 (identity) or 6 (relu): 15 inputs, 10 outputs.

    The laptop's draw 2,000 samples a step instead of 50,000, and take 6,000 steps instead of 100,000 where
    there is no predictor; all else is as published. The figures' trajectories of outputs are those of two
    neurons: `replace(toy, in_dim=6, out_dim=2)` with `largest_probes`.
    """
    toys = []
    for setting in SETTINGS:
        slow = setting.distance == "euclidean" and setting.arm != "nopred"
        steps = STEPS_WITHOUT_PREDICTOR if setting.arm == "nopred" else STEPS
        toys.append(
            Toy(
                replace(setting, activation=activation),
                lr=0.01 if slow else 0.1,
                steps=steps[preset],
                samples=SAMPLES[preset],
                seed=seed,
                record_every=max(1, steps[preset] // 1_500),
            )
        )
    return toys


def figure_5(preset: Preset = "laptop", seed: int = 2) -> Iterator[tuple[Toy, Tensor]]:
    """Figure 5's networks and weights [2, 6]: both distances, from W, 2 W, 2 fresh W."""
    for distance in ("euclidean", "cosine"):
        toy = Toy(
            Setting("base", distance), 6, 2, lr=0.01, steps=STEPS[preset], samples=SAMPLES[preset], seed=seed
        )
        W = toy.initial_weights()
        yield from (
            (toy, weights) for weights in (W, 2 * W, 2 * replace(toy, seed=seed + 1).initial_weights())
        )


@dataclass(frozen=True)
class Convergence:
    """How fast the modes of one network converge, and how differently.

    Attributes:
        steps: [out_dim], updates until each mode, largest first, has gone `share` of its way; NaN for a mode
            that began where it ends.
        unfinished: modes that had not by the end of the run, counted as if they had there.
        spread: standard deviation over modes of ln(steps): 0 where all converge at one rate. A lower bound
            where some are unfinished.
    """

    steps: Values
    unfinished: int
    spread: float


def convergence(trajectory: Trajectory, share: float = 0.5) -> Convergence:
    """Evenness of mode convergence, once `share` of the initial distance is gone.

    A mode ends at 1 (Euclidean), or where all are equal (cosine, which leaves the scale free), so its
    distance is `|lambda - 1|`, or `|lambda / mean(lambda) - 1|`.

    Raises:
        UsageError: the share is not in (0, 1), or no mode had any way to go.

    Example:
        >>> base, iso = (
        ...     convergence(simulate(Toy(Setting(arm, "euclidean"), samples=500, lr=0.05, steps=400)))
        ...     for arm in ("base", "iso")
        ... )
        >>> base.spread > 1.5 * iso.spread
        True
    """
    if not 0 < share < 1:
        raise UsageError(f"the share of the way lies between 0 and 1, not {share}")
    ends = 1.0
    if trajectory.toy.setting.distance == "cosine":
        ends = trajectory.eigenvalues.mean(axis=1, keepdims=True)
    distances = np.abs(trajectory.eigenvalues / ends - 1)
    there = distances <= (1 - share) * distances[0]
    arrived = trajectory.steps[np.argmax(there, axis=0)].astype(np.float64)
    finished = there.any(axis=0)
    arrived[~finished] = trajectory.steps[-1]
    moving = distances[0] > 0.05  # a mode that starts at its end has no way to measure
    arrived[~moving] = np.nan
    if not moving.any():
        raise UsageError("every mode began where it ends: there is no convergence to measure")
    steps = arrived[moving]
    return Convergence(arrived, int((moving & ~finished).sum()), float(np.log(steps).std()))
