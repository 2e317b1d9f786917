"""Further logs: TensorBoard, Weights & Biases, trackio; without an account."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fullrank.errors import UsageError
from fullrank.training.records import EndRecord, Listener, RunRecord, StartRecord


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

    The kinds are `tensorboard` (files under RUN/tensorboard), `wandb` (offline unless WANDB_MODE says
    otherwise) and `trackio`.
    """
    opener = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}[kind]
    try:
        return opener(run)
    except ModuleNotFoundError as error:
        raise UsageError(f"--log {kind} needs its package: pip install 'fullrank[{kind}]'") from error


def _listener(
    start: Callable[[StartRecord], object],
    log: Callable[[dict[str, float], int], object],
    end: Callable[[], object],
) -> Listener:
    """Listener that hands the numbers of a record and its step to `log`."""

    def listen(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            start(record)
        elif isinstance(record, EndRecord):
            end()
        else:
            log(flatten(record.as_dict()), record.step)

    return listen


def _tensorboard(run: Path) -> Listener:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def log(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return _listener(lambda _: None, log, writer.close)


def _wandb(run: Path) -> Listener:
    import wandb

    settings = {"project": "fullrank", "dir": str(run), "mode": os.environ.get("WANDB_MODE", "offline")}
    return _listener(
        lambda start: wandb.init(**settings, config=start.config),
        lambda numbers, step: wandb.log(numbers, step=step),
        wandb.finish,
    )


def _trackio(run: Path) -> Listener:
    import trackio

    return _listener(
        lambda start: trackio.init(project="fullrank", name=run.name, config=start.config),
        lambda numbers, step: trackio.log({**numbers, "step": step}),
        trackio.finish,
    )
