"""What must differ between two branches for a network not to collapse with its copy: the tutorial's question.

Four parts: the tutorial's three regimes as published and without their confounds, SimSiam's stop-gradient
against its predictor, and the designs of Asym-Siam, which make one side vary more than the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from fullrank.labs._common.claims import Claim, spread
from fullrank.labs._common.findings import Chapter, Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs.asymmetry import designs as designs
from fullrank.labs.asymmetry import halves as halves
from fullrank.labs.asymmetry import measures as measures
from fullrank.labs.asymmetry import teachers as teachers

__all__ = ["AVERAGED", "REGIMES", "Asymmetry"]

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
PUBLISHED = {
    "backbone": "vit-tutorial", "epochs": 10, "batch_size": 128,
    "options": {"proj_hidden_dim": 2048, "proj_output_dim": 128, "dropout": 0.1},
}  # fmt: skip
PAPER = {
    "parts": ["tutorial", "tutorial-fixed", "simsiam-2x2", "asym-siam"],
    "data": "cifar10",
    "tutorial": PUBLISHED,
    "tutorial-fixed": PUBLISHED,
    "simsiam-2x2": {
        "method": "simsiam", "backbone": "resnet18", "stem": "cifar", "epochs": 800, "batch_size": 512,
        "lr": 0.03, "weight_decay": 5e-4, "views": "simsiam-cifar", "knn_every": 20, "watch_every": 10,
        "options": {"proj_layers": 2},
    },
    "asym-siam": {
        "method": "mocov3", "backbone": "resnet50", "epochs": 100, "batch_size": 256, "optimizer": "sgd",
        "lr": 0.03, "weight_decay": 1e-4, "knn_every": 10, "watch_every": 10,
        "options": {"tau_base": 0.999, "tau_final": 0.999, "temperature": 0.2, "proj_output_dim": 128},
    },
    "suffix": "",
    "averaging": {"tau_base": 0.996},
}  # fmt: skip
LAPTOP = {
    "parts": ["simsiam-2x2", "tutorial-fixed"],
    "data": "shapes",
    "tutorial": {
        **PUBLISHED, "limit": 512, "epochs": 6, "knn_every": 3, "knn_bank": 256, "watch_images": 256,
        "options": {"proj_hidden_dim": 256, "proj_output_dim": 128, "dropout": 0.1},
    },
    "tutorial-fixed": {
        "backbone": "resnet8-w16", "epochs": 8, "batch_size": 128, "weight_decay": 1e-4, "knn_every": 2,
        "options": {"proj_hidden_dim": 128, "proj_output_dim": 64},
    },
    "simsiam-2x2": {"recipe": "shapes/simsiam"},
    "asym-siam": {"recipe": "shapes/mocov3", "epochs": 5, "knn_every": 5},
    "suffix": "-cifar",
    "averaging": {"tau_base": 0.99},
}  # fmt: skip
TINY_RUN = {"backbone": "resnet8-w16", "epochs": 2, "limit": 128, "batch_size": 64}
TINY_TEACHER = {**TINY_RUN, "options": {"proj_hidden_dim": 32, "proj_output_dim": 16}}
TINY = {
    **LAPTOP,
    "tutorial": TINY_TEACHER,
    "tutorial-fixed": TINY_TEACHER,
    "simsiam-2x2": {"recipe": "shapes/simsiam", **TINY_RUN},
    "asym-siam": {"recipe": "shapes/mocov3", **TINY_RUN},
}

Arms = Iterable[tuple[str, dict[str, Any], dict[str, Any]]]
"""Names of arms, with their settings and the method's options."""


@LABS.register("asymmetry")
class Asymmetry(Lab):
    """Regimes of teacher and student, the two halves of SimSiam, and the designs of Asym-Siam."""

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
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}
    parts: ClassVar = {
        "tutorial": "the tutorial's three regimes as published",
        "tutorial-fixed": "the same without dropout in the teacher, with averaged teachers added",
        "simsiam-2x2": "SimSiam's stop-gradient and predictor, each on and off",
        "asym-siam": "designs that make one side vary more, on the source and on the target",
    }

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """The cells of one part and one seed."""
        base = {**preset[part], "data": preset["data"]}
        own = base.pop("options", {})
        make = {"simsiam-2x2": _halves, "asym-siam": _designs}.get(part, _regimes)
        measure = {"simsiam-2x2": None, "asym-siam": measures.encoding_variance}.get(
            part, measures.seen_by_the_loss
        )
        for arm, settings, options in make(preset, part):
            yield Job(arm, seed, {**base, **settings, "options": {**own, **options}}, measure, part=part)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims, figures and words, part by part."""
        chapters: list[Chapter] = []
        claims: list[Claim] = []
        words, notes = [], []
        for part in self.parts:
            own = results.of(part)
            if not len(own):
                continue
            if part == "simsiam-2x2":
                claims, chapters = claims + halves.claims(own), chapters + halves.chapters(part, own)
            elif part == "asym-siam":
                claims, chapters = claims + designs.claims(own), chapters + designs.chapters(part, own)
                notes.append(
                    "AsymBN is left out: its BN statistics differ between devices, and a cell runs on one. "
                    "The baseline is MoCo v3, with a predictor and the batch's negatives, instead of MoCo v2."
                )
            else:
                claims, chapters = claims + teachers.claims(own), chapters + teachers.chapters(part, own)
                notes.append(
                    f"Unlike the tutorial, {part} draws two views of one image instead of running two "
                    "loaders in step, shuffles batches anew each epoch, and starts every regime from "
                    "fresh networks."
                )
            words.append(f"{part}: {_words(part, own)}")
        return Findings(chapters, claims, " ".join(words), notes)


def _regimes(preset: Settings, part: str) -> Arms:
    """A teacher of each kind."""
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
    """The two baselines, and each design on either side."""
    suffix = preset["suffix"]
    for arm in ("baseline", "one-sided"):
        yield arm, {"views": f"asym-{arm}{suffix}"}, {}
    for design in designs.DESIGNS:
        for name, side, mean in ((designs.ON_SOURCE, "", "target"), (designs.ON_TARGET, "-target", "source")):
            options = {"mean_encoding": mean} if design == "meanenc" else {}
            yield name.format(design), {"views": f"asym-{design}{side}{suffix}"}, options


def _words(part: str, results: Results) -> str:
    if part == "asym-siam":
        return designs.words(results)
    told = [
        f"{arm} – {results.kinds(arm)}, k-NN {spread(results.values(arm, lambda r: r.knn_end))}"
        for arm in results.arms
    ]
    untrained = spread([result.knn[0] for result in results if 0 in result.knn])
    return f"{'; '.join(told)}; untrained {untrained}."
