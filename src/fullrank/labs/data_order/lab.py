"""Which image when: chunk after chunk, all at once, or the one before the other (Li et al.'s experiment)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from fullrank.labs._common.claims import Claim, above, spread
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.lab import LABS, Job, Lab, Settings
from fullrank.labs._common.results import Results
from fullrank.labs._common.selectors import auc_end, comparable, linear_end
from fullrank.labs.data_order.figures import chapters

__all__ = ["DataOrders"]

LAPTOP = {
    "data": "shapes",
    "run": {"recipe": "shapes/simsiam", "limit": 2048, "epochs": 10, "knn_every": 1, "diagnostics_every": 0},
    "arms": {
        "iid": {},
        "single pass": {"order": "single-pass"},
        "hybrid": {"order": "hybrid", "switch_epoch": 4},
        "cumulative": {"order": "cumulative"},
        "last fifth": {"order": "last-fraction", "chunk_size": 2},
        "two rounds": {"order": "single-pass", "rounds": 2},
        "repeated batches": {"order": "single-pass", "repeat_batch": 4},
    },
}
PAPER = {
    "data": "imagenet",
    "run": {"recipe": "imagenet/simsiam-resnet18", "epochs": 100, "knn_every": 10, "watch_every": 5},
    "arms": {
        "iid": {},
        "single pass": {"order": "single-pass"},
        "hybrid": {"order": "hybrid", "switch_epoch": 40},
        "cumulative": {"order": "cumulative"},
        "last fifth": {"order": "last-fraction", "chunk_size": 20},
        "two rounds": {"order": "single-pass", "rounds": 2},
        "repeated batches": {"order": "single-pass", "repeat_batch": 4},
    },
}
TINY = {
    "data": "shapes",
    "run": {**LAPTOP["run"], "limit": 192, "batch_size": 32, "epochs": 3, "warmup_epochs": 0},  # type: ignore[dict-item]
    "arms": {
        "iid": {},
        "single pass": {"order": "single-pass"},
        "hybrid": {"order": "hybrid", "switch_epoch": 1},
    },
}


@LABS.register("data-order")
class DataOrders(Lab):
    """SimSiam on the same number of batches, drawn from one chunk at a time or from all images."""

    title = "Does seeing images chunk after chunk keep an encoder from collapse?"
    paper = "Li, Efros and Pathak, “Understanding Collapse in Non-Contrastive Siamese Learning” (2209.15007)"
    says = (
        "SimSiam collapses in part where the encoder is too small for its data. A single pass over the data, "
        "chunk after chunk at the same number of steps, prevents it; a single pass first and all images "
        "afterwards (hybrid) is the most accurate, by up to 18 points for a ResNet-18 on ImageNet."
    )
    presets: ClassVar = {"laptop": LAPTOP, "paper": PAPER, "tiny": TINY}

    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """A training run for each order; the ordering of the images is the seed's."""
        for arm, order in preset["arms"].items():
            yield Job(arm, seed, {**preset["run"], "data": preset["data"], **order})

    def analyse(self, results: Results, preset: Settings) -> Findings:
        """AUC and accuracy along training, hybrid against multi-epoch, and what is left at the end."""
        switch = preset["arms"].get("hybrid", {}).get("switch_epoch")
        notes = [
            "Every order takes the same number of optimiser steps: an epoch is as many batches as all images "
            "fill, whichever of them are in use.",
            "AUC, rank and spectra are of the encoder's pooled features on held-out images, centred. The "
            "paper takes them from training images.",
        ]
        return Findings(chapters(results, switch), _claims(results), _words(results), notes)


def _claims(results: Results) -> list[Claim]:
    """Of the seeds that have all arms."""
    of = comparable(results)
    auc, accuracy = ({arm: of.values(arm, read) for arm in of.arms} for read in (auc_end, linear_end))
    found = []
    for arm in ("single pass", "hybrid"):
        if arm in auc and "iid" in auc:
            text = f"{arm.capitalize()} keeps rank: its AUC ends below that of iid."
            found.append(above(text, auc["iid"], auc[arm], "AUC of iid", f"of {arm}"))
    for arm, text in (
        ("iid", "Hybrid is worth more than multi-epoch training."),
        ("single pass", "Hybrid is worth more than a single pass alone."),
    ):
        if {"hybrid", arm} <= accuracy.keys():
            found.append(above(text, accuracy["hybrid"], accuracy[arm], "linear of hybrid", f"of {arm}"))
    return found


def _words(results: Results) -> str:
    told = [
        f"{arm} ends with AUC {spread(results.values(arm, auc_end))}, linear "
        f"{spread(results.values(arm, linear_end))}, k-NN {spread(results.values(arm, lambda r: r.knn_end))}"
        for arm in results.arms
    ]
    return f"{'; '.join(told)}."
