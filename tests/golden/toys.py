"""What of the toy networks answers to the recorded steps, predictors and trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.labs.eigenmodes.toy_networks import Toy, simulate
from fullrank.labs.eigenmodes.toy_steps import (
    Setting,
    closed_form_predictor,
    exact_descent,
    predictor_from_samples,
    reference_descent,
)
from golden.case import Case, comparer
from golden.invariances import found_in

ARMS = {"simsiam": "base", "simsiam_nosg": "nosg", "simsiam_nopred": "nopred", "isoloss": "iso"}
DISTANCES = {"euc": "euclidean", "cos": "cosine"}
PATTERN = rf"(identity|relu)/({'|'.join(DISTANCES)})_({'|'.join(ARMS)})/"
DRAWN, PUBLISHED = 5_000, 50_000  # samples a step of ours and of the reference, where none are recorded


def settings(case: Case, last: str) -> list[tuple[str, Setting]]:
    """Settings of which an array is recorded, with their names: identity/euc_simsiam, ..."""
    named = {}
    for role in ("out.", "alt."):
        for name, found in found_in(case, role, PATTERN + f"(?:{last})"):
            arm, distance = ARMS[found[3]], DISTANCES[found[2]]
            named[name.rpartition("/")[0]] = Setting(arm, distance, found[1])  # type: ignore[arg-type]
    return sorted(named.items())


def expect_sizes(case: Case, W: Tensor, X: Tensor | None = None) -> None:
    for key, size in (("out_dim", W.shape[0]), ("in_dim", W.shape[1])):
        case.settings.expect(key, size)
    if X is not None:
        case.settings.expect("n", X.shape[1])


@comparer("11a_toy_step")
def steps(case: Case) -> None:
    W, X1, noise = (case.tensor(f"in.{name}") for name in ("W", "X1", "noise"))
    given = case.settings
    expect_sizes(case, W, X1)
    X2, lr, decay = X1 + given["sigma"] * noise, given["eta"], given.get("weight_decay", 0.0)
    Wp = closed_form_predictor(W, given["alpha"])
    case.check("out.Wp_closed_form", Wp)
    case.check("out.wwt_eigenvalues", torch.linalg.eigvalsh(W @ W.T))
    for name, setting in settings(case, "deltaW|autograd_step"):
        direction = reference_descent(setting, W, X1, X2, Wp)
        case.check(f"out.{name}/deltaW", torch.nan_to_num(lr * (direction - decay * W)))
        if f"alt.{name}/autograd_step" in case.arrays:
            exact = exact_descent(setting, W, X1, X2, Wp)
            case.check(f"alt.{name}/autograd_step", lr * (exact - decay * W))


@comparer("11b_toy_predictor_from_samples")
def predictor(case: Case) -> None:
    W, X = case.tensor("in.W"), case.tensor("in.X")
    expect_sizes(case, W, X)
    noise1, noise2 = case.tensor("in.noise_for_X1"), case.tensor("in.noise_for_X2")
    for name, found in found_in(case, "out.", "(identity|relu)/Wp"):
        setting = Setting("base", "euclidean", found[1])  # type: ignore[arg-type]
        Z1, Z2 = (setting.phi(W @ (X + case.settings["sigma"] * noise)) for noise in (noise1, noise2))
        case.check(f"out.{name}", predictor_from_samples(Z1, Z2, case.settings["alpha"]))


@comparer("11c_toy_trajectory")
def trajectories(case: Case) -> None:
    given, W0 = case.settings, case.tensor("in.W0")
    expect_sizes(case, W0)
    rows = case.tensor("in.steps")
    options: dict[str, Any] = {"noise": given["sigma"], "samples": given.get("n", DRAWN)}
    for key in ("alpha", "lr", "steps", "weight_decay"):
        if key in given:
            options[key] = given[key]
    given.get("sampling_seeds")  # of the reference's mean, which is of one seed here
    scatter = 6 * (1.0 if "n" in given else (PUBLISHED / DRAWN) ** 0.5)
    for name, setting in settings(case, "mean"):
        if case.tolerance(f"out.{name}/mean") is None:
            case.check(f"out.{name}/mean", [])  # noted; single huge steps decide it, in the reference too
            continue
        toy = Toy(setting, in_dim=W0.shape[1], out_dim=W0.shape[0], **options)
        seen = simulate(toy, W0, dtype=case.dtype).eigenvalues[:, ::-1]
        seen = np.pad(seen, ((0, toy.steps + 1 - len(seen)), (0, 0)), constant_values=np.nan)  # it diverged
        std = np.nan_to_num(case.arrays.get(f"alt.{name}/std", 0.0))
        case.check(f"out.{name}/mean", seen[rows], slack=scatter * std)
