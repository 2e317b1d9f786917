"""The rank difference of RDM: the target branch has the higher effective rank wherever a method works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs.rank_difference import figures as figures
from fullrank.labs.rank_difference.branches import branches

__all__ = ["COLLAPSING", "FILTERS", "METHODS", "RankDifference"]

METHODS: Mapping[str, tuple[str, Settings]] = {
    "SimSiam": ("simsiam", {}),
    "BYOL": ("byol", {}),
    "DINO": ("dino", {}),
    "SwAV": ("swav", {}),
}
"""Arm to recipe and options: what holds without a filter."""

COLLAPSING: Mapping[str, tuple[str, Settings]] = {
    "SimSiam, no stop-gradient": ("simsiam", {"stop_gradient": False}),
    "SimSiam, no predictor": ("simsiam", {"predictor": "none"}),
}
"""The same of what is known to collapse."""


def _filter(location: str, sigma: float = 1.0, kind: str = "poly") -> dict[str, Any]:
    return {"pred_location": location, "sigma": sigma, "pred_type": kind}


FILTERS: Mapping[str, Settings] = {
    "online, S": _filter("online", 1.0),
    "online, S²": _filter("online", 2.0),
    "online, log S": _filter("online", kind="log"),
    "online, log (S + 1)": _filter("online", kind="log_1"),
    "target, S^−0.3": _filter("target", -0.3),
    "target, S^−0.5": _filter("target", -0.5),
    "target, S^−0.7": _filter("target", -0.7),
    "target, 1 / S": _filter("target", -1.0),
}
"""The filters of RDM's ImageNet script, and its default."""

RUN = {"backbone": "resnet8-w16", "limit": 2000, "epochs": 10, "knn_every": 5, "probe": "off"}
LAPTOP = {
    "data": "shapes",
    "recipe": "shapes/{}",
    "run": RUN,
    "filters": {
        "RDM-SimSiam": {
            "recipe": "rdm_simsiam",
            "only": ["online, S", "online, log (S + 1)", "target, S^−0.5", "target, 1 / S"],
        },
        "RDM-BYOL": {"recipe": "rdm_byol", "only": ["online, S", "target, S^−0.5"]},
    },
}
PAPER = {
    "data": "cifar10",
    "recipe": "cifar10/{}",
    "run": {"epochs": 400, "knn_every": 20, "watch_every": 5},
    "filters": {
        "RDM-SimSiam": {"recipe": "rdm_simsiam", "only": list(FILTERS)},
        "RDM-BYOL": {"recipe": "rdm_byol", "only": list(FILTERS)},
    },
}
TINY = {
    "data": "shapes",
    "recipe": "shapes/{}",
    "run": {**RUN, "limit": 128, "batch_size": 64, "epochs": 2},
    "filters": {"RDM-SimSiam": {"recipe": "rdm_simsiam", "only": ["target, 1 / S"]}},
}


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
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}
    parts: ClassVar = {
        "methods": "SimSiam, BYOL, DINO and SwAV beside SimSiam without stop-gradient or predictor",
        "filters": "RDM-SimSiam and RDM-BYOL over type, place and power of the filter",
    }

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each arm, then both branches measured."""
        if part == "methods":
            arms = {**METHODS, **COLLAPSING}
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
        return figures.findings(results, list(COLLAPSING))
