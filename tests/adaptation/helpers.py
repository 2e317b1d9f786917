"""What tests of adaptations share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fullrank.adaptation.result import Adaptation
from fullrank.encoders.opening import open_encoder
from fullrank.training.record_files import read_records
from fullrank.training.records import AdaptationRecord

SMALL: dict[str, Any] = {
    "data": "digits", "limit": 96, "batch_size": 32, "epochs": 4, "image_size": 16, "method": "simsiam",
    "settings": ("accelerator=cpu", "level_every=1", "thaw_epochs=1"),
}  # fmt: skip
Adapt: TypeAlias = Callable[..., Adaptation]


def weights(what: Path) -> dict[str, Tensor]:
    """The weights of an encoder."""
    return dict(open_encoder(what).network.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def history(run: Path) -> list[AdaptationRecord]:
    """The comparisons with the start in a run's records."""
    records = read_records(run / "metrics.jsonl").records
    return [record for record in records if isinstance(record, AdaptationRecord)]
