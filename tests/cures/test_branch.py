"""Branches of a real run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.cures.branch import begin_branch, healthy_checkpoint
from fullrank.training.checkpoint_files import CheckpointFiles
from fullrank.training.config import TrainConfig
from fullrank.training.contract import with_changes
from fullrank.training.run import resume, train
from fullrank.training.run_dir import RunDir

CONFIG = TrainConfig(
    data="shapes",
    backbone="resnet8-w4",
    epochs=3,
    limit=32,
    batch_size=16,
    watch_images=32,
    watch_every=1,
    probe="off",
    diagnostics_every=0,
    options={"proj_hidden_dim": 8, "proj_output_dim": 8, "pred_hidden_dim": 4, "predictor": "none"},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    path = tmp_path_factory.mktemp("branch") / "run"
    train(CONFIG, path, until=2)
    return RunDir(path)


def records_of(run: RunDir) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_paused_run_goes_on_as_if_it_had_never_paused(run: RunDir, tmp_path: Path) -> None:
    whole = train(CONFIG, tmp_path / "whole")
    paused = train(CONFIG, tmp_path / "paused", until=1)
    assert (paused.reason, paused.record.epoch) == ("paused", 1)
    assert resume(tmp_path / "paused").reason == whole.reason == "finished"
    assert records_of(RunDir(tmp_path / "paused")) == records_of(RunDir(tmp_path / "whole"))


def test_a_branch_has_the_records_up_to_its_checkpoint_and_leaves_the_run_alone(
    run: RunDir, tmp_path: Path
) -> None:
    before, found = files_of(run.path), run.checkpoints.newest()
    assert found is not None
    begin_branch(run, found, replace(run.config(), lr=0.001), tmp_path / "branch")
    branch = RunDir(tmp_path / "branch")
    assert records_of(branch) == records_of(run)
    assert branch.config().lr == 0.001 and run.config().lr != 0.001
    assert files_of(run.path) == before


def test_a_branch_goes_on_with_its_own_settings(run: RunDir, tmp_path: Path) -> None:
    found = run.checkpoints.newest()
    assert found is not None
    begin_branch(run, found, replace(run.config(), seed=5, weight_decay=0.1), tmp_path / "branch")
    outcome = resume(tmp_path / "branch", until=3)
    assert outcome.record.epoch == 3 and records_of(RunDir(tmp_path / "branch"))[0] == records_of(run)[0]


def test_a_branch_that_is_there_stays_as_it_is(run: RunDir, tmp_path: Path) -> None:
    found = run.checkpoints.newest()
    assert found is not None
    begin_branch(run, found, run.config(), tmp_path / "branch")
    before = files_of(tmp_path / "branch")
    begin_branch(run, found, replace(run.config(), lr=9.0), tmp_path / "branch")
    assert files_of(tmp_path / "branch") == before


def test_parts_of_another_shape_start_untrained_and_the_others_keep_their_weights(
    run: RunDir, tmp_path: Path
) -> None:
    found = run.checkpoints.newest()
    assert found is not None
    config = with_changes(run.config(), {"options.predictor": "mlp"})
    begin_branch(run, found, config, tmp_path / "branch", anew=True)
    now = CheckpointFiles(tmp_path / "branch" / "checkpoints").newest()
    assert now is not None
    before, after = found.state["method"], now.state["method"]
    assert all(torch.equal(before[name], after[name]) for name in before if name in after)
    assert any(name.startswith("predictor") for name in after.keys() - before.keys())
    assert resume(tmp_path / "branch", until=3).record.epoch == 3


def test_the_last_healthy_checkpoint_before_the_onset_is_taken(run: RunDir, tmp_path: Path) -> None:
    found = run.checkpoints.newest()
    assert found is not None
    files = RunDir.create(tmp_path / "copy", run.config())
    for epoch, kind in ((1, "healthy"), (2, "healthy"), (3, "complete")):
        progress = {**found.state["progress"], "epoch": epoch, "step": 2 * epoch}
        last = {**progress["last"], "epoch": epoch, "step": 2 * epoch, "verdict": {"kind": kind}}
        files.checkpoints.write({**found.state, "progress": {**progress, "last": last}})
    taken = healthy_checkpoint(files, before=3)
    assert taken is not None and taken.state["progress"]["epoch"] == 2
    earlier = healthy_checkpoint(files, before=2)
    assert earlier is not None and earlier.state["progress"]["epoch"] == 1
    assert healthy_checkpoint(files, before=1) is None
