"""A backbone that is released stage by stage: what has not been released stays to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fullrank
from fullrank.errors import UsageError
from fullrank.methods import Method
from fullrank.networks.depth import layer_depths
from fullrank.training.config import TrainConfig
from fullrank.training.networks import build_networks
from fullrank.training.thawing import Thawing

SMALL: dict[str, Any] = {
    "data": "shapes", "limit": 64, "batch_size": 32, "accelerator": "cpu", "backbone": "resnet8-w4",
    "watch_images": 32, "knn_every": 0, "diagnostics_every": 0, "image_size": 16, "lr": 0.2, "probe": "off",
    "options": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16}, "watch_every": 1,
    "keep_checkpoints": 9, "thaw_epochs": 1, "thaw_parts": 2,
}  # fmt: skip


def built(method: str = "byol", **changes: Any) -> tuple[Method, TrainConfig]:
    config = TrainConfig(
        method=method, backbone="resnet8-w4", image_size=16, thaw_epochs=2, thaw_parts=2, **changes
    )
    return build_networks(config)[1], config


def learning(method: Method) -> set[int]:
    """Depths of the layers that learn."""
    depths = layer_depths(method.backbone)
    return {depths[name] for name, p in method.backbone.named_parameters() if p.requires_grad}


def test_heads_learn_alone_then_the_last_layers_then_all() -> None:
    method, config = built()
    thawing = Thawing(method, config, processes=1)
    seen = []
    for epoch in range(6):
        thawing.begin_epoch(epoch)
        seen.append(learning(method))
    assert seen == [set(), set(), {2, 3}, {2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}]


def test_frozen_layers_keep_their_statistics_in_both_branches() -> None:
    method, config = built()
    Thawing(method, config, processes=1).begin_epoch(0)
    before = {name: value.clone() for name, value in method.state_dict().items() if "backbone" in name}
    method.loss([torch.randn(8, 3, 16, 16)] * 2).loss.backward()
    after = method.state_dict()
    assert any(name.startswith("target.backbone") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_frozen_for_good_is_never_released() -> None:
    method, config = built(freeze="stem")
    thawing = Thawing(method, config, processes=1)
    thawing.begin_epoch(9)
    assert learning(method) == {1, 2, 3}


def test_released_layers_train_again() -> None:
    method, config = built()
    thawing = Thawing(method, config, processes=1)
    thawing.begin_epoch(0)
    assert not method.backbone.training
    thawing.begin_epoch(4)
    assert all(module.training for module in method.backbone.modules())


def test_several_processes_are_refused() -> None:
    method, config = built()
    with pytest.raises(UsageError, match="--devices 1"):
        Thawing(method, config, processes=2)


def backbone_of(file: Path) -> dict[str, Tensor]:
    state = torch.load(file, weights_only=True)["method"]
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


def test_a_run_changes_layer_after_layer(tmp_path: Path) -> None:
    fullrank.train("simsiam", out=tmp_path / "run", epochs=3, **SMALL)
    kept = [
        tmp_path / "run" / "checkpoints" / f"{name}.pt" for name in ("last-4", "last-3", "last-2", "last-1")
    ]
    start, heads, top, whole = map(backbone_of, kept)
    changed = [
        {name for name in start if not torch.equal(one[name], other[name])}
        for one, other in ((start, heads), (heads, top), (top, whole))
    ]
    assert changed[0] == set()
    assert "backbone.blocks.2.conv1.weight" in changed[1]
    assert "backbone.conv1.weight" not in changed[1]
    assert "backbone.conv1.weight" in changed[2]
