"""Checkpoints as other libraries lay them out, and the networks in them."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with statistics and gains that are not what it begins with, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return network.eval()


def resnet(padding: int = 0, depth: int = 18) -> nn.Module:
    """torchvision's ResNet without its classifier; with a CIFAR stem of that padding unless it is 0."""
    network = torchvision.models.get_model(f"resnet{depth}", weights=None)
    network.fc = nn.Identity()
    if padding:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=padding, bias=False)
        network.maxpool = nn.Identity()
    return shaken(network)


def vit(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    given = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 0}
    return shaken(VisionTransformer(**given | options))


def under(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in network.state_dict().items()}


def assert_same_features(model: Encoder, network: nn.Module, size: int | None = None) -> None:
    """The features of both are equal on some images."""
    images = torch.randn(2, 3, size or model.image_size, size or model.image_size)
    with torch.no_grad():
        expected = network(images)
        assert torch.allclose(model.network(images), expected, rtol=1e-6, atol=1e-6)
    assert expected.std(0).max() > 1e-4, "the images are not told apart, so that equality says little"
    assert model.feature_dim == expected.shape[1] and not model.network.training


def momentum(network: nn.Module) -> nn.Module:
    return shaken(copy.deepcopy(network), seed=1)


HEAD = {"0.weight": torch.zeros(8, 512), "0.bias": torch.zeros(8)}


def head(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in HEAD.items()}


def solo(network: nn.Module) -> dict[str, Any]:
    state = under("backbone.", network) | head("projector.") | {"classifier.weight": torch.zeros(10, 512)}
    state |= under("momentum_backbone.", momentum(network)) | head("momentum_projector.")
    return {
        "state_dict": state,
        "epoch": 3,
        "pytorch-lightning_version": "1.6",
        "optimizer_states": [{"a": HEAD}],
    }


def lightly(network: nn.Module) -> dict[str, Any]:
    state = under("model.backbone.", network) | head("model.projection_head.layers.")
    return {
        "state_dict": state | under("model.backbone_momentum.", momentum(network)),
        "hyper_parameters": {},
    }


def lightly_dino(network: nn.Module) -> dict[str, Any]:
    state = under("student_backbone.", network) | head("student_head.layers.")
    return {"state_dict": state | under("teacher_backbone.", momentum(network))}


def simsiam(network: nn.Module) -> dict[str, Any]:
    state = under("module.encoder.", network) | head("module.encoder.fc.") | head("module.predictor.")
    return {"state_dict": state, "arch": "resnet18", "epoch": 9, "optimizer": {"state": {0: HEAD}}}


def moco(network: nn.Module) -> dict[str, Any]:
    state = under("module.encoder_k.", momentum(network)) | head("module.encoder_k.fc.")
    state |= (
        under("module.encoder_q.", network)
        | head("module.encoder_q.fc.")
        | {"module.queue": torch.zeros(8, 16)}
    )
    return {"state_dict": state, "arch": "resnet18"}


def moco_v3(network: nn.Module) -> dict[str, Any]:
    state = (
        under("module.base_encoder.", network) | head("module.base_encoder.fc.") | head("module.predictor.")
    )
    return {"state_dict": state | under("module.momentum_encoder.", momentum(network))}


def dino(network: nn.Module) -> dict[str, Any]:
    student = under("module.backbone.", momentum(network)) | head("module.head.mlp.")
    teacher = under("module.backbone.", network) | head("module.head.mlp.")
    arguments = argparse.Namespace(arch="resnet18", patch_size=16)
    return {
        "student": student,
        "teacher": teacher,
        "args": arguments,
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def byol(network: nn.Module) -> dict[str, Any]:
    state = under("online_network.encoder.", network) | head("online_network.projection.")
    return state | under("target_network.encoder.", momentum(network))


def byol_of_solo_like(network: nn.Module) -> dict[str, Any]:
    return {"state_dict": under("momentum_encoder.", momentum(network)) | under("encoder.", network)}


def byol_pytorch(network: nn.Module) -> dict[str, Any]:
    state = under("online_encoder.net.", network) | head("online_encoder.projector.")
    return state | under("target_encoder.net.", momentum(network))


def swav(network: nn.Module) -> dict[str, Any]:
    prototypes = {"module.prototypes.weight": torch.zeros(30, 8)}
    return {"state_dict": under("module.", network) | head("module.projection_head.") | prototypes}


def compiled(network: nn.Module) -> dict[str, Any]:
    return {"model": under("backbone._orig_mod.", network)}


def plain(network: nn.Module) -> dict[str, Any]:
    return dict(network.state_dict()) | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


LAYOUTS: list[tuple[Callable[[nn.Module], dict[str, Any]], str]] = [
    (solo, "state_dict.backbone."),
    (lightly, "state_dict.model.backbone."),
    (lightly_dino, "state_dict.student_backbone."),
    (simsiam, "state_dict.module.encoder."),
    (moco, "state_dict.module.encoder_q."),
    (moco_v3, "state_dict.module.base_encoder."),
    (dino, "teacher.module.backbone."),
    (byol, "online_network.encoder."),
    (byol_of_solo_like, "state_dict.encoder."),
    (byol_pytorch, "online_encoder.net."),
    (swav, "state_dict.module."),
    (compiled, "model.backbone._orig_mod."),
    (plain, ""),
]
every_layout = pytest.mark.parametrize(
    ("layout", "prefix"), LAYOUTS, ids=[layout.__name__ for layout, _ in LAYOUTS]
)


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "caught"))


class ShellTrap(Trap):
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))
