"""Implicit variance regularisation: how fast eigenmodes converge, in toy networks and in deep ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from fullrank.labs._common.claims import Claim
from fullrank.labs._common.findings import Chapter, Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs.eigenmodes import deep as deep
from fullrank.labs.eigenmodes import matrix as matrix
from fullrank.labs.eigenmodes import toys as toys

__all__ = ["Eigenmodes"]

NARROW: dict[str, Any] = {
    "backbone": "resnet8-w16", "views": "shapes", "limit": 2000, "epochs": 10, "batch_size": 128,
    "warmup_epochs": 1, "probe": "off",
}  # fmt: skip
SMALL = {"proj_hidden_dim": 256, "proj_output_dim": 32}
LAPTOP: dict[str, Any] = {
    "parts": ["toys", "deep", "linear"],
    "data": "shapes",
    "toys": {"preset": "laptop"},
    "deep": {
        "run": {**NARROW, "optimizer": "adam", "lr": 0.002, "weight_decay": 1e-4},
        "options": {**SMALL, "tau_base": 0.99},
        "byol": {"pred_hidden_dim": 256},
        "closed_form": {"correlation_momentum": 0.9},
        "diagnostics_every": 3,
    },
    "matrix": {
        "recipe": "cifar10/{}",
        "run": {**NARROW, "stem": "auto", "precision": "fp32", "knn_every": 5},
        "options": SMALL,
        "byol": {"pred_hidden_dim": 256},
    },
}
PAPER = {
    "parts": ["toys", "deep", "linear", "no-ema", "weight-decay", "matrix"],
    "data": "cifar10",
    "toys": {"preset": "paper"},
    "deep": {
        "recipe": "cifar10/{}",
        "run": {"knn_every": 10},
        "options": {},
        "byol": {},
        "closed_form": {},
        "diagnostics_every": 20,
    },
    "matrix": {"recipe": "cifar10/{}", "run": {"knn_every": 50}, "options": {}, "byol": {}},
}
TINY_RUN = {"limit": 128, "batch_size": 64, "epochs": 2, "warmup_epochs": 0}
TINY = {
    **LAPTOP,
    "toys": {"preset": "laptop", "steps": 60},
    "deep": {**LAPTOP["deep"], "run": {**LAPTOP["deep"]["run"], **TINY_RUN}, "diagnostics_every": 1},
    "matrix": {**LAPTOP["matrix"], "run": {**LAPTOP["matrix"]["run"], **TINY_RUN}},
}


@LABS.register("eigenmodes")
class Eigenmodes(Lab):
    """Eigenvalues along training with and without the factor that makes small modes slow."""

    title = "At which rate do eigenmodes converge?"
    paper = (
        "Implicit Variance Regularization in Non-Contrastive SSL (Halvagal et al., NeurIPS 2023, 2212.04858)"
    )
    says = (
        "Predictor and stop-gradient regularise the variance of every eigenmode, but the predictor's "
        "eigenvalues act as learning rates: small modes are slow under DirectPred. IsoLoss takes the factor "
        "away, so that all modes converge at one rate; it learns faster early on and needs no moving average."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}
    parts: ClassVar = {
        "toys": "toy networks in eight settings, linear and ReLU (Figures 2, 5 and 6)",
        "deep": "spectra along training of DirectPred, IsoLoss and BYOL, either distance (Figure 3)",
        "linear": "alignment of BYOL's linear predictor with the correlation (Figure 4)",
        "no-ema": "IsoLoss with and without a moving average (Figure 7)",
        "weight-decay": "DirectPred and IsoLoss over three weight decays (Figure 8)",
        "matrix": "the ten runs of the reference's script, as published and matched",
    }

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """The cells of one part and one seed."""
        if part == "toys":
            return toys.cells(preset, part, seed)
        arms = matrix.arms(preset["matrix"]) if part == "matrix" else deep.arms(preset["deep"], part)
        return [Job(arm, seed, {**train, "data": preset["data"]}, part=part) for arm, train in arms]

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims, figures and words, part by part."""
        claims: list[Claim] = []
        chapters: list[Chapter] = []
        told: list[str] = []
        for part in self.parts:
            own = results.of(part)
            if not len(own):
                continue
            if part in ("toys", "matrix"):
                room: Any = toys if part == "toys" else matrix
                claims, chapters = claims + room.claims(own), chapters + room.chapters(own)
                told.append(room.words(own))
            else:
                claims, chapters = claims + deep.claims(part, own), chapters + deep.chapters(part, own)
                told.append(deep.words(part, own))
        notes = [
            "Toys follow the reference's updates with its approximations; its first seed, 2, is seed 0 here.",
            "The panels' spectra are of centred projections; the paper's C is not centred. One an epoch "
            "is coarse where modes go half of their way within the first, as on the laptop.",
        ]
        return Findings(chapters, claims, " ".join(told), notes)
