"""Protocols of the literature: how a classifier is trained on an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fullrank.training.schedules import epoch_cosine


@dataclass(frozen=True)
class Protocol:
    """How a classifier is trained on an encoder.

    Attributes:
        about: where it is from.
        epochs: passes over the labelled images.
        batch_size: images per step.
        optimizer: sgd, or lars (apex's LARC around it: ratio eta |w| / (|g| + decay |w|), not clipped, none
            where a norm is zero; eta 0.001).
        lr: for 256 images a step; scaled linearly.
        schedule: epoch-cosine (to 0, once an epoch) or step (a tenth after each of `milestones`).
        milestones: epochs.
        momentum: of the optimiser.
        weight_decay: L2 coefficient.
        init_std: of the classifier's normal weights, zero bias; 0: PyTorch's initialisation.
        crop: (low, high) share of the image's area that a training crop takes.
        frozen: the encoder is in eval mode and never moves; else it is trained too.
        encoder_lr: factor on the rate for the encoder where it is trained.
    """

    about: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["sgd", "lars"] = "sgd"
    schedule: Literal["epoch-cosine", "step"] = "epoch-cosine"
    milestones: tuple[int, ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0
    init_std: float = 0.0
    crop: tuple[float, float] = (0.08, 1.0)
    frozen: bool = True
    encoder_lr: float = 1.0

    def changed(self, epochs: int = 0, lr: float = 0.0, batch_size: int = 0) -> Protocol:
        """The protocol with other numbers where they are not 0; milestones scale.

        Example:
            >>> PROTOCOLS["solo"].changed(epochs=10).milestones
            (6, 8)
        """
        length = epochs or self.epochs
        milestones = tuple(round(milestone * length / self.epochs) for milestone in self.milestones)
        size = batch_size or self.batch_size
        return replace(self, epochs=length, lr=lr or self.lr, batch_size=size, milestones=milestones)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0, before its scaling by the batch."""
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        return epoch_cosine(epoch, self.epochs, self.lr)


PROTOCOLS: Mapping[str, Protocol] = {
    "simsiam": Protocol(
        "SimSiam's code (2011.10566): 90 epochs, batch 4096, LARS",
        epochs=90, batch_size=4096, lr=0.1, optimizer="lars", init_std=0.01,
    ),
    "li": Protocol(
        "Li et al. (2209.15007), ResNet-18: as SimSiam's with batch 1024",
        epochs=90, batch_size=1024, lr=0.1, optimizer="lars", init_std=0.01,
    ),
    "solo": Protocol(
        "solo-learn: 100 epochs, batch 256, SGD 0.3, steps at 60 and 80",
        epochs=100, batch_size=256, lr=0.3, schedule="step", milestones=(60, 80),
    ),
    "rdm-byol": Protocol(
        "RDM (2303.02387), for BYOL and RDM-BYOL: as solo-learn's",
        epochs=100, batch_size=256, lr=0.3, schedule="step", milestones=(60, 80),
    ),
    "rdm-simsiam": Protocol(
        "RDM (2303.02387), for SimSiam and RDM-SimSiam: SGD 30",
        epochs=100, batch_size=256, lr=30.0, schedule="step", milestones=(60, 80),
    ),
}  # fmt: skip
"""The literature's linear probes."""

FINETUNING = Protocol(
    "fine-tuning on a share of the labels, after SimCLR (2002.05709), appendix B.5: SGD without decay, "
    "crops and flips; a tenth of the classifier's rate for the encoder",
    epochs=30, batch_size=256, lr=0.1, frozen=False, encoder_lr=0.1,
)  # fmt: skip
