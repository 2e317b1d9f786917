"""Dimensional collapse of contrastive learning: causes on toys, and DirectCLR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Results, joined
from fullrank.labs.contrastive_toys.figures import PARTS
from fullrank.labs.contrastive_toys.toys import (
    LIVE_MARGIN,
    ContrastiveToy,
    implicit_regularisation,
    strong_augmentation,
    train_contrastive,
)

STARTS: tuple[Literal["decaying", "uniform"], ...] = ("decaying", "uniform")


def trained_toy(toy: Mapping[str, Any]) -> dict[str, Any]:
    """Train a contrastive toy; `toy` are its settings, as `ContrastiveToy` names them.

    Returns:
        `steps`, `live` directions and `log_spectra`, ln of the covariance's singular values, at each record.

    Example:
        >>> trained_toy({"dim": 4, "noisy_dims": 0, "steps": 2, "record_every": 1})["steps"]
        [0, 1, 2]
    """
    trained = train_contrastive(ContrastiveToy(**toy))
    return {
        "steps": trained.steps.tolist(),
        "live": trained.live.tolist(),
        "log_spectra": trained.log_spectra.round(4).tolist(),
    }


@LABS.register("contrastive-toys")
class ContrastiveToys(Lab):
    """Strong augmentation, implicit regularisation, DirectCLR: on toys and an encoder."""

    title = "Why contrastive learning loses dimensions, too"
    paper = "Understanding Dimensional Collapse in Contrastive SSL (Jing et al., ICLR 2022, 2110.09348)"
    says = (
        "Negatives prevent complete collapse, not dimensional collapse. Directions in which augmentation "
        "varies more than the data die; and in several layers small singular values grow more slowly than "
        "large ones, so that the rank falls however weak the augmentation. DirectCLR needs no projector: "
        "it contrasts a sub-vector of the features."
    )
    presets: ClassVar = read_presets(__file__)
    parts: ClassVar = {
        "augmentation": "one linear layer, noise on half of the inputs, over its amplitude",
        "layers": "one to three linear layers, hardly any noise, decaying and uniform starts",
        "subvector": "the loss on the first outputs of one and of two layers",
        "directclr": "DirectCLR on images over the channels that its loss sees",
    }

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A toy for each setting; runs of DirectCLR for each count of channels."""
        if part == "directclr":
            for channels in preset["channels"]:
                options = {"options": {"num_channels": channels}}
                train = {**preset["directclr"], "data": preset["data"], **options}
                yield Job(f"{channels} channels", seed, train, part=part)
            return
        length = {key: preset["toys"][key] for key in ("steps", "record_every")}
        for arm, toy in _toys(preset["toys"], part, seed):
            arguments = {"toy": vars(replace(toy, **length))}
            yield Job(arm, seed, measure=trained_toy, arguments=arguments, part=part)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims and figures of the parts that were run."""
        notes = [
            f"A direction is in use while ln of its singular value is within {LIVE_MARGIN} of the largest.",
            "The dead directions of strong augmentation are called still falling where this was first "
            "measured; here they reach a floor within about 2,000 steps.",
        ]
        return joined([make(own) for part, make in PARTS.items() if len(own := results.of(part))], notes)


def _toys(settings: Settings, part: str, seed: int) -> Iterable[tuple[str, ContrastiveToy]]:
    if part == "augmentation":
        for amplitude in settings["amplitudes"]:
            yield f"noise {amplitude:g}", strong_augmentation(amplitude, seed)
    elif part == "layers":
        for init in STARTS:
            for layers in settings["layers"]:
                arm = f"{layers} layer{'s' * (layers != 1)}, {init} start"
                yield arm, implicit_regularisation(layers, init, seed)
    else:
        whole = implicit_regularisation(1, "uniform", seed)
        yield "all 16 outputs", whole
        for seen in settings["subvectors"]:
            yield f"first {seen} outputs", replace(whole, subvector=seen)
