"""How many directions the layer outputs of anybody's encoder can span."""

from __future__ import annotations

import pytest
import timm
import torchvision
from torch import nn

from fullrank.encoders.encoder import Encoder, make_encoder
from fullrank.encoders.hooks import capacities, which_taps
from fullrank.networks.architecture import Built


def encoder(network: nn.Module, size: int) -> Encoder:
    return make_encoder(Built("made", network, size), origin="memory")


def of_features(network: nn.Module, size: int) -> int:
    model = encoder(network, size)
    return capacities(model, which_taps(model, None))["features"]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_features_of_a_timm_model_fill_their_width(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    assert of_features(network, 224) == network.num_features


def test_a_narrow_layer_at_the_end_of_a_torchvision_model_is_its_capacity() -> None:
    network = torchvision.models.resnet18()
    network.fc = nn.Sequential(nn.Linear(512, 48), nn.Linear(48, 2048))
    assert of_features(network, 64) == 48


def test_a_narrow_convolution_at_the_end_is_the_capacity() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 1), nn.Conv2d(5, 32, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    assert of_features(network, 8) == 5


def test_every_tap_has_its_own_capacity() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 24, 1)),
        nn.Sequential(nn.ReLU(), nn.Conv2d(24, 32, 3)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(32, 6), nn.Linear(6, 64)),
    )
    model = encoder(network, 8)
    found = capacities(model, which_taps(model, ["0", "1", "features"]))
    assert found == {"0": 3, "1": 32, "features": 6}


class Refusing(nn.Module):
    """A network that works once, on the one image that it is opened with."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x):  # type: ignore[no-untyped-def]
        if len(x) != 1:
            raise RuntimeError("one image at a time")
        return self.first(x).mean((2, 3))


def test_of_a_network_that_cannot_be_followed_nothing_is_known() -> None:
    model = encoder(Refusing(), 8)
    assert capacities(model, which_taps(model, None)) == {}
