"""RDM's rank difference: the target has the higher rank wherever a method works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Results
from fullrank.labs.rank_difference.branches import branches
from fullrank.labs.rank_difference.figures import findings

METHODS = {"SimSiam": "simsiam", "BYOL": "byol", "DINO": "dino", "SwAV": "swav"}
"""Arm to recipe: what holds without a filter."""

COLLAPSING: Mapping[str, Settings] = {
    "SimSiam, no stop-gradient": {"stop_gradient": False},
    "SimSiam, no predictor": {"predictor": "none"},
}
"""Arm to options of SimSiam: what is known to collapse."""

FILTERS: Mapping[str, Settings] = {
    f"{place}, {name}": {"pred_location": place, "sigma": sigma, "pred_type": kind}
    for place, name, sigma, kind in (
        ("online", "S", 1.0, "poly"),
        ("online", "S²", 2.0, "poly"),
        ("online", "log S", 1.0, "log"),
        ("online", "log (S + 1)", 1.0, "log_1"),
        ("target", "S^−0.3", -0.3, "poly"),
        ("target", "S^−0.5", -0.5, "poly"),
        ("target", "S^−0.7", -0.7, "poly"),
        ("target", "1 / S", -1.0, "poly"),
    )
}
"""The filters of RDM's ImageNet script, and its default."""


@LABS.register("rank-difference")
class RankDifference(Lab):
    """Ranks of both branches along training, and the spectral filter between them."""

    title = "Does the target branch have the higher rank?"
    paper = "Rank Differential Mechanism (Zhuo et al., ICLR 2023, 2303.02387)"
    says = (
        "What keeps methods without negatives from collapse is that their asymmetries – a predictor, "
        "centring, balanced assignments – make the target's effective rank exceed the online branch's, "
        "so that following it raises the rank. The predictor is a low-pass filter; a fixed filter of "
        "the spectrum, low pass online or high pass on the target, does in its place."
    )
    presets: ClassVar = read_presets(__file__)
    parts: ClassVar = {
        "methods": "SimSiam, BYOL, DINO and SwAV beside SimSiam without stop-gradient or predictor",
        "filters": "RDM-SimSiam and RDM-BYOL over type, place and power of the filter",
    }

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each arm, then both branches measured."""
        arms: dict[str, tuple[str, Settings]]
        if part == "methods":
            arms = {arm: (recipe, {}) for arm, recipe in METHODS.items()}
            arms |= {arm: ("simsiam", options) for arm, options in COLLAPSING.items()}
        else:
            arms = {
                f"{name}: {which}": (own["recipe"], FILTERS[which])
                for name, own in preset["filters"].items()
                for which in own["only"]
            }
        for arm, (recipe, options) in arms.items():
            base = {"recipe": preset["recipe"].format(recipe), **preset["run"], "data": preset["data"]}
            yield Job(arm, seed, {**base, "options": dict(options)}, branches, part=part)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """The difference where methods work and where they do not, and the filters."""
        return findings(results, list(COLLAPSING))
