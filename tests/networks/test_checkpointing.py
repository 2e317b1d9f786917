"""Checkpointed blocks compute what plain ones do, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fullrank.errors import UsageError
from fullrank.networks.backbones import build_backbone
from fullrank.networks.checkpointing import blocks, checkpoint_blocks
from fullrank.networks.live_memory import LiveMemory, fused_attention

BACKBONES = ["resnet8-w4", "resnet18", "vit-tutorial", "vit_tiny_patch16_224", "convnext_atto"]


def after_a_step(network: nn.Module) -> dict[str, torch.Tensor]:
    """Loss, gradients, parameters and buffers after a forward and a backward pass."""
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 32)
    loss = network.train()(images).square().mean()
    loss.backward()
    gradients = {f"{name}.grad": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **network.state_dict()}


@pytest.mark.parametrize("name", BACKBONES)
def test_loss_gradients_and_statistics_are_those_of_the_plain_network(name: str) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, 32).network
    checkpointed = copy.deepcopy(plain)
    checkpoint_blocks(checkpointed, name)
    expected, found = after_a_step(plain), after_a_step(checkpointed)
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def peak(network: nn.Module) -> int:
    with fused_attention(), LiveMemory() as memory:
        network.train()(torch.empty(64, 3, 32, 32, device="meta")).sum().backward()
    return int(memory.peak)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_step_takes_less_memory(name: str) -> None:
    with torch.device("meta"):
        plain, checkpointed = (build_backbone(name, 32).network for _ in range(2))
    checkpoint_blocks(checkpointed, name)
    assert peak(checkpointed) < 0.8 * peak(plain)


def test_a_copy_is_a_network_of_its_own() -> None:
    network = build_backbone("resnet8-w4", 16).network
    checkpoint_blocks(network, "resnet8-w4")
    copied = copy.deepcopy(network)
    copied(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in copied.parameters())


def test_a_resnets_blocks_are_found_at_any_depth() -> None:
    assert len(list(blocks(build_backbone("resnet18", 32).network))) == 8


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="vgg11 has none: take a ResNet or a transformer"):
        checkpoint_blocks(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "vgg11")
