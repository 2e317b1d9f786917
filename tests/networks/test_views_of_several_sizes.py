"""Transformers take views of several sizes, and say which they cannot."""

from __future__ import annotations

import pytest
import torch

from fullrank.errors import UsageError
from fullrank.networks.backbones import build_backbone


def test_a_transformer_takes_small_crops_beside_whole_images() -> None:
    network = build_backbone("vit_tiny_patch16_224", 64, sides={64, 32}).network.eval()
    assert network(torch.zeros(2, 3, 32, 32)).shape == network(torch.zeros(2, 3, 64, 64)).shape


def test_whole_images_have_the_features_that_they_have_without_crops() -> None:
    torch.manual_seed(0)
    one = build_backbone("vit_tiny_patch16_224", 64).network.eval()
    other = build_backbone("vit_tiny_patch16_224", 64, sides={32}).network.eval()
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(one(images), other(images))


@pytest.mark.parametrize(
    ("name", "sides", "says"),
    [
        ("vit_tiny_patch16_224", {40}, "patches of 16 pixels: 40 is no multiple; take --views without"),
        ("mixer_s16_224", {32}, "takes images of one size, and the views have 2: take --views of one"),
    ],
)
def test_crops_that_it_cannot_take_are_refused_in_a_line(name: str, sides: set[int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_backbone(name, 64, sides=sides)
