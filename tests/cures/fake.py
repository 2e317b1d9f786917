"""Collapsed runs and the arms of their cures as training would leave them, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fullrank.cures.plan import CurePlan
from fullrank.jobs.once import folder_of
from fullrank.training.config import TrainConfig

OPTIONS = {"stop_gradient": False, "output_bn": False, "proj_hidden_dim": 16, "proj_output_dim": 16}


def write_run(
    folder: Path,
    kinds: Sequence[str],
    knn: float | None = 0.3,
    rank: float = 4.0,
    end: str = "finished",
    seconds: float = 60.0,
    **settings: Any,
) -> Path:
    """A run whose epochs 1, 2, ... have these verdicts; an epoch took so many seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"data": "shapes", "epochs": len(kinds), "image_size": 16, "options": OPTIONS}
    config = TrainConfig(**{**values, **settings})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.as_dict()))
    (folder / "environment.json").write_text(json.dumps({"cpu_threads": 1}))
    rows: list[Mapping[str, Any]] = [
        epoch_row(e, kind, knn, rank, seconds) for e, kind in enumerate(kinds, 1)
    ]
    rows += [{"event": "end", "epoch": len(kinds), "step": 10 * len(kinds), "reason": end}] if end else []
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def epoch_row(epoch: int, kind: str, knn: float | None, rank: float, seconds: float) -> dict[str, Any]:
    measures = {
        "erank_centred": {"value": rank, "null": 15.0},
        "rankme_uncentred": {"value": rank, "null": 15.0},
    }
    probability = {"healthy": 0.1, "not decidable": None}.get(kind, 0.9)
    return {
        "event": "epoch", "epoch": epoch, "step": 10 * epoch, "loss": -0.5,
        "verdict": {"kind": kind, "tap": "projector", "why": f"it is {kind}", "probability": probability},
        "panels": {"projector": {"n": 100, "d": 16, "measures": measures}},
        "knn": None if knn is None else {"top1": knn, "k": 20},
        "time": {"elapsed": seconds * epoch},
    }  # fmt: skip


def write_arms(plan: CurePlan, of: Mapping[str, tuple[str, float | None]]) -> None:
    """Results of all jobs of a plan: by arm the verdict and k-NN, a point more for each seed."""
    for job in plan.jobs():
        kind, knn = of.get(job.arm, ("complete", 0.2))
        folder = folder_of(job, plan.out)
        top1 = None if knn is None else knn + 0.01 * (job.seed or 0)
        rank = 10.0 * (0.2 if knn is None and kind != "healthy" else 0.9)
        write_run(folder / "run", [kind] * plan.until, top1, rank, seed=job.seed or 0)
        (folder / "result.json").write_text(json.dumps({"numbers": {}, "seconds": 1.0}))
