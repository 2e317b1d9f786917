"""Branches of a run: a copy of a checkpoint that goes on with other settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fullrank.training.checkpoint import TrainState
from fullrank.training.checkpoint_files import CheckpointFiles, LoadedCheckpoint
from fullrank.training.config import TrainConfig
from fullrank.training.record_files import truncate_records
from fullrank.training.run_dir import RunDir


def healthy_checkpoint(run: RunDir, before: int) -> LoadedCheckpoint | None:
    """The last sound checkpoint that was judged healthy before epoch `before`.

    None where none is on the disk any more.
    """
    found = list[tuple[int, LoadedCheckpoint]]()
    for loaded in run.checkpoints.every(first="healthy"):
        try:
            state = TrainState.from_dict(loaded.state["progress"])
        except (LookupError, TypeError, ValueError):  # of another version
            continue
        if state.verdict.get("kind") == "healthy" and 0 < state.epoch < before:
            found.append((state.step, loaded))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def begin_branch(
    source: RunDir, found: LoadedCheckpoint, config: TrainConfig, out: Path, anew: bool = False
) -> None:
    """Make a run directory that goes on from a checkpoint of another run.

    It has that run's records up to the checkpoint. It is there whole, or not at all.

    Args:
        source: the run; nothing in it is changed.
        found: its checkpoint.
        config: that the branch goes on with.
        out: the new run directory; what is there already stays.
        anew: whether parts may have other shapes: these, and the optimiser, start untrained.
    """
    if (out / "config.yaml").is_file():
        return
    draft = out.with_name(f"{out.name}-begins")
    shutil.rmtree(draft, ignore_errors=True)
    run = RunDir.create(draft, config)
    size = int(found.state["metrics_size"])
    if source.metrics_path.is_file():
        shutil.copyfile(source.metrics_path, run.metrics_path)
        truncate_records(run.metrics_path, size)
    epoch = int(found.state["progress"]["epoch"])
    for file in sorted((source.path / "spectra").glob("epoch_*.npz")):
        digits = file.stem.removeprefix("epoch_")
        if digits.isdigit() and int(digits) <= epoch and file.is_file() and not file.is_symlink():
            shutil.copyfile(file, draft / "spectra" / file.name)
    state = {**found.state, "config": config.as_dict(), "metrics_size": run.metrics_size()}
    if anew:
        state |= _renewed(found.state, config)
    CheckpointFiles(draft / "checkpoints").write(state, config.keep_checkpoints)
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)


def _renewed(state: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Weights from the checkpoint where they fit, the others and the optimiser fresh."""
    from fullrank.encoders.initial import open_initial_weights
    from fullrank.training.launch import launch_fabric
    from fullrank.training.setup import prepare, setup

    fabric = launch_fabric(config)
    initial = open_initial_weights(config)
    config, data = prepare(config, fabric, None, initial)
    fresh = setup(config, data, fabric, initial)
    before: Mapping[str, Tensor] = state["method"]
    weights = {
        name: before[name] if name in before and before[name].shape == tensor.shape else tensor
        for name, tensor in fresh.method.state_dict().items()
    }
    return {"method": weights, "optimizer": fresh.optimizer.state_dict()}
