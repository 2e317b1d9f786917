"""Backbones, heads and momentum copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.networks.architecture import build_by_shapes
from fullrank.networks.backbones import OWN_BACKBONES, CifarResNet, build_backbone, default_backbone
from fullrank.networks.heads import mlp
from fullrank.networks.momentum import cosine_tau
from fullrank.networks.processes import synchronise_batch_norm


@pytest.mark.parametrize("name", list(OWN_BACKBONES))
def test_every_narrow_resnet_gives_pooled_features(name: str) -> None:
    backbone = build_backbone(name, 16)
    assert backbone.network(torch.zeros(2, 3, 16, 16)).shape == (2, backbone.feature_dim)


@pytest.mark.parametrize(
    ("stem", "side"), [("cifar", 32), ("cifar-pad2", 34), ("auto", 32), ("imagenet", 16)]
)
def test_the_stem_decides_the_size_of_the_first_maps(stem: str, side: int) -> None:
    network = build_backbone("resnet18", 32, stem=stem).network  # type: ignore[arg-type]
    assert network.conv1(torch.zeros(1, 3, 32, 32)).shape[-1] == side  # type: ignore[operator]


@pytest.mark.parametrize(
    ("size", "stem", "kernel"), [(32, "cifar", 3), (64, "cifar", 3), (96, "imagenet", 7)]
)
def test_a_narrow_resnet_has_a_large_stem_for_large_images_only(size: int, stem: str, kernel: int) -> None:
    built = build_backbone("resnet8-w4", size)
    assert built.stem == stem
    assert built.network.conv1.kernel_size == (kernel, kernel)  # type: ignore[union-attr]
    assert build_backbone("resnet8-w4", size, stem=stem).feature_dim == 16


def test_weights_tell_the_stem_of_a_narrow_resnet() -> None:
    for size in (32, 224):
        weights = build_backbone("resnet8-w4", size).network.state_dict()
        built = build_by_shapes(weights)
        assert built is not None and built.small == (size == 32)
        built.network.load_state_dict(weights)


def test_large_images_keep_the_imagenet_stem() -> None:
    assert build_backbone("resnet18", 224).stem == "imagenet"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"])
def test_any_timm_name_is_built_for_small_images(name: str) -> None:
    backbone = build_backbone(name, 32)
    assert backbone.network(torch.zeros(2, 3, 32, 32)).shape == (2, backbone.feature_dim)


def test_zero_init_residual_makes_every_block_start_as_its_shortcut() -> None:
    for name in ("resnet8-w16", "resnet18"):
        network = build_backbone(name, 32, zero_init_residual=True).network
        gains = [m.weight for n, m in network.named_modules() if n.endswith("bn2")]
        assert gains
        assert all((gain == 0).all() for gain in gains)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnt18", {}, "did you mean 'resnet18'"),
        ("vit_tiny_patch16_224", {"stem": "cifar"}, "drop --stem"),
        ("vit_tiny_patch16_224", {"zero_init_residual": True}, "is for ResNets"),
        ("vit_tiny_patch16_224", {"image_size": 20}, "take --image-size 16"),
        ("resnet8-w16", {"stem": "cifar-pad2"}, "has no stem of padding 2"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=says):
        build_backbone(name, **({"image_size": 32} | options))  # type: ignore[arg-type]


def test_the_depth_of_a_cifar_resnet_is_six_m_plus_two() -> None:
    with pytest.raises(UsageError, match="6m"):
        CifarResNet(10, 16)


def test_the_default_backbone_follows_the_image_size() -> None:
    assert default_backbone(224) == "resnet18"


def test_an_output_bn_freezes_the_bias_that_it_undoes() -> None:
    head = mlp([4, 8, 2], output_bn=True)
    assert not head[3].bias.requires_grad
    z = head(torch.randn(64, 4))
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2), atol=1e-2, rtol=0)


def test_tau_rises_from_base_to_final() -> None:
    taus = [cosine_tau(0.9, 1.0, t / 10) for t in range(11)]
    assert taus == sorted(taus)


@pytest.mark.parametrize("name", ["resnet8-w16", "mobilenetv3_small_050"])
def test_synchronised_batch_norm_changes_nothing_in_one_process(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    network = build_backbone(name, 32).network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    state = {key: value.clone() for key, value in network.state_dict().items()}
    plain = network(x)
    network.load_state_dict(state)
    synchronised = synchronise_batch_norm(network, torch.device("cpu"))
    assert set(synchronised.state_dict()) == set(state)
    torch.testing.assert_close(synchronised(x), plain)


@pytest.mark.parametrize(
    "name", ["resnet8-w999999999", "resnet8-w" + "9" * 5000, "resnet8-w0", "resnet9-w16"]
)
def test_a_narrow_resnet_of_a_size_that_cannot_be_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UsageError):
        build_backbone(name, 32)
