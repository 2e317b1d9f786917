"""Weights that are taken over are sound, and what is frozen stays so under LoRA."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.networks.depth import parameters_of_stages
from fullrank.networks.lora import add_lora
from fullrank.networks.transfer import transfer_weights


@pytest.mark.parametrize(
    "stages", [["layer1"], ["layer1.0"], ["stem", "layer1", "layer2"], ["layer4.1"], ["stem"]]
)
def test_no_frozen_layer_gets_a_low_rank_update(stages: list[str]) -> None:
    pytest.importorskip("peft")
    network = timm.create_model("resnet18", num_classes=0)
    frozen = parameters_of_stages(network, stages)
    add_lora(network, 2, frozen)
    adapted = {name.partition(".lora_A")[0] for name, _ in network.named_parameters() if ".lora_A" in name}
    assert adapted
    assert not {f"{layer}.weight" for layer in adapted} & set(frozen)


Damage = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    ("key", "damage", "line"),
    [
        ("0.weight", lambda w: w * float("nan"), "0.weight of a file is not finite"),
        ("1.bias", lambda w: w + float("inf"), "1.bias of a file is not finite"),
        ("1.running_var", lambda w: -w, "1.running_var of a file is a negative variance"),
        ("0.weight", lambda w: w.to("meta"), "holds 0.weight, which is no plain tensor"),
        ("0.weight", lambda w: w.to_sparse(), "holds 0.weight, which is no plain tensor"),
        ("0.weight", lambda w: w.to(torch.complex64), "holds 0.weight, which is no plain tensor"),
    ],
)
def test_weights_that_are_not_sound_are_refused_and_nothing_is_copied(
    key: str, damage: Damage, line: str
) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {name: value + 1 for name, value in before.items()}
    weights[key] = damage(weights[key])
    with pytest.raises(UsageError, match=line):
        transfer_weights(network, weights, "a file")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_range_of_blocks_that_are_not_there_is_refused_however_long_it_is() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    with pytest.raises(UnknownNameError, match=r"unknown stage 'blocks\.12'"):
        parameters_of_stages(network, ["blocks.0-999999999999"])
