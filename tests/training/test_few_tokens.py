"""A transformer that cuts small images into a handful of patches is not taken in silence."""

from __future__ import annotations

import pytest

from fullrank.networks.backbones import build_backbone
from fullrank.training.networks import few_tokens_note


def note(name: str, size: int, loaded: bool = False) -> str:
    return " ".join(few_tokens_note(build_backbone(name, size).network, name, size, loaded))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vit_tiny_patch16_224(depth=1)", 32, "32 pixels into 2 x 2 patches of 16: so few tokens (4)"),
        ("vit_tiny_patch16_224(depth=1)", 48, "48 pixels into 3 x 3 patches of 16: so few tokens (9)"),
        ("vit_small_patch32_224(depth=1)", 32, "32 pixels into 1 x 1 patches of 32: so few tokens (1)"),
    ],
)
def test_few_patches_are_named(name: str, size: int, said: str) -> None:
    assert said in note(name, size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224(depth=1)", 64),
        ("vit_tiny_patch16_224(depth=1, patch_size=4)", 32),
        ("resnet8-w4", 8),
        ("resnet18", 32),
    ],
)
def test_nothing_is_said_of_enough_patches_or_of_none(name: str, size: int) -> None:
    assert note(name, size) == ""


def test_the_backbone_that_is_proposed_can_be_built_and_cuts_more() -> None:
    proposed = note("vit_tiny_patch16_224(depth=1)", 32).split("'")[1]
    assert note(proposed, 32) == ""


def test_weights_that_are_there_keep_their_patches() -> None:
    assert "--backbone" not in note("vit_tiny_patch16_224(depth=1)", 32, loaded=True)
