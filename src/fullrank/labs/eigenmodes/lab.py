"""Implicit variance regularisation: convergence of eigenmodes, toy and deep."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Results, joined
from fullrank.labs.eigenmodes import deep, matrix, toys


@LABS.register("eigenmodes")
class Eigenmodes(Lab):
    """Eigenvalues along training, with and without the factor that slows small modes."""

    title = "At which rate do eigenmodes converge?"
    paper = (
        "Implicit Variance Regularization in Non-Contrastive SSL (Halvagal et al., NeurIPS 2023, 2212.04858)"
    )
    says = (
        "Predictor and stop-gradient regularise the variance of every eigenmode, but the predictor's "
        "eigenvalues act as learning rates: small modes are slow under DirectPred. IsoLoss takes the factor "
        "away, so that all modes converge at one rate; it learns faster early on and needs no moving average."
    )
    presets: ClassVar = read_presets(__file__)
    parts: ClassVar = {
        "toys": "toy networks in eight settings, linear and ReLU (Figures 2, 5 and 6)",
        "deep": "spectra along training of DirectPred, IsoLoss and BYOL, either distance (Figure 3)",
        "linear": "alignment of BYOL's linear predictor with the correlation (Figure 4)",
        "no-ema": "IsoLoss with and without a moving average (Figure 7)",
        "weight-decay": "DirectPred and IsoLoss over three weight decays (Figure 8)",
        "matrix": "the ten runs of the reference's script, as published and matched",
    }

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """Jobs of one part and one seed."""
        if part == "toys":
            return toys.jobs(preset, part, seed)
        arms = matrix.arms(preset["matrix"]) if part == "matrix" else deep.arms(preset["deep"], part)
        return [Job(arm, seed, {**train, "data": preset["data"]}, part=part) for arm, train in arms]

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims, figures and sentences, part by part."""
        notes = [
            "Toys follow the reference's updates with its approximations; its first seed, 2, is seed 0 here.",
            "The panels' spectra are of centred projections; the paper's C is not centred. One an epoch "
            "is coarse where modes go half of their way within the first, as on the laptop.",
        ]
        rooms = {"toys": toys.findings, "matrix": matrix.findings}
        found = results.parts(self.parts)
        return joined((rooms.get(part, partial(deep.findings, part))(own) for part, own in found), notes)
