"""Encoders of other kinds: transformers, low-rank updates, state dicts of strangers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fullrank
from adaptation.helpers import SMALL, Adapt, history, same, weights
from fullrank.networks.backbones import build_backbone

VIT = "vit_tiny_patch16_224(patch_size=8, embed_dim=32, depth=2, num_heads=2)"


@pytest.mark.slow
def test_low_rank_updates_are_merged_into_what_is_left(adapt: Adapt) -> None:
    result = adapt(lora=2)
    assert [record.values["kept"] for record in history(result.path)][:2] == [1.0, 1.0]
    assert not any("lora" in name for name in weights(result.path))


def test_a_transformer_in_a_state_dict_is_adapted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_backbone(VIT, 16).network
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    options = SMALL | {"settings": (*SMALL["settings"], "layer_decay=0.5"), "keep": 1.0}
    result = fullrank.adapt(tmp_path / "vit.pth", out=tmp_path / "run", **options)
    assert not result.adapted
    assert same(weights(result.path), dict(network.state_dict()))
