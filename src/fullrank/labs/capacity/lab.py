"""Encoder sizes on growing data: which collapse, and whether that can be forecast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Claim, Findings, above, spread
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import auc_end, linear_end
from fullrank.labs.capacity.figures import arm_of, chapters, forecast_chapter, forecast_claims, forecasts


@LABS.register("capacity")
class Capacity(Lab):
    """SimSiam with small and large encoders, on shares of the images, at equal steps."""

    title = "How small is too small for the data?"
    paper = "Li, Efros and Pathak, “Understanding Collapse in Non-Contrastive Siamese Learning” (2209.15007)"
    says = (
        "SimSiam's representation collapses in part where the encoder is too small for its data: the AUC of "
        "the cumulative singular values rises with the share of the data that the encoder is to hold, and "
        "accuracy falls. AUC and loss together forecast accuracy without labels."
    )
    presets: ClassVar = read_presets(__file__)

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A run for each encoder and share, the last chunk of the seed's ordering."""
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
        claims = [*_claims(results.whole(), encoders, shares), *forecast_claims(fits)]
        return Findings(
            [*chapters(results, encoders, shares), *forecast_chapter(fits)],
            claims,
            _summary(results, encoders, shares),
            notes,
        )


def shares_of(preset: Settings) -> Mapping[float, int]:
    """Share of the data to the epochs its chunk would last, 0 for all of the data.

    Example:
        >>> shares_of({"run": {"epochs": 10}, "chunks": [1, 10]})
        {0.1: 1, 1.0: 0}
    """
    epochs = preset["run"]["epochs"]
    return {chunk / epochs: chunk if chunk < epochs else 0 for chunk in preset["chunks"]}


def _claims(results: Results, encoders: list[str], shares: list[float]) -> list[Claim]:
    (small, large), (few, every) = (encoders[0], encoders[-1]), (shares[0], shares[-1])
    percent = {share: f"{100 * share:g} %" for share in (few, every)}
    small_few, small_every = arm_of(small, few), arm_of(small, every)

    def rise(encoder: str) -> list[float]:
        ends = [results.values(arm_of(encoder, share), auc_end) for share in (few, every)]
        return [b - a for a, b in zip(*ends, strict=True)]

    most, least = percent[every], percent[few]
    holding = "The small encoder collapses more when it is to hold all of the data."
    size = "On all of the data, the small encoder is more collapsed than the large one."
    more = "More data collapses a small encoder more than a large one."
    falls = "The small encoder's accuracy falls with more data."
    from_to = f"rise of the AUC from {least} to {most}, {small}"
    of_large = arm_of(large, every)
    return [
        results.above(holding, auc_end, small_every, small_few, f"AUC with {most}", f"with {least}"),
        results.above(size, auc_end, small_every, of_large, f"AUC of {small}", f"of {large}"),
        above(more, rise(small), rise(large), from_to, f"of {large}"),
        results.above(falls, linear_end, small_few, small_every, f"linear with {least}", f"with {most}"),
    ]


def _summary(results: Results, encoders: list[str], shares: list[float]) -> str:
    few, every = shares[0], shares[-1]

    def ends(encoder: str, read: Read) -> str:
        return " to ".join(spread(results.values(arm_of(encoder, share), read)) for share in (few, every))

    arms = [f"{name}: AUC {ends(name, auc_end)}, linear {ends(name, linear_end)}" for name in encoders]
    return f"From {100 * few:g} % to {100 * every:g} % of the data – {'; '.join(arms)}."
