"""Further logs with the real packages: what they keep of a run, on this machine alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fullrank.training.logs import flatten, open_log
from fullrank.training.records import EndRecord, EpochRecord, StartRecord, StepRecord

pytestmark = pytest.mark.slow  # a new database takes seconds

STEP = StepRecord(step=10, loss=-0.5, lr=0.1, level={"projector": 0.9})
EPOCH = EpochRecord(
    epoch=2,
    step=40,
    knn={"top1": 0.5},
    panels={"projector": {"measures": {"erank": {"value": 9.0, "null": 12.0}}}},
)
CONFIG = {"method": "simsiam", "epochs": 2, "options": {"predictor": "mlp", "note": "x" * 9000}}


def log_a_run(kind: str, run: Path, *records: Any, ends: bool = True) -> None:
    log = open_log(kind, run)
    log(StartRecord(config=CONFIG))
    for record in records:
        log(record)
    if ends:
        log(EndRecord(step=40))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return pytest.importorskip("mlflow")


def only_run(mlflow: Any, uri: str, experiment: str = "fullrank") -> tuple[Any, Any]:
    """Client of a store, and the one MLflow run that an experiment in it holds."""
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, run


def test_mlflow_gets_every_number_at_its_step_in_a_database_of_the_run(mlflow: Any, tmp_path: Path) -> None:
    log_a_run("mlflow", tmp_path / "first", STEP, EPOCH)
    client, run = only_run(mlflow, f"sqlite:///{tmp_path}/first/mlflow/mlflow.db")
    assert run.data.metrics.keys() == flatten(STEP.as_dict()).keys() | flatten(EPOCH.as_dict()).keys()
    (loss,) = client.get_metric_history(run.info.run_id, "loss")
    assert (loss.step, loss.value) == (10, -0.5)
    assert run.data.metrics["panels/projector/erank/null"] == 12.0


def test_mlflow_has_the_configuration_the_name_and_the_end_of_a_run(mlflow: Any, tmp_path: Path) -> None:
    log_a_run("mlflow", tmp_path / "first", STEP)
    _, run = only_run(mlflow, f"sqlite:///{tmp_path}/first/mlflow/mlflow.db")
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert (run.data.params["method"], run.data.params["epochs"]) == ("simsiam", "2")
    assert "'predictor': 'mlp'" in run.data.params["options"]


def test_a_resumed_run_goes_on_in_its_mlflow_run(mlflow: Any, tmp_path: Path) -> None:
    log_a_run("mlflow", tmp_path / "first", STEP, ends=False)
    log_a_run("mlflow", tmp_path / "first", EPOCH)
    client, run = only_run(mlflow, f"sqlite:///{tmp_path}/first/mlflow/mlflow.db")
    assert run.info.status == "FINISHED"
    assert [client.get_metric_history(run.info.run_id, name)[0].step for name in ("loss", "knn/top1")] == [
        10,
        40,
    ]


def test_a_store_that_the_environment_names_gets_the_run(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/all.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log_a_run("mlflow", tmp_path / "first", STEP)
    _, run = only_run(mlflow, uri, "mine")
    assert run.info.run_name == "first" and not (tmp_path / "first" / "mlflow" / "mlflow.db").exists()


def test_a_run_whose_store_has_changed_begins_anew_there(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_a_run("mlflow", tmp_path / "first", STEP)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/all.db")
    log_a_run("mlflow", tmp_path / "first", EPOCH)
    _, run = only_run(mlflow, f"sqlite:///{tmp_path}/all.db")
    assert run.data.metrics["knn/top1"] == 0.5 and "loss" not in run.data.metrics


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Records in the file that W&B leaves where it is offline: a log as of LevelDB, after seven bytes.

    Blocks of 32 KiB hold pieces with a header of checksum, length and kind: 1 whole, 2 first, 3 middle,
    4 last.
    """
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:  # no header fits: the rest of the block is empty
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def wandb_history(run: Path) -> Iterator[dict[str, float]]:
    internal = import_module("wandb.proto.wandb_internal_pb2")
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    for data in wandb_records(file.read_bytes()):
        record = internal.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def in_a_process(script: str, *arguments: Path, **environment: str) -> str:
    """Output of a script that has this file's names; loggers keep what their first run found in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_"))}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    begun = f"import sys\nfrom pathlib import Path\nfrom training.test_loggers import *\n{script}"
    return subprocess.run(
        [sys.executable, "-c", begun, *map(str, arguments)],
        env={**kept, "PYTHONPATH": paths, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout


def test_wandb_is_offline_and_keeps_every_number_in_the_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    in_a_process("log_a_run('wandb', Path(sys.argv[1]), STEP, EPOCH)", tmp_path, HOME=str(tmp_path))
    rows = list(wandb_history(tmp_path))
    assert [row["_step"] for row in rows] == [10, 40]
    assert rows[0]["loss"] == -0.5 and rows[1]["panels/projector/erank"] == 9.0


TRACKIO = """
log_a_run("trackio", Path(sys.argv[1]), STEP, EPOCH)
from trackio.sqlite_storage import SQLiteStorage
print("ROWS", json.dumps(SQLiteStorage.get_logs("fullrank", "first")))
"""


def test_trackio_keeps_every_number_in_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    kept = tmp_path / "trackio"
    printed = in_a_process(TRACKIO, tmp_path / "first", HOME=str(tmp_path), TRACKIO_DIR=str(kept))
    first, second = json.loads(printed.split("ROWS", 1)[1])
    assert list(kept.glob("*.db"))
    assert (first["step"], first["loss"]) == (10, -0.5)
    assert (second["step"], second["panels/projector/erank"]) == (40, 9.0)
