"""The asymmetric designs of Wang et al. (2204.00613) through the trainer: roles, small crops, AsymBN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fullrank.errors import UsageError
from fullrank.methods import METHODS
from fullrank.networks.processes import CpuSyncBatchNorm
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.run import train
from fullrank.training.setup import _synchronise, prepare, setup
from fullrank.views import VIEWS
from methods.shrunk import method, shrunk
from processes import printed_together

WORKER = Path(__file__).parent / "sync_worker.py"
DESIGNS = ["baseline", "one-sided", "multicrop", "scalemix", "aug", "meanenc"]
MIRRORED = [f"{name}-target" for name in DESIGNS[2:]]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def config(name: str, **changes: Any) -> TrainConfig:
    """256 generated shapes of 16 pixels: one step an epoch."""
    values: dict[str, Any] = {
        "data": "shapes", "limit": 256, "batch_size": 256, "epochs": 1, "image_size": 16,
        "backbone": "resnet8-w16", "accelerator": "cpu", "watch_images": 64, "knn_every": 0, "level_every": 1,
    }  # fmt: skip
    options = shrunk(name) | changes.pop("options", {})
    return TrainConfig(**(values | changes), method=name, options=options)


def one_step(out: Path, name: str, **changes: Any) -> dict[str, Any]:
    """The record of the only step of a run."""
    train(config(name, **changes), out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps: list[dict[str, Any]] = [record for record in records if record["event"] == "step"]
    assert len(steps) == 1
    return steps[0]


MAIN, SMALL = ("simsiam", "byol", "mocov3"), {"limit": 64, "batch_size": 64}
OTHERS = ("nnsiam", "directpred", "directcopy", "isoloss", "rdm_simsiam", "rdm_byol")


@pytest.mark.parametrize(
    ("name", "design", "changes"),
    [
        *((name, design, SMALL) for name in MAIN for design in DESIGNS),
        *((name, "multicrop", SMALL) for name in OTHERS),
        *(pytest.param(name, each, SMALL, marks=pytest.mark.slow) for name in MAIN for each in MIRRORED),
        *(
            pytest.param(name, "multicrop", {"image_size": size}, marks=pytest.mark.slow)
            for name in MAIN
            for size in (16, 32)
        ),
    ],
)
def test_a_design_trains_a_step(tmp_path: Path, name: str, design: str, changes: dict[str, Any]) -> None:
    record = one_step(tmp_path / "run", name, views=f"asym-{design}-cifar", **changes)
    assert math.isfinite(record["loss"])


@pytest.mark.parametrize("side", ["source", "target", "both"])
def test_a_mean_encoding_trains_a_step(tmp_path: Path, side: str) -> None:
    changes = {"views": "asym-meanenc-cifar", "options": {"mean_encoding": side}}
    plain = one_step(tmp_path / "a", "byol", views="asym-meanenc-cifar", **SMALL)
    averaged = one_step(tmp_path / "b", "byol", **SMALL, **changes)
    # one source: its own mean changes nothing, the targets' does
    assert (averaged["loss"] == pytest.approx(plain["loss"], abs=1e-6)) == (side == "source")


def prepared(name: str, **changes: Any) -> Any:
    fabric = launch_fabric(config(name, **changes))
    resolved, data = prepare(config(name, **changes), fabric)
    return setup(resolved, data, fabric)


@pytest.mark.parametrize("design", DESIGNS + MIRRORED)
def test_the_method_is_told_the_presets_roles(design: str) -> None:
    preset = f"asym-{design}-cifar"
    roles = tuple(view.role for view in VIEWS[preset].views)
    assert prepared("simsiam", views=preset).method.roles == roles


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        *(
            (name, {"views": "asym-aug-cifar"}, f"made for two branches.*which {name} does not have")
            for name in METHODS
            if not METHODS[name].two_branches
        ),
        *(("simsiam", {"sync_bn": side}, "needs a target network") for side in ("source", "target")),
    ],
)
def test_a_branch_that_a_method_has_not_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, name: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        train(config(name, **changes), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_method_with_one_branch_takes_views_that_both_branches_see() -> None:
    assert set(prepared("simclr", views="asym-baseline-cifar").method.roles) == {"both"}


# AsymBN


def kinds(network: nn.Module) -> set[str]:
    layers = [layer for layer in network.modules() if isinstance(layer, (*BATCH_NORMS, CpuSyncBatchNorm))]
    return {"own" if isinstance(layer, BATCH_NORMS) else "all" for layer in layers}


def synchronised(name: str, sync_bn: str, processes: int = 2) -> nn.Module:
    m = method(name)
    fabric = SimpleNamespace(world_size=processes, device=torch.device("cpu"))
    _synchronise(m, TrainConfig(method=name, sync_bn=sync_bn), fabric)  # type: ignore[arg-type]
    return m


@pytest.mark.parametrize(
    ("sync_bn", "source", "target"),
    [("both", "all", "all"), ("source", "all", "own"), ("target", "own", "all"), ("none", "own", "own")],
)
@pytest.mark.parametrize("name", ["byol", "mocov3", "directpred", "rdm_byol"])
def test_the_chosen_branchs_batch_norms_are_synchronised_and_no_others(
    name: str, sync_bn: str, source: str, target: str
) -> None:
    m = synchronised(name, sync_bn)
    for part, child in m.named_children():
        assert kinds(child) <= {target if part == "target" else source}, part
    assert kinds(m.backbone) == {source}  # type: ignore[arg-type]
    assert kinds(m.target) == {target}  # type: ignore[arg-type]


@pytest.mark.parametrize("sync_bn", ["both", "source", "target", "none"])
def test_one_process_has_nothing_to_synchronise(sync_bn: str) -> None:
    assert kinds(synchronised("byol", sync_bn, processes=1)) == {"own"}


@pytest.mark.parametrize("sync_bn", ["source", "target"])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["simsiam", "nnsiam", "rdm_simsiam", "vicreg"])
def test_a_method_without_a_target_network_refuses_to_synchronise_one_side(
    name: str, sync_bn: str, processes: int
) -> None:
    with pytest.raises(UsageError, match=f"--sync-bn {sync_bn} needs a target network, which {name} has not"):
        synchronised(name, sync_bn, processes)


@pytest.mark.slow
def test_in_two_processes_only_the_chosen_branch_has_common_statistics(tmp_path: Path) -> None:
    calls = [[str(rank), "2", str(tmp_path / "meet"), str(tmp_path / f"{rank}")] for rank in range(2)]
    printed_together(WORKER, calls)
    first, second = (torch.load(tmp_path / f"{rank}", weights_only=True) for rank in range(2))
    for sync_bn, branches in first.items():
        for branch, moments in branches.items():
            common = sync_bn in ("both", branch)
            for ours, theirs in zip(moments, second[sync_bn][branch], strict=True):
                assert torch.allclose(ours, theirs, rtol=1e-12) == common, (sync_bn, branch)
