"""Runs under other data orders: resumed to the last bit, their ordering on record, equal on two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.errors import UsageError
from fullrank.methods import ParamGroup
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer, set_learning_rates
from fullrank.training.run import resume
from fullrank.training.run_dir import RunDir
from training.test_loop import assert_ends_as_if_never_cut, cut_run, records, run

SMALL: dict[str, Any] = {"batch_size": 32, "epochs": 4, "steps_per_epoch": 2, "knn_every": 0}
ORDERS: dict[str, dict[str, Any]] = {
    "single-pass": {"order": "single-pass"},
    "cumulative": {"order": "cumulative", "rounds": 2, "repeat_batch": 2},
    "last-fraction": {"order": "last-fraction", "chunk_size": 2},
    "hybrid": {"order": "hybrid", "switch_epoch": 2},
}


@pytest.mark.parametrize("order", ["single-pass", "hybrid"])
@pytest.mark.parametrize("step", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_cut_anywhere_resumes_to_the_last_bit(tmp_path: Path, order: str, step: int) -> None:
    assert_ends_as_if_never_cut(tmp_path, step, **SMALL | ORDERS[order] | {"checkpoint_every": 1})


def test_every_order_takes_the_same_number_of_steps_and_its_own_way(tmp_path: Path) -> None:
    losses = {}
    for name, changes in {"iid": {}, **ORDERS}.items():
        run(tmp_path / name, **SMALL, **changes)
        last = records(tmp_path / name)[-2]
        assert (last["epoch"], last["step"]) == (4, 8)
        losses[name] = last["loss"]
    assert len(set(losses.values())) == 5


def test_the_ordering_is_on_record_and_another_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ordering.npy"
    np.save(file, np.random.default_rng(0).permutation(192))
    changes = SMALL | ORDERS["single-pass"] | {"ordering": str(file)}
    cut_run(tmp_path / "a", 3, **changes)
    hashed = RunDir.open(tmp_path / "a").config().ordering_sha256
    assert len(hashed) == 64
    np.save(file, np.arange(192))
    with pytest.raises(UsageError, match=f"not {hashed}: it is another than the one this run began with"):
        resume(tmp_path / "a")
    np.save(file, np.random.default_rng(0).permutation(192))
    assert resume(tmp_path / "a").reason == "finished"


def test_a_generated_ordering_is_on_record_too_and_iid_has_none(tmp_path: Path) -> None:
    for name in ("single-pass", "hybrid"):
        run(tmp_path / name, **SMALL | ORDERS[name] | {"epochs": 3})
    run(tmp_path / "iid", **SMALL | {"epochs": 1})
    single, hybrid, iid = (
        RunDir.open(tmp_path / name).config().ordering_sha256 for name in ("single-pass", "hybrid", "iid")
    )
    assert len(single) == 64
    assert single == hybrid
    assert iid == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"order": "single-pass", "epochs": 8}, "the chunk of epoch 0 has 24 images, less than a batch"),
        ({"order": "hybrid"}, "--switch-epoch lies within the run's 4 epochs, not at 40"),
        ({"order": "single-pass", "ordering": "nowhere.npy"}, "no ordering nowhere.npy"),
        ({"chunk_size": 2}, "--chunk-size, --rounds and --ordering need another --order than iid"),
        ({"order": "single-pass", "rounds": 0}, "--rounds must be at least 1, not 0"),
        ({"predictor_warmup_steps": 1, "options": {"predictor": "none"}}, "needs a trained predictor"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(tmp_path / "a", **SMALL | changes)
    assert not (tmp_path / "a").exists()


def test_at_the_start_of_a_new_chunk_the_predictor_learns_alone() -> None:
    config = TrainConfig(epochs=3, predictor_warmup_steps=2, schedule="constant", lr_scaling="none", lr=0.5)
    names = ("backbone", "projector", "predictor")
    groups = [ParamGroup(name, [torch.nn.Parameter(torch.ones(1))]) for name in names]
    optimizer = build_optimizer(groups, config)
    seen = []
    for step in range(12):
        set_learning_rates(optimizer, config, step, steps_per_epoch=4)
        seen.append([group["lr"] for group in optimizer.param_groups])
    resting, learning = [0.0, 0.0, 0.5], [0.5, 0.5, 0.5]
    assert seen == [learning] * 4 + [resting, resting, learning, learning] * 2


def test_an_encoder_at_rest_does_not_move(tmp_path: Path) -> None:
    changes = SMALL | {"epochs": 2, "predictor_warmup_steps": 2}
    run(tmp_path / "one", **SMALL | {"epochs": 1, "schedule": "constant"})
    run(tmp_path / "two", **changes, schedule="constant")
    one, two = (torch.load(tmp_path / name / "checkpoints/last.pt")["method"] for name in ("one", "two"))
    weights = [key for key in one if key.startswith("backbone.") and key.endswith("weight")]
    assert all(torch.equal(one[key], two[key]) for key in weights)
    assert any(not torch.equal(one[key], two[key]) for key in one if key.startswith("predictor."))
