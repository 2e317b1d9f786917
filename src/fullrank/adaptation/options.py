"""Options of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fullrank.errors import UsageError
from fullrank.options import Options

NO_DATA = "--data is missing: the folder of images to adapt to"


@dataclass(frozen=True)
class AdaptOptions(Options):
    """How an encoder is adapted to images.

    Attributes:
        data: the images: a folder, or a name of `fullrank list data`.
        method: that trains it; `fullrank list methods` tells which there are.
        epochs: passes over the images, at most; 0: so many that the run takes 300 steps.
        batch_size: images a step; 0: by the number of images.
        lr: base learning rate; 0: half of what a training from the start takes.
        lora: rank of low-rank updates that the backbone learns in place of its weights; 0: none.
        image_size: side in pixels; 0: the encoder's own.
        keep: least share of the old neighbours of an image that must be kept, in [0, 1].
        patience: comparisons in a row without a better score, after which it stops.
        labels: where the images have some: veto (an encoder whose k-NN falls is not taken) or report (they
            are told, and decide nothing).
        limit: images to train on, at most; 0: all.
        seed: of everything random.
        download: fetch weights or data that are not there.
        settings: further settings of `fullrank train`, as KEY=VALUE; the method's own are options.NAME.
    """

    data: str = ""
    method: str = "vicreg"
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0
    lora: int = 0
    image_size: int = 0
    keep: float = 0.2
    patience: int = 4
    labels: Literal["veto", "report"] = "veto"
    limit: int = 0
    seed: int = 0
    download: bool = False
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep <= 1:
            raise UsageError(f"--keep is a share between 0 and 1, not {self.keep:g}")
        if self.patience < 1:
            raise UsageError(f"--patience is 1 or more, not {self.patience}")
