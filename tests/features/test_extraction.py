"""Images become rows as by hand: eval mode, the model's normalisation, any tap, in order."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder, find_taps, make_encoder
from fullrank.encoders.hooks import pool, take_taps, which_taps
from fullrank.errors import UnknownNameError, UsageError
from fullrank.features.extraction import embed_images
from fullrank.images.sources import MemorySource
from fullrank.networks.architecture import Built

MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)


def source(n: int = 11, size: int = 32, labels: bool = True) -> MemorySource:
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)
    return MemorySource(
        name="noise", images=images, labels=np.arange(n) if labels else None, mean=MEAN, std=STD
    )


def resnet(**options: Any) -> Encoder:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(cast(torch.Tensor, module.running_mean))
    return make_encoder(Built("resnet18", network), origin="here", image_size=32, recorded=True, **options)


def vit(**options: Any) -> Encoder:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=3, **options)
    return make_encoder(Built("vit", network, 32), origin="here")


def normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images / 255 - shift) / scale


def embedded(model: Encoder, data: MemorySource, **options: Any) -> dict[str, Tensor]:
    parts = list(embed_images(model, data, device="cpu", **options))
    return {tap: torch.cat([part.rows[tap] for part in parts]) for tap in parts[0].rows}


def test_features_are_the_networks_in_eval_mode() -> None:
    model, data = resnet(mean=MEAN, std=STD), source()
    model.network.train()
    rows = embedded(model, data)["features"]
    assert model.network.training, "the mode is as it was"
    with torch.no_grad():
        expected = model.network.eval()(normalised(data.images, MEAN, STD))
    assert torch.allclose(rows, expected, atol=1e-5) and not rows.requires_grad


def test_without_a_record_images_are_normalised_by_their_own_mean() -> None:
    model, data = resnet(), source()
    assert torch.allclose(embedded(resnet(mean=MEAN, std=STD), data)["features"], embedded(
        Encoder(model.name, model.network, 512, 32), data)["features"])  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_matter_and_labels_come_along(batch_size: int) -> None:
    model, data = resnet(), source()
    whole = embedded(model, data, batch_size=11)["features"]
    parts = list(embed_images(model, data, None, batch_size, "cpu"))
    assert torch.allclose(torch.cat([part.rows["features"] for part in parts]), whole, atol=1e-5)
    assert torch.cat([part.indices for part in parts]).tolist() == list(range(11))
    assert torch.cat([part.labels for part in parts if part.labels is not None]).tolist() == list(range(11))
    assert all(part.labels is None for part in embed_images(model, source(labels=False), device="cpu"))


def test_processes_share_the_images() -> None:
    model, data = resnet(), source()
    parts = [
        torch.cat([part.indices for part in embed_images(model, data, rank=r, world_size=3)])
        for r in range(3)
    ]
    assert torch.cat(parts).tolist() == list(range(11))


def test_images_of_another_size_are_resized_and_cropped() -> None:
    from fullrank.images.decoding import fit

    model, data = resnet(mean=MEAN, std=STD, crop_ratio=0.8), source(size=50)
    with torch.no_grad():
        expected = model.network(normalised(fit(data.images, 32, 32, 0.8), MEAN, STD))
    assert torch.allclose(embedded(model, data)["features"], expected, atol=1e-5)


def test_taps_of_a_convolutional_network_are_means_of_its_maps() -> None:
    model, data = resnet(mean=MEAN, std=STD), source()
    rows = embedded(model, data, taps=["all", "layer3.0"])
    assert list(rows) == ["act1", "layer1", "layer2", "layer3", "layer4", "features", "layer3.0"]
    assert [part.shape[1] for part in rows.values()] == [64, 64, 128, 256, 512, 512, 256]
    assert torch.allclose(rows["layer4"], rows["features"], atol=1e-5), "which ends in the mean"
    network: Any = model.network
    with torch.no_grad():
        maps = network.layer1(
            network.maxpool(network.act1(network.bn1(network.conv1(normalised(data.images, MEAN, STD)))))
        )
    assert torch.allclose(rows["layer1"], maps.mean((2, 3)), atol=1e-5)
    assert not any(module._forward_hooks for module in network.modules()), "no hook is left behind"


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_taps_of_a_transformer_are_means_of_patches_or_the_class_token(pooling: str) -> None:
    model, data = vit(global_pool=pooling), source()
    network: Any = model.network
    images = normalised(data.images, model.mean, model.std)
    with torch.no_grad():
        tokens, last = network.forward_intermediates(images, indices=[0, 1, 2], norm=False, output_fmt="NLC")[
            ::-1
        ]
    assert list(model.taps) == ["blocks.0", "blocks.1", "blocks.2"] and last is not None
    means = embedded(model, data, taps=["all"])
    for k in range(3):
        assert torch.allclose(means[f"blocks.{k}"], tokens[k].mean(1), atol=1e-5)
    firsts = embedded(model, data, taps=["blocks.2"], tokens="class")["blocks.2"]
    with torch.no_grad():
        assert (
            torch.allclose(network.norm(firsts), network.forward_features(images)[:, 0], atol=1e-5)
            or pooling == "avg"
        )


def test_maps_with_channels_last_are_told() -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, num_classes=0)
    model = make_encoder(Built("swin", network, 64), origin="here")
    rows = embedded(model, source(n=2, size=64), taps=list(model.taps))
    assert [part.shape[1] for part in rows.values()] == [96, 192, 384, 768]
    assert pool(torch.zeros(2, 8, 4, 4)).shape == (2, 8)
    assert pool(torch.zeros(2, 4, 4, 8)).shape == (2, 8)
    assert pool(torch.zeros(2, 4, 6, 8), channels_last=True).shape == (2, 8)


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("resnet18", "relu", 5),
        ("vit_b_16", "encoder.layers.encoder_layer_0", 12),
        ("convnext_tiny", "features.0", 8),
    ],
)
def test_taps_of_torchvision_are_found(name: str, first: str, count: int) -> None:
    with torch.device("meta"):
        taps = find_taps(torchvision.models.get_model(name, weights=None))
    assert next(iter(taps)) == first and len(taps) == count


def test_what_cannot_be_tapped_is_one_line() -> None:
    model, data = resnet(), source()
    with pytest.raises(
        UnknownNameError, match=r"unknown layer 'layer5'; did you mean 'layer[1-4]'.*usual ones here are act1"
    ):
        embed_images(model, data, ["layer5"])
    with pytest.raises(UsageError, match="no tap is named"):
        which_taps(model, [])
    with pytest.raises(UsageError, match="not positive"):
        embed_images(model, data, batch_size=0)
    model.network.idle = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="'idle' is not run"):
        next(embed_images(model, data, ["idle"], device="cpu"))
    outputs: tuple[object, ...] = (torch.zeros(3), None, {}, ())
    for output in outputs:
        with pytest.raises(UsageError, match="has no rows"):
            pool(output, "odd")


def test_hooks_are_taken_off_where_the_network_fails() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError), take_taps({"first": network[0]}):
        network(torch.zeros(1, 3))
    assert not network[0]._forward_hooks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_rows() -> None:
    model, data = resnet(), source()
    expected = embedded(model, data)["features"]
    found = torch.cat([part.rows["features"] for part in embed_images(model, data, device="cuda")])
    assert found.device.type == "cpu" and torch.allclose(found, expected, rtol=1e-2, atol=1e-3)
