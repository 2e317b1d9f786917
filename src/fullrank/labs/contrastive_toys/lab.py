"""Dimensional collapse of contrastive learning: its two causes on linear toys, and DirectCLR's remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from fullrank.labs._common.claims import Claim
from fullrank.labs._common.findings import Chapter, Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs.contrastive_toys import figures as figures
from fullrank.labs.contrastive_toys.toys import (
    LIVE_MARGIN,
    ContrastiveToy,
    implicit_regularisation,
    strong_augmentation,
    train_contrastive,
)

__all__ = ["ContrastiveToys", "trained_toy"]

STARTS: tuple[Literal["decaying", "uniform"], ...] = ("decaying", "uniform")
AMPLITUDES = (0.01, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
NOISE, LAYERS = "noise {:g}", "{} layer{}, {} start"
SUBVECTOR = "all 16 outputs", "first {} outputs"
CHANNELS = "{} channels"

TOYS = {
    "amplitudes": AMPLITUDES, "layers": (1, 2, 3), "subvectors": (12, 8, 4),
    "steps": 10_000, "record_every": 500,
}  # fmt: skip
PAPER: dict[str, Any] = {
    "parts": ["augmentation", "layers", "subvector", "directclr"],
    "toys": {**TOYS, "amplitudes": (*AMPLITUDES, 3.0), "layers": (1, 2, 3, 4)},
    "data": "imagenet",
    "directclr": {"recipe": "imagenet/directclr", "knn_every": 10, "watch_every": 5},
    "channels": (90, 180, 360, 720, 2048),
}
LAPTOP: dict[str, Any] = {
    "parts": ["augmentation", "layers", "subvector", "directclr"],
    "toys": TOYS,
    "data": "shapes",
    "directclr": {"recipe": "shapes/directclr", "limit": 2000, "epochs": 10, "knn_every": 5, "probe": "off"},
    "channels": (8, 32, 64),
}
TINY = {
    **LAPTOP,
    "toys": {
        "amplitudes": (0.01, 2.0), "layers": (1, 2), "subvectors": (8,), "steps": 300, "record_every": 100,
    },
    "directclr": {"recipe": "shapes/directclr", "limit": 128, "batch_size": 64, "epochs": 2},
    "channels": (16, 64),
}  # fmt: skip


def trained_toy(toy: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a contrastive toy; `toy` are its settings, as `ContrastiveToy` names them.

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
    """Strong augmentation, implicit regularisation, and the sub-vector, on toys and on a real encoder."""

    title = "Why contrastive learning loses dimensions, too"
    paper = "Understanding Dimensional Collapse in Contrastive SSL (Jing et al., ICLR 2022, 2110.09348)"
    says = (
        "Negatives prevent complete collapse, not dimensional collapse. Directions in which augmentation "
        "varies more than the data die; and in several layers small singular values grow more slowly than "
        "large ones, so that the rank falls however weak the augmentation. DirectCLR needs no projector: "
        "it contrasts a sub-vector of the features."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}
    parts: ClassVar = {
        "augmentation": "one linear layer, noise on half of the inputs, over its amplitude",
        "layers": "one to three linear layers, hardly any noise, decaying and uniform starts",
        "subvector": "the loss on the first outputs of one and of two layers",
        "directclr": "DirectCLR on images over the channels that its loss sees",
    }

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A toy for each setting; runs of DirectCLR for each count of channels."""
        if part == "directclr":
            for channels in preset["channels"]:
                base = {**preset["directclr"], "data": preset["data"]}
                yield Job(
                    CHANNELS.format(channels),
                    seed,
                    {**base, "options": {"num_channels": channels}},
                    part=part,
                )
            return
        length = {key: preset["toys"][key] for key in ("steps", "record_every")}
        for arm, toy in _toys(preset["toys"], part, seed):
            yield Job(
                arm, seed, measure=trained_toy, arguments={"toy": vars(replace(toy, **length))}, part=part
            )

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """Claims and figures of the parts that were run."""
        claims: list[Claim] = []
        chapters: list[Chapter] = []
        words: list[str] = []
        for part, make in figures.PARTS.items():
            own = results.of(part)
            if len(own):
                more, drawn, told = make(own)
                claims, chapters, words = claims + more, chapters + drawn, [*words, told]
        notes = [
            f"A direction is in use while ln of its singular value is within {LIVE_MARGIN} of the largest.",
            "The dead directions of strong augmentation are called still falling where this was first "
            "measured; here they reach a floor within about 2,000 steps.",
        ]
        return Findings(chapters, claims, " ".join(words), notes)


def _toys(settings: Settings, part: str, seed: int) -> Iterable[tuple[str, ContrastiveToy]]:
    """Names of arms, with their toys."""
    if part == "augmentation":
        for amplitude in settings["amplitudes"]:
            yield NOISE.format(amplitude), strong_augmentation(amplitude, seed)
    elif part == "layers":
        for init in STARTS:
            for layers in settings["layers"]:
                arm = LAYERS.format(layers, "s" * (layers != 1), init)
                yield arm, implicit_regularisation(layers, init, seed)
    else:
        whole = implicit_regularisation(1, "uniform", seed)
        yield SUBVECTOR[0], whole
        for seen in settings["subvectors"]:
            yield SUBVECTOR[1].format(seen), replace(whole, subvector=seen)
