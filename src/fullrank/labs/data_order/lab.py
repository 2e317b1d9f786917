"""Data order: chunk after chunk, all at once, or one then the other (Li et al.)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Claim, Findings
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Read, Results
from fullrank.labs._common.selectors import auc_end, knn_end, linear_end
from fullrank.labs.data_order.figures import chapters


@LABS.register("data-order")
class DataOrders(Lab):
    """SimSiam on equally many batches, drawn from one chunk at a time or all images."""

    title = "Does seeing images chunk after chunk keep an encoder from collapse?"
    paper = "Li, Efros and Pathak, “Understanding Collapse in Non-Contrastive Siamese Learning” (2209.15007)"
    says = (
        "SimSiam collapses in part where the encoder is too small for its data. A single pass over the data, "
        "chunk after chunk at the same number of steps, prevents it; a single pass first and all images "
        "afterwards (hybrid) is the most accurate, by up to 18 points for a ResNet-18 on ImageNet."
    )
    presets: ClassVar = read_presets(__file__)

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each order; the ordering of the images is the seed's."""
        for arm, order in preset["arms"].items():
            yield Job(arm, seed, {**preset["run"], "data": preset["data"], **order})

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """AUC and accuracy along training, hybrid against multi-epoch, and at the end."""
        switch = preset["arms"].get("hybrid", {}).get("switch_epoch")
        notes = [
            "Every order takes the same number of optimiser steps: an epoch is as many batches as all images "
            "fill, whichever of them are in use.",
            "AUC, rank and spectra are of the encoder's pooled features on held-out images, centred. The "
            "paper takes them from training images.",
        ]
        return Findings(chapters(results, switch), _claims(results), _summary(results), notes)


def _claims(results: Results) -> list[Claim]:
    """Of the seeds that have all arms."""
    of, found = results.whole(), []
    for text, name, what, arm, other in (
        ("Single pass keeps rank: its AUC ends below that of iid.", "AUC", auc_end, "iid", "single pass"),
        ("Hybrid keeps rank: its AUC ends below that of iid.", "AUC", auc_end, "iid", "hybrid"),
        ("Hybrid is worth more than multi-epoch training.", "linear", linear_end, "hybrid", "iid"),
        ("Hybrid is worth more than a single pass alone.", "linear", linear_end, "hybrid", "single pass"),
    ):
        if {arm, other} <= set(of.arms):
            found.append(of.above(text, what, arm, other, f"{name} of {arm}", f"of {other}"))
    return found


def _summary(results: Results) -> str:
    columns: dict[str, Read] = {"AUC": auc_end, "linear": linear_end, "k-NN": knn_end}
    return f"{'; '.join(f'{arm} ends with {results.spreads(arm, columns)}' for arm in results.arms)}."
