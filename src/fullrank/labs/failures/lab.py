"""A gallery of induced collapses: the monitor's verdict, and when k-NN noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from fullrank.coercion import load_yaml
from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Results
from fullrank.labs.failures.analysis import Exhibit, findings

GALLERY: Mapping[str, Exhibit] = {
    arm: Exhibit(**values)
    for arm, values in load_yaml(Path(__file__).with_name("gallery.yaml").read_text("utf-8")).items()
}
"""What is shown, each broken run after the healthy one that it is a copy of."""


@LABS.register("failures")
class Failures(Lab):
    """Sixteen runs on generated shapes: five that hold, and eleven broken copies."""

    title = "A gallery of collapses, and who sees them first"
    paper = (
        "SimSiam (2011.10566), Barlow Twins (2103.03230), SwAV (2006.09882), DINO (2104.14294), CPLearn "
        "(2410.04959), each on what it cannot do without"
    )
    says = (
        "Each method names what keeps it from collapse: take it away and a kind of collapse follows. A "
        "monitor that reads the embeddings ought to name it, and no later than k-NN, which needs labels."
    )
    presets: ClassVar = read_presets(__file__)

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each exhibit."""
        for arm in preset.get("arms", GALLERY):
            exhibit = GALLERY[arm]
            base = {"recipe": f"shapes/{exhibit.recipe}", "data": preset["data"], **preset["run"]}
            yield Job(arm, seed, {**base, **exhibit.settings})

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """When each failure was said, and by whom."""
        return findings(results, GALLERY)
