"""What of the toy networks answers to the recorded steps, predictors and trajectories."""

from __future__ import annotations

from typing import get_args

import torch

from fullrank.labs.eigenmodes.toy_networks import Toy, simulate
from fullrank.labs.eigenmodes.toy_steps import (
    SETTINGS,
    Activation,
    Setting,
    closed_form_predictor,
    exact_descent,
    predictor_from_samples,
    reference_descent,
)
from golden.harness import Case, comparer

ARMS = {"base": "simsiam", "nosg": "simsiam_nosg", "nopred": "simsiam_nopred", "iso": "isoloss"}
DISTANCES = {"euclidean": "euc", "cosine": "cos"}
SAMPLES = 5_000  # of 50,000: the recorded scatter times 3, still well inside the tolerance


def settings() -> list[tuple[str, Setting]]:
    return [
        (f"{act}/{DISTANCES[s.distance]}_{ARMS[s.arm]}", Setting(s.arm, s.distance, act))
        for act in get_args(Activation)
        for s in SETTINGS
    ]


@comparer("11a_toy_step")
def steps(case: Case) -> None:
    W, X1, noise = (case.tensor(f"in.{name}") for name in ("W", "X1", "noise"))
    X2, lr = X1 + case.settings["sigma"] * noise, case.settings["eta"]
    Wp = closed_form_predictor(W, case.settings["alpha"])
    case.check("out.Wp_closed_form", Wp)
    case.check("out.wwt_eigenvalues", torch.linalg.eigvalsh(W @ W.T))
    for name, setting in settings():
        if case.dtype == torch.float32 and setting.distance == "cosine":
            continue  # samples of hardly any output: rounding decides its largest terms
        step = torch.nan_to_num(lr * reference_descent(setting, W, X1, X2, Wp))
        case.check(f"out.{name}/deltaW", step)
        if f"alt.{name}/autograd_step" in case.arrays:
            exact = lr * exact_descent(setting, W, X1, X2, Wp)
            case.check(f"alt.{name}/autograd_step", exact)


@comparer("11b_toy_predictor_from_samples")
def predictor(case: Case) -> None:
    W, X = case.tensor("in.W"), case.tensor("in.X")
    noise1, noise2 = case.tensor("in.noise_for_X1"), case.tensor("in.noise_for_X2")
    for act in get_args(Activation):
        setting = Setting("base", "euclidean", act)
        Z1, Z2 = (setting.phi(W @ (X + case.settings["sigma"] * noise)) for noise in (noise1, noise2))
        case.check(f"out.{act}/Wp", predictor_from_samples(Z1, Z2, case.settings["alpha"]))


@comparer("11c_toy_trajectory")
def trajectories(case: Case) -> None:
    for name, setting in settings():
        if case.tolerance(f"out.{name}/mean") is None:
            continue  # single huge steps decide them, in the reference as well
        toy = Toy(
            setting,
            in_dim=case.settings["in_dim"],
            out_dim=case.settings["out_dim"],
            lr=case.settings["lr"],
            steps=case.settings["steps"],
            samples=SAMPLES,
            noise=case.settings["sigma"],
            alpha=case.settings["alpha"],
        )
        trajectory = simulate(toy, case.tensor("in.W0"), dtype=case.dtype)
        rows = case.arrays["in.steps"]
        case.check(f"out.{name}/mean", trajectory.eigenvalues[rows, ::-1])
