"""Encoders of several sizes on more and more of the data: who collapses, and whether that can be forecast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from fullrank.labs._common.claims import Claim, above, spread
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs._common.selectors import auc_end, comparable, linear_end
from fullrank.labs.capacity.figures import Read, arm_of, chapters
from fullrank.labs.capacity.forecast import forecast_chapter, forecast_claims, forecasts

__all__ = ["Capacity", "shares_of"]

LAPTOP = {
    "data": "shapes",
    "run": {"recipe": "shapes/simsiam", "limit": 2048, "epochs": 10, "knn_every": 5, "diagnostics_every": 0},
    "encoders": {"4 channels": "resnet8-w4", "8 channels": "resnet8-w8", "16 channels": "resnet8-w16"},
    "chunks": [1, 3, 10],
}
PAPER = {
    "data": "imagenet",
    "run": {"recipe": "imagenet/simsiam-resnet18", "epochs": 100, "knn_every": 50, "watch_every": 10},
    "encoders": {"ResNet-18": "resnet18", "ResNet-34": "resnet34", "ResNet-50": "resnet50"},
    "chunks": [1, 5, 10, 20, 50, 100],
}
TINY = {
    "data": "shapes",
    "run": {**LAPTOP["run"], "limit": 192, "batch_size": 32, "epochs": 4, "warmup_epochs": 0},  # type: ignore[dict-item]
    "encoders": {"4 channels": "resnet8-w4", "8 channels": "resnet8-w8"},
    "chunks": [1, 4],
}


@LABS.register("capacity")
class Capacity(Lab):
    """SimSiam with small and large encoders, on shares of the images, at the same number of steps."""

    title = "How small is too small for the data?"
    paper = "Li, Efros and Pathak, “Understanding Collapse in Non-Contrastive Siamese Learning” (2209.15007)"
    says = (
        "SimSiam's representation collapses in part where the encoder is too small for its data: the AUC of "
        "the cumulative singular values rises with the share of the data that the encoder is to hold, and "
        "accuracy falls. AUC and loss together forecast accuracy without labels."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each encoder and share; a share is the last chunk of the seed's ordering."""
        for name, backbone in preset["encoders"].items():
            for share, chunk in shares_of(preset).items():
                order = {"order": "last-fraction", "chunk_size": chunk} if chunk else {}
                train = {**preset["run"], "data": preset["data"], "backbone": backbone, **order}
                yield Job(arm_of(name, share), seed, train)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """AUC and accuracy over shares, curves for each encoder, and the forecast."""
        encoders, shares = list(preset["encoders"]), list(shares_of(preset))
        fits, refused = forecasts(results, encoders)
        notes = [
            "A share of the data is the end of a random ordering. Every run takes the same number of steps, "
            "so a small share is seen more often.",
            "AUC, rank and spectra are of the encoder's pooled features on held-out images, centred. The "
            "paper takes them from training images.",
            *(f"No forecast for {encoder}: {why}." for encoder, why in refused.items()),
            *(f"{encoder}: {warning}." for encoder, fit in fits.items() for warning in fit.fit.warnings),
        ]
        claims = [*_claims(comparable(results), encoders, shares), *forecast_claims(fits)]
        return Findings(
            [*chapters(results, encoders, shares), *forecast_chapter(fits)],
            claims,
            _words(results, encoders, shares),
            notes,
        )


def shares_of(preset: Settings) -> Mapping[float, int]:
    """Share of the data to the epochs that its chunk would last, 0 for all of the data.

    Example:
        >>> shares_of({"run": {"epochs": 10}, "chunks": [1, 10]})
        {0.1: 1, 1.0: 0}
    """
    epochs = preset["run"]["epochs"]
    return {chunk / epochs: chunk if chunk < epochs else 0 for chunk in preset["chunks"]}


def _claims(results: Results, encoders: list[str], shares: list[float]) -> list[Claim]:
    """Of the smallest encoder against the largest, and of all data against the smallest share."""
    small, large, few, every = encoders[0], encoders[-1], shares[0], shares[-1]
    auc, accuracy = (
        {(name, share): results.values(arm_of(name, share), read) for name in encoders for share in shares}
        for read in (auc_end, linear_end)
    )

    def rise(encoder: str) -> list[float]:
        return [b - a for a, b in zip(auc[encoder, few], auc[encoder, every], strict=True)]

    return [
        above(
            "The small encoder collapses more when it is to hold all of the data.",
            auc[small, every],
            auc[small, few],
            f"AUC with {100 * every:g} %",
            f"with {100 * few:g} %",
        ),
        above(
            "On all of the data, the small encoder is more collapsed than the large one.",
            auc[small, every],
            auc[large, every],
            f"AUC of {small}",
            f"of {large}",
        ),
        above(
            "More data collapses a small encoder more than a large one.",
            rise(small),
            rise(large),
            f"rise of the AUC from {100 * few:g} % to {100 * every:g} %, {small}",
            f"of {large}",
        ),
        above(
            "The small encoder's accuracy falls with more data.",
            accuracy[small, few],
            accuracy[small, every],
            f"linear with {100 * few:g} %",
            f"with {100 * every:g} %",
        ),
    ]


def _words(results: Results, encoders: list[str], shares: list[float]) -> str:
    few, every = shares[0], shares[-1]

    def ends(encoder: str, read: Read) -> str:
        return " to ".join(spread(results.values(arm_of(encoder, share), read)) for share in (few, every))

    told = [f"{name}: AUC {ends(name, auc_end)}, linear {ends(name, linear_end)}" for name in encoders]
    return f"From {100 * few:g} % to {100 * every:g} % of the data – {'; '.join(told)}."
