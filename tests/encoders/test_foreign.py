"""Anybody's encoder opens to the very network that was saved, or is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from encoders.foreign_layouts import (
    HEAD,
    assert_same_features,
    every_layout,
    moco,
    momentum,
    resnet,
    shaken,
    solo,
    under,
    vit,
)
from fullrank.encoders.checkpoints import find_prefixes
from fullrank.encoders.opening import open_encoder
from fullrank.errors import UsageError


@every_layout
def test_the_prefix_is_found_in_every_librarys_names(
    layout: Callable[[nn.Module], dict[str, Any]], prefix: str
) -> None:
    names: list[str] = []

    def collect(content: Mapping[str, Any], within: str) -> None:
        for key, value in content.items():
            if isinstance(value, Mapping):
                collect(value, f"{within}{key}.")
            elif isinstance(value, Tensor):
                names.append(f"{within}{key}")

    collect({key: part for key, part in layout(resnet()).items() if key != "optimizer"}, "")
    assert find_prefixes(names)[0] == prefix
    assert find_prefixes(reversed(names))[0] == prefix


@every_layout
@pytest.mark.parametrize("legacy", [False, True])
def test_every_librarys_checkpoint_gives_the_network_that_was_saved(
    layout: Callable[[nn.Module], dict[str, Any]], prefix: str, legacy: bool, tmp_path: Path
) -> None:
    network = resnet()
    torch.save(layout(network), tmp_path / "last.pth.tar", _use_new_zipfile_serialization=not legacy)
    model = open_encoder(tmp_path / "last.pth.tar")
    assert_same_features(model, network, 64)
    assert (
        model.name == "resnet18"
        and model.image_size == 224
        and model.origin.endswith(f"{prefix}*]" * bool(prefix))
    )
    assert list(model.taps) == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_the_other_network_of_a_checkpoint_can_be_had(tmp_path: Path) -> None:
    network = resnet()
    torch.save(moco(network), tmp_path / "moco.pth.tar")
    model = open_encoder(tmp_path / "moco.pth.tar")
    assert any("also there, for --prefix: state_dict.module.encoder_k.*" in note for note in model.notes)
    other = open_encoder(tmp_path / "moco.pth.tar", prefix="state_dict.module.encoder_k.*")
    assert_same_features(other, momentum(network), 64)
    with pytest.raises(
        UsageError, match=r"no weights under 'nowhere\.'; there are state_dict\.module\.encoder_q\.\*"
    ):
        open_encoder(tmp_path / "moco.pth.tar", prefix="nowhere.")


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "resnet101"])
def test_other_resnets_are_told_by_their_shapes(name: str, tmp_path: Path) -> None:
    network = torchvision.models.get_model(name, weights=None)
    torch.save(shaken(network).state_dict(), tmp_path / "r.pth")
    network.fc = nn.Identity()
    model = open_encoder(tmp_path / "r.pth")
    assert_same_features(model, network, 64)
    assert model.name == name


def test_solo_learns_stem_is_known_from_its_settings(tmp_path: Path) -> None:
    network = resnet(padding=2)
    torch.save(solo(network), tmp_path / "cplearn-abc-ep=999.ckpt")
    torch.save(solo(momentum(network)), tmp_path / "cplearn-abc-ep=99.ckpt")
    settings = {"method": "cplearn", "backbone": {"name": "resnet18"}, "data": {"dataset": "cifar10"}}
    (tmp_path / "args.json").write_text(json.dumps(settings))
    for where in (tmp_path, tmp_path / "cplearn-abc-ep=999.ckpt"):
        model = open_encoder(where)
        assert_same_features(model, network)
        assert model.image_size == 32 and model.mean is None and "cplearn" in model.origin
        assert model.name == "resnet18 (CIFAR stem)"


def test_a_cifar_stem_without_settings_is_assumed_aloud(tmp_path: Path) -> None:
    narrow, wide = resnet(padding=1), resnet(padding=2)
    torch.save(narrow.state_dict(), tmp_path / "a.pth")
    model = open_encoder(tmp_path / "a.pth")
    assert_same_features(model, narrow)
    assert any("padding 1 and no pooling, which weights do not tell" in note for note in model.notes)
    torch.save(wide.state_dict(), tmp_path / "b.pth")
    assert_same_features(open_encoder(tmp_path / "b.pth", stem="cifar-pad2"), wide)


@pytest.mark.parametrize("dropped", [(), ("maxpool",), ("relu", "maxpool")])
def test_a_resnet_in_a_sequence_gets_its_names_back(dropped: tuple[str, ...], tmp_path: Path) -> None:
    network = resnet(padding=1) if dropped else resnet()
    children = [child for name, child in network.named_children() if name not in ("fc", *dropped)]
    sequence = nn.Sequential(*children)
    torch.save({"state_dict": under("backbone.", sequence)}, tmp_path / "lightly.ckpt")
    assert_same_features(open_encoder(tmp_path / "lightly.ckpt"), nn.Sequential(sequence, nn.Flatten()), 64)


def test_shortcuts_by_another_name_are_known(tmp_path: Path) -> None:
    network = resnet(padding=1)
    state = {
        key.replace("downsample", "shortcut"): value for key, value in under("encoder.", network).items()
    }
    torch.save(state, tmp_path / "kuangliu.pth")
    assert_same_features(open_encoder(tmp_path / "kuangliu.pth"), network)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qkv_bias": False},
        {"init_values": 1e-5},
        {"class_token": False, "global_pool": "avg"},
        {"global_pool": "avg", "fc_norm": True},
        {"embed_dim": 128, "num_heads": 2, "mlp_ratio": 2.0, "img_size": 64},
    ],
)
def test_transformers_are_told_by_their_shapes(options: dict[str, Any], tmp_path: Path) -> None:
    network: Any = vit(**options)
    for name, content in (
        ("plain.pth", dict(network.state_dict()) | {"head.weight": torch.zeros(10, network.embed_dim)}),
        (
            "dino.pth",
            {"teacher": under("backbone.", network), "student": under("module.backbone.", momentum(network))},
        ),
        (
            "mae.pth",
            {
                "model": dict(network.state_dict())
                | {"mask_token": HEAD["0.bias"], "decoder_embed.bias": HEAD["0.bias"]}
            },
        ),
    ):
        torch.save(content, tmp_path / name)
        model = open_encoder(tmp_path / name)
        assert_same_features(model, network)
        assert model.image_size == network.patch_embed.img_size[0]
        assert list(model.taps) == ["blocks.0", "blocks.1"]


def test_fixed_positions_mean_moco_v3s_twelve_heads(tmp_path: Path) -> None:
    network: Any = vit(embed_dim=384, num_heads=12)
    with torch.no_grad():
        network.pos_embed[:, 0] = 0
    torch.save({"state_dict": under("module.base_encoder.", network)}, tmp_path / "moco3.pth.tar")
    model = open_encoder(tmp_path / "moco3.pth.tar")
    assert_same_features(model, network)
    assert any("12 heads (as MoCo v3 has them)" in note for note in model.notes)


@pytest.mark.parametrize(
    ("arch", "make"),
    [
        ("convnext_atto", lambda: timm.create_model("convnext_atto", num_classes=0)),
        ("timm:resnet26d", lambda: timm.create_model("resnet26d", num_classes=0)),
        ("torchvision:convnext_tiny", lambda: torchvision.models.convnext_tiny()),
        ("densenet121", lambda: torchvision.models.densenet121()),
    ],
)
def test_a_named_architecture_is_found_under_any_prefix(
    arch: str, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    network: Any = shaken(make())
    torch.save({"state_dict": under("my.net.", network)}, tmp_path / "mine.ckpt")
    model = open_encoder(tmp_path / "mine.ckpt", arch=arch)
    if arch == "torchvision:convnext_tiny":
        network.classifier[2] = nn.Identity()
    if arch == "densenet121":
        network.classifier = nn.Identity()
    assert_same_features(model, network, 64)


def test_an_architecture_that_the_file_names_is_taken(tmp_path: Path) -> None:
    network = shaken(timm.create_model("convnext_atto", num_classes=0))
    torch.save({"arch": "convnext_atto", "state_dict": under("module.", network)}, tmp_path / "c.pth.tar")
    assert_same_features(open_encoder(tmp_path / "c.pth.tar"), network, 64)
