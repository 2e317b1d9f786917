"""The tutorial's transformer, tokens of backbones, and networks that are drawn anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fullrank.errors import UsageError
from fullrank.networks.backbones import build_backbone, features_and_tokens, reinitialized


def test_the_tutorials_transformer_has_its_shape() -> None:
    network: Any = build_backbone("vit-tutorial", 32).network
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 65, 256)
    assert len(network.blocks) == 6
    layer = network.blocks[0]
    assert layer.attn.num_heads == 4
    assert layer.mlp.fc1.out_features == 1024
    dropouts = {m.p for m in network.modules() if isinstance(m, nn.Dropout)} - {0.0}
    assert dropouts == {0.1}


def test_its_class_token_and_positions_start_as_standard_normals() -> None:
    network: Any = build_backbone("vit-tutorial", 32).network
    assert network.pos_embed.std().item() == pytest.approx(1.0, abs=0.05)
    assert network.cls_token.std().item() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("side", [8, 32, 48])
def test_it_takes_images_of_any_multiple_of_four_pixels_also_after_it_was_built(side: int) -> None:
    images = torch.zeros(2, 3, side, side)
    assert build_backbone("vit-tutorial", side).network(images).shape == (2, 256)
    assert build_backbone("vit-tutorial", 16).network(images).shape == (2, 256)


@pytest.mark.parametrize(
    ("size", "options", "says"),
    [
        (30, {}, "take --image-size 28"),
        (32, {"stem": "cifar"}, "drop --stem"),
        (32, {"zero_init_residual": True}, "is for ResNets"),
    ],
)
def test_what_it_cannot_be_is_refused(size: int, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_backbone("vit-tutorial", size, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "side", "count"),
    [
        ("vit-tutorial", 16, 16),
        ("vit_tiny_patch16_224", 32, 4),
        ("deit_tiny_distilled_patch16_224", 32, 4),
        ("resnet18", 32, 16),
        ("convnext_atto", 64, 4),
        ("swin_tiny_patch4_window7_224", 224, 49),
        ("resnet8-w16", 16, 1),
        ("mobilenetv3_small_050", 64, 1),
    ],
)
def test_tokens_of_a_backbone_have_the_width_of_its_features(name: str, side: int, count: int) -> None:
    backbone = build_backbone(name, side)
    network, images = backbone.network.eval(), torch.randn(2, 3, side, side)
    with torch.no_grad():
        features, tokens = features_and_tokens(network, images, backbone.feature_dim)
        torch.testing.assert_close(features, network(images))
    assert tokens.shape == (2, count, backbone.feature_dim)


@pytest.mark.parametrize(("name", "side"), [("vit-tutorial", 16), ("resnet18", 32)])
def test_features_are_the_mean_of_the_tokens_where_a_backbone_averages(name: str, side: int) -> None:
    backbone = build_backbone(name, side)
    with torch.no_grad():
        features, tokens = features_and_tokens(
            backbone.network.eval(), torch.randn(2, 3, side, side), backbone.feature_dim
        )
    torch.testing.assert_close(features, tokens.mean(dim=1))


def test_a_reinitialized_network_has_other_weights_of_the_same_spread() -> None:
    first = build_backbone("resnet8-w16", 16).network
    second = reinitialized(first)
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours.std(), theirs.std())
        if ours.std() > 0:
            assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1].abs() < 0.2


def test_a_reinitialized_network_keeps_what_starts_constant_what_is_not_trained_and_the_first_network() -> (
    None
):
    first = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    first[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    second = reinitialized(first).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert [name for name in before if not torch.equal(before[name], second[name])] == ["0.weight"]
