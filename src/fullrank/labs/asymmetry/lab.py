"""What must differ between two branches for a network not to collapse.

Four parts: the tutorial's three regimes as published and without their confounds, SimSiam's stop-gradient
against its predictor, and the designs of Asym-Siam, which make one side vary more than the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings, spread
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Results, joined
from fullrank.labs._common.selectors import knn_end
from fullrank.labs.asymmetry import designs, halves, measures, teachers

REGIMES: Mapping[str, Settings] = {
    "A: both trained": {"teacher": "trained"},
    "B: teacher frozen": {"teacher": "frozen"},
    "C: teacher copied": {"teacher": "copied", "copy_unit": "epochs", "copy_every": 1},
}
"""The tutorial's regimes as options of `teacher_student`."""

SHARP = {"centring": True, "student_temperature": 0.1, "teacher_temperature": 0.04, "symmetric": True}
AVERAGED: Mapping[str, Settings] = {
    "D: teacher averaged": {"teacher": "ema", "independent_init": False},
    "E: averaged, centred, sharpened": {"teacher": "ema", "independent_init": False, **SHARP},
}
"""What `tutorial-fixed` adds: DINO's teacher alone, and with DINO's two remedies."""

TUTORIAL = {"method": "teacher_student", "views": "tutorial"}

Arms = Iterable[tuple[str, dict[str, Any], dict[str, Any]]]
"""Names of arms, with their settings and the method's options."""


@LABS.register("asymmetry")
class Asymmetry(Lab):
    """Regimes of teacher and student, SimSiam's two halves, and Asym-Siam's designs."""

    title = "Which asymmetry keeps two branches from collapse?"
    paper = (
        "“Collapse in Self-Supervised Learning” (tutorial, 2025); SimSiam (Chen and He, 2011.10566, "
        "section 4); Asym-Siam (Wang et al., 2204.00613)"
    )
    says = (
        "Train two networks to agree and they agree on nothing in particular. A teacher without gradient "
        "(frozen, copied, averaged) prevents it; so do SimSiam's stop-gradient and predictor, but only "
        "together. Where one side is to vary more than the other, it must be the source."
    )
    presets: ClassVar = read_presets(__file__)
    parts: ClassVar = {
        "tutorial": "the tutorial's three regimes as published",
        "tutorial-fixed": "the same without dropout in the teacher, with averaged teachers added",
        "simsiam-2x2": "SimSiam's stop-gradient and predictor, each on and off",
        "asym-siam": "designs that make one side vary more, on the source and on the target",
    }

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """Jobs of one part and one seed."""
        base = {**preset[part], "data": preset["data"]}
        own = base.pop("options", {})
        make, measure = {
            "simsiam-2x2": (_halves, None),
            "asym-siam": (_designs, measures.encoding_variance),
        }.get(part, (_regimes, measures.seen_by_the_loss))
        for arm, settings, options in make(preset, part):
            yield Job(arm, seed, {**base, **settings, "options": {**own, **options}}, measure, part=part)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims, figures and sentences, part by part."""
        return joined(_findings(part, own) for part, own in results.parts(self.parts))


def _findings(part: str, results: Results) -> Findings:
    if part == "asym-siam":
        note = (
            "AsymBN is left out: its BN statistics differ between devices, and a job runs on one. "
            "The baseline is MoCo v3, with a predictor and the batch's negatives, instead of MoCo v2."
        )
        words = f"{part}: {designs.summary(results)}"
        return Findings(designs.chapters(results), designs.claims(results), words, [note])
    untrained = spread([result.knn[0] for result in results if 0 in result.knn])
    words = f"{part}: {results.ends({'k-NN': knn_end})}; untrained {untrained}."
    if part == "simsiam-2x2":
        return Findings(halves.chapters(results), halves.claims(results), words)
    note = (
        f"Unlike the tutorial, {part} draws two views of one image instead of running two loaders in step, "
        "shuffles batches anew each epoch, and starts every regime from fresh networks."
    )
    return Findings(teachers.chapters(part, results), teachers.claims(results), words, [note])


def _regimes(preset: Settings, part: str) -> Arms:
    fixed = part == "tutorial-fixed"
    for arm, options in REGIMES.items():
        yield arm, TUTORIAL, {**options, "teacher_eval": fixed}
    if fixed:
        for arm, options in AVERAGED.items():
            yield arm, TUTORIAL, {**options, **preset["averaging"], "teacher_eval": True}


def _halves(preset: Settings, part: str) -> Arms:
    for arm, (stop, predictor) in halves.HALVES.items():
        yield arm, {}, {"stop_gradient": stop, "predictor": "mlp" if predictor else "none"}


def _designs(preset: Settings, part: str) -> Arms:
    suffix = preset["suffix"]
    for arm in ("baseline", "one-sided"):
        yield arm, {"views": f"asym-{arm}{suffix}"}, {}
    for design in designs.DESIGNS:
        for name, side, mean in ((designs.ON_SOURCE, "", "target"), (designs.ON_TARGET, "-target", "source")):
            options = {"mean_encoding": mean} if design == "meanenc" else {}
            yield name.format(design), {"views": f"asym-{design}{side}{suffix}"}, options
