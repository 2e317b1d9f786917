"""Run directories as training would leave them, without training: for what is read off them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CONFIG = {
    "method": "simsiam", "backbone": "resnet8-w4", "data": "shapes", "epochs": 2, "order": "iid",
    "chunk_size": 1, "rounds": 1, "switch_epoch": 1, "seed": 0, "batch_size": 64,
    "options": {"num_codes": 16},
}  # fmt: skip


def write_run(
    folder: Path,
    auc: Sequence[float],
    accuracy: Sequence[float | None],
    loss: float = -0.5,
    rank: float = 4.0,
    **config: Any,
) -> Path:
    """A run whose epochs 0, 1, ... have these AUCs and accuracies, at both taps and in both probes."""
    (folder / "spectra").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "epochs": len(auc) - 1, **config}))
    rows = [_epoch(e, *values, loss, rank) for e, values in enumerate(zip(auc, accuracy, strict=True))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spectrum = np.array([3.0, 2.0, 1.0, 0.5])
    taps = ("backbone", "projector")
    for epoch in range(len(auc)):
        spectra: dict[str, Any] = {f"{tap}.{form}": spectrum for tap in taps for form in ("centred", "unit")}
        np.savez(folder / "spectra" / f"epoch_{epoch:04d}.npz", **spectra)
    return folder


def _epoch(epoch: int, auc: float, accuracy: float | None, loss: float, rank: float) -> dict[str, Any]:
    measures: Mapping[str, Mapping[str, float]] = {
        "auc": {"value": auc, "null": 0.6},
        "erank_centred": {"value": rank, "null": 7.9},
        "participation_ratio": {"value": 3.0, "null": 7.8},
    }
    panel = {"n": 100, "d": 8, "measures": measures}
    known = None if accuracy is None else {"top1": accuracy}
    return {
        "event": "epoch", "epoch": epoch, "step": 10 * epoch, "loss": loss if epoch else None,
        "verdict": {"kind": "healthy", "tap": "projector", "why": "", "evidence": []},
        "panels": {"backbone": panel, "projector": panel}, "knn": known, "probe": known if epoch else None,
    }  # fmt: skip
