"""Further logs: TensorBoard, Weights & Biases, trackio; without an account."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullrank.errors import UsageError
from fullrank.training.records import EndRecord, Listener, RunRecord, StartRecord

__all__ = ["flatten", "open_log"]


def flatten(record: Mapping[str, Any]) -> dict[str, float]:
    """Flatten the numbers of a record to slash-separated names, for loggers.

    Example:
        >>> flatten({"event": "step", "loss": -0.5, "level": {"projector": 0.9}, "time": {"elapsed": 1.0}})
        {'loss': -0.5, 'level/projector': 0.9, 'time/elapsed': 1.0}
    """
    flat: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            if "value" in value and "null" in value:  # a measure beside its null value
                value = {"": value["value"], "null": value["null"]}
            flat |= {f"{key}/{name}".rstrip("/"): number for name, number in flatten(value).items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[key] = float(value)
    return {
        name.replace("/measures", ""): number
        for name, number in flat.items()
        if name not in ("step", "epoch")
    }


def open_log(kind: str, run: Path) -> Listener:
    """Open a logger as a listener; UsageError where its package is missing.

    Args:
        kind: `tensorboard` (files under RUN/tensorboard), `wandb` (offline unless WANDB_MODE says otherwise)
            or `trackio`.
        run: the run directory.
    """
    opener = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}[kind]
    try:
        return opener(run)
    except ModuleNotFoundError as error:
        raise UsageError(f"--log {kind} needs its package: pip install 'fullrank[{kind}]'") from error


def _tensorboard(run: Path) -> Listener:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def log(record: RunRecord) -> None:
        if isinstance(record, EndRecord):
            writer.close()
        elif not isinstance(record, StartRecord):
            for name, value in flatten(record.as_dict()).items():
                writer.add_scalar(name, value, record.step)

    return log


def _wandb(run: Path) -> Listener:
    import os

    import wandb

    state: dict[str, Any] = {}

    def log(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            mode = os.environ.get("WANDB_MODE", "offline")
            state["run"] = wandb.init(project="fullrank", dir=str(run), mode=mode, config=record.config)
        elif isinstance(record, EndRecord):
            state["run"].finish()
        else:
            state["run"].log(flatten(record.as_dict()), step=record.step)

    return log


def _trackio(run: Path) -> Listener:
    import trackio

    def log(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            trackio.init(project="fullrank", name=run.name, config=record.config)
        elif isinstance(record, EndRecord):
            trackio.finish()
        else:
            trackio.log({**flatten(record.as_dict()), "step": record.step})

    return log
