"""Loggers without an account: TensorBoard, Weights & Biases, trackio, MLflow."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fullrank.errors import UsageError
from fullrank.training.records import EndRecord, Listener, RunRecord, StartRecord

LARGEST_BATCH, LONGEST_PARAMETER = 1000, 500  # of MLflow: metrics at once, characters


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
    otherwise), `trackio`, and `mlflow` (a database under RUN/mlflow unless MLFLOW_TRACKING_URI names
    another store).
    """
    opener = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}[kind]
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
        lambda numbers, step: trackio.log(numbers, step=step),
        trackio.finish,
    )


def _mlflow(run: Path) -> Listener:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent that nobody asked for
    import mlflow

    log = MlflowLog(mlflow, run)
    return _listener(log.start, log.log, log.end)


class MlflowLog:
    """One MLflow run for a run directory, also when that is resumed.

    Args:
        mlflow: the package.
        run: directory; its `mlflow` folder holds database, artifacts and the id of the MLflow run.
    """

    def __init__(self, mlflow: Any, run: Path) -> None:
        for name in ("mlflow", "alembic"):  # what they do to a new database is of no interest
            logging.getLogger(name).setLevel(logging.WARNING)
        self.entities, self.missing = mlflow.entities, mlflow.exceptions.MlflowException
        self.run, self.folder, self.id = run, run / "mlflow", ""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own = not os.environ.get("MLFLOW_TRACKING_URI")
        own_uri = f"sqlite:///{(self.folder / 'mlflow.db').resolve()}"
        self.client = mlflow.MlflowClient(own_uri if self.own else os.environ["MLFLOW_TRACKING_URI"])

    def start(self, record: StartRecord) -> None:
        """Go on with the run whose id is kept, or begin one; parameters are settings."""
        kept = self.folder / "run_id"
        try:
            self.id = self.client.get_run(kept.read_text().strip()).info.run_id
            self.client.update_run(self.id, status="RUNNING")
        except (FileNotFoundError, self.missing):  # a first start, or another store
            self.id = self.client.create_run(self._experiment(), run_name=self.run.name).info.run_id
            kept.write_text(self.id)
            settings = {name: str(value)[:LONGEST_PARAMETER] for name, value in record.config.items()}
            parameters = [self.entities.Param(name, value) for name, value in settings.items()]
            self.client.log_batch(self.id, params=parameters)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log all numbers of a record at once."""
        now = int(1000 * time.time())
        metrics = [self.entities.Metric(name, value, now, step) for name, value in numbers.items()]
        for first in range(0, len(metrics), LARGEST_BATCH):
            self.client.log_batch(self.id, metrics=metrics[first : first + LARGEST_BATCH])

    def end(self) -> None:
        """Mark it as finished; one that is killed stays `RUNNING` until it is resumed."""
        self.client.set_terminated(self.id)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fullrank")
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        artifacts = (self.folder / "artifacts").resolve().as_uri() if self.own else None
        return str(self.client.create_experiment(name, artifact_location=artifacts))
