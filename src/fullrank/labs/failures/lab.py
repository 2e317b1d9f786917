"""A gallery of collapses: each way to collapse induced, what the monitor called it, and when k-NN noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs.failures.analysis import findings

__all__ = ["GALLERY", "Exhibit", "Failures"]


@dataclass(frozen=True)
class Exhibit:
    """One arm of the gallery.

    Attributes:
        recipe: on the generated shapes, that it starts from.
        change: what is broken, in words; empty for a run that is to be healthy.
        kinds: verdicts that would name the failure right; empty where it is no collapse.
        settings: what breaks it.
    """

    recipe: str
    change: str = ""
    kinds: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def _with(**options: Any) -> dict[str, Any]:
    return {"options": options}


GALLERY: Mapping[str, Exhibit] = {
    "SimSiam": Exhibit("simsiam"),
    "nothing holds it": Exhibit(
        "simsiam",
        "SimSiam without stop-gradient and output BN",
        ("complete",),
        _with(stop_gradient=False, output_bn=False),
    ),
    "no stop-gradient": Exhibit(
        "simsiam",
        "SimSiam without stop-gradient",
        ("dimensional", "complete"),
        _with(stop_gradient=False),
    ),
    "no predictor": Exhibit(
        "simsiam",
        "SimSiam without predictor",
        ("dimensional",),
        _with(predictor="none"),
    ),
    "heavy weight decay": Exhibit(
        "simsiam",
        "SimSiam with 60 times the weight decay",
        ("complete", "dimensional"),
        {"weight_decay": 0.03},
    ),
    "half erased views": Exhibit(
        "simsiam",
        "SimSiam on views half of which is erased",
        (),
        {"views": "tutorial-strong"},
    ),
    "Barlow Twins": Exhibit("barlow_twins"),
    "redundancy allowed": Exhibit(
        "barlow_twins",
        "Barlow Twins without its off-diagonal term",
        ("dimensional", "cluster", "intra-cluster"),
        _with(lamb=0.0),
    ),
    "SwAV": Exhibit("swav"),
    "soft assignments": Exhibit(
        "swav",
        "SwAV with 200 times the entropy of its assignments",
        ("uniform-assignment", "complete"),
        _with(sk_epsilon=10.0),
    ),
    "ten prototypes": Exhibit(
        "swav",
        "SwAV with 10 prototypes instead of 300",
        ("cluster", "intra-cluster"),
        _with(num_prototypes=10),
    ),
    "DINO": Exhibit("dino"),
    "no centring": Exhibit(
        "dino",
        "DINO without centring",
        ("cluster", "complete"),
        _with(centre_momentum=1.0),
    ),
    "warm teacher": Exhibit(
        "dino",
        "DINO whose teacher is not sharpened",
        ("uniform-assignment", "dimensional", "complete"),
        _with(teacher_temperature=1.0, warmup_teacher_temperature=1.0),
    ),
    "CPLearn": Exhibit("cplearn"),
    "ten codes": Exhibit(
        "cplearn",
        "CPLearn with 10 codes instead of 1,024",
        ("cluster", "intra-cluster"),
        _with(num_codes=10),
    ),
}
"""What is shown, each broken run after the healthy one that it is a copy of."""

LAPTOP = {"data": "shapes", "run": {"epochs": 5, "knn_every": 1, "knn_bank": 2000}}
PAPER = {"data": "shapes", "run": {"epochs": 30, "warmup_epochs": 3, "knn_every": 1}}
TINY = {
    "data": "shapes",
    "run": {"limit": 128, "batch_size": 64, "epochs": 2, "warmup_epochs": 0, "knn_every": 1},
    "arms": ["SimSiam", "nothing holds it", "DINO", "no centring"],
}


@LABS.register("failures")
class Failures(Lab):
    """Sixteen runs on the generated shapes: five that hold, and eleven copies with something broken."""

    title = "A gallery of collapses, and who sees them first"
    paper = (
        "SimSiam (2011.10566), Barlow Twins (2103.03230), SwAV (2006.09882), DINO (2104.14294), CPLearn "
        "(2410.04959), each on what it cannot do without"
    )
    says = (
        "Each method names what keeps it from collapse: take it away and a kind of collapse follows. A "
        "monitor that reads the embeddings ought to name it, and no later than k-NN, which needs labels."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each exhibit."""
        for arm in preset.get("arms", GALLERY):
            exhibit = GALLERY[arm]
            base = {"recipe": f"shapes/{exhibit.recipe}", "data": preset["data"], **preset["run"]}
            yield Job(arm, seed, {**base, **exhibit.settings})

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """When each failure was said, and by whom."""
        return findings(results, GALLERY)
