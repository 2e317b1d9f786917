"""A run starts from anybody's weights: at step 0 its features are the source's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fullrank
from encoders.foreign_layouts import dino, lightly, momentum, resnet, shaken, solo, under, vit
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.export.rebuilt import difference
from fullrank.encoders.initial import open_initial_weights
from fullrank.encoders.opening import open_encoder
from fullrank.errors import UsageError
from fullrank.networks.backbones import build_backbone
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.setup import Setup, prepare, setup

NARROW = {"proj_hidden_dim": 8, "proj_output_dim": 8, "pred_hidden_dim": 8}


def settings(what: Path | str, **more: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "method": "byol", "data": "shapes", "limit": 16, "batch_size": 8, "accelerator": "cpu",
        "init": str(what), "options": NARROW, "views": "shapes",
    }  # fmt: skip
    return TrainConfig(**values | more)


def started(what: Path | str, **more: Any) -> Setup:
    """A run as it is before its first step."""
    config = settings(what, **more)
    initial, fabric = open_initial_weights(config), launch_fabric(config)
    config, data = prepare(config, fabric, None, initial)
    s = setup(config, data, fabric, initial)
    s.method.eval()
    return s


def assert_starts_as(s: Setup, source: Encoder) -> None:
    source = replace(source, image_size=s.config.image_size)
    assert difference(s.method.backbone, source) < 1e-5
    target: Any = s.method.target
    assert difference(target["backbone"], source) < 1e-5


def solo_folder(folder: Path) -> Path:
    torch.save(solo(resnet(padding=2)), folder / "byol-ep=9.ckpt")
    (folder / "args.json").write_text(json.dumps({"method": "byol", "backbone": {"name": "resnet18"}}))
    return folder


def checkpoint(layout: Callable[[nn.Module], dict[str, Any]], network: Callable[[], nn.Module]) -> Any:
    def write(folder: Path) -> Path:
        torch.save(layout(network()), folder / "last.ckpt")
        return folder / "last.ckpt"

    return write


def dino_vit(network: nn.Module) -> dict[str, Any]:
    return {
        "teacher": under("backbone.", network),
        "student": under("module.backbone.", momentum(network)),
    }


def transformers_folder(kind: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        transformers = pytest.importorskip("transformers")
        blocks = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
        sizes: dict[str, dict[str, Any]] = {
            "ViT": {**blocks, "intermediate_size": 48, "image_size": 32},
            "Dinov2": {**blocks, "image_size": 32},
            "ResNet": {"depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
            "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
        }
        config = getattr(transformers, f"{kind}Config")(**sizes[kind] | options)
        encoder: Any = shaken(getattr(transformers, f"{kind}Model")(config))
        encoder.save_pretrained(folder)
        seen = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(json.dumps(seen))
        return folder

    return write


def exported(to: str, backbone: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        network = shaken(build_backbone(backbone, 32).network)
        header = {
            "format": "fullrank-encoder", "backbone": backbone, "image_size": "32",
            "stem": "cifar" if "resnet" in backbone else "auto",
            "mean": "[0.4, 0.4, 0.4]", "std": "[0.2, 0.2, 0.2]",
        }  # fmt: skip
        save_file(network.state_dict(), folder / "encoder.safetensors", header)
        if not to:
            return folder / "encoder.safetensors"
        fullrank.export(folder / "encoder.safetensors", to, folder / "exported")
        return folder / "exported" if to == "timm" else folder / "exported" / "model.pth"

    return write


SOURCES: dict[str, Callable[[Path], Path]] = {
    "solo-learn": solo_folder,
    "lightly": checkpoint(lightly, resnet),
    "DINO": checkpoint(dino, resnet),
    "DINO's ViT": checkpoint(dino_vit, vit),
    "a ViT of patch means": checkpoint(dino_vit, lambda: vit(class_token=False, global_pool="avg")),
    "a state dict": checkpoint(lambda network: dict(network.state_dict()), lambda: resnet(padding=1)),
    "a ViT exported for timm": exported("timm", "vit_tiny_patch16_224(patch_size=8, depth=2)"),
    "an encoder exported for torchvision": exported("torchvision", "resnet18"),
    "our encoder": exported("", "resnet8-w16"),
    **{
        f"a {kind} of transformers": transformers_folder(kind)
        for kind in ("ViT", "Dinov2", "ResNet", "ConvNext")
    },
}


@pytest.mark.parametrize("source", list(SOURCES))
def test_features_at_step_0_are_those_of_the_source(source: str, tmp_path: Path) -> None:
    what = SOURCES[source](tmp_path)
    s = started(what, image_size=0)
    assert_starts_as(s, open_encoder(what))
    (note,) = (note for note in s.notes if note.startswith("backbone from "))
    assert "(100 % of the parameters)" in note


@pytest.mark.parametrize("source", ["a ViT exported for timm", "our encoder", "a ViT of transformers"])
def test_normalisation_and_size_follow_a_source_that_names_them(source: str, tmp_path: Path) -> None:
    s = started(SOURCES[source](tmp_path))
    assert s.config.image_size == 32
    assert s.views.mean == (0.4, 0.4, 0.4) and s.views.std == (0.2, 0.2, 0.2)


def test_what_is_asked_for_wins_over_the_source(tmp_path: Path) -> None:
    what = exported("", "resnet8-w16")(tmp_path)
    s = started(what, image_size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    assert (s.config.image_size, s.views.mean) == (16, (0.1, 0.2, 0.3))


def test_a_size_that_weights_do_not_tell_is_the_images_own(tmp_path: Path) -> None:
    s = started(SOURCES["lightly"](tmp_path))
    assert s.config.image_size == 16
    assert any("ImageNet's mean and std: the weights do not tell" in note for note in s.notes)


def test_positions_are_interpolated_to_another_size(tmp_path: Path) -> None:
    from timm.layers.pos_embed import resample_abs_pos_embed

    what = SOURCES["DINO's ViT"](tmp_path)
    s = started(what, image_size=64)
    source: Any = open_encoder(what).network
    expected = resample_abs_pos_embed(source.pos_embed, [8, 8], num_prefix_tokens=1)
    network: Any = s.method.backbone
    assert torch.allclose(network.pos_embed, expected, atol=1e-6)
    assert "(100 % of the parameters)" in s.notes[0]


@pytest.mark.parametrize("image_size", [0, 48])
def test_positions_of_transformers_are_interpolated_as_it_does(image_size: int, tmp_path: Path) -> None:
    what = transformers_folder("Dinov2", image_size=64)(tmp_path)  # seen at 32 pixels
    s = started(what, image_size=image_size)
    assert s.config.image_size == (image_size or 32)
    assert_starts_as(s, open_encoder(what))


def test_a_stem_of_another_size_is_named(tmp_path: Path) -> None:
    s = started(SOURCES["lightly"](tmp_path), stem="cifar")
    assert "119 of 120 tensors" in s.notes[0]
    assert "not there: conv1.weight (64x3x7x7 for 64x3x3x3)" in s.notes[0]


def test_a_named_backbone_takes_the_tensors_of_its_names_from_any_file(tmp_path: Path) -> None:
    network = shaken(build_backbone("convnext_atto(depths=(1, 1, 1, 1))", 32).network)
    state = under("net.", network) | {"net.extra": torch.ones(1)}
    del state["net.stem.0.bias"]
    torch.save(state, tmp_path / "mine.pth")
    s = started(tmp_path / "mine.pth", backbone="convnext_atto(depths=(1, 1, 1, 1))", image_size=32)
    assert torch.equal(
        s.method.backbone.state_dict()["stem.0.weight"].contiguous(), state["net.stem.0.weight"]
    )
    assert "not there: stem.0.bias" in s.notes[0] and "left over: extra" in s.notes[0]


def test_an_architecture_that_is_not_recognised_asks_for_a_backbone(tmp_path: Path) -> None:
    torch.save({"net.a.weight": torch.ones(2, 2), "net.a.bias": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="name it, as --backbone resnet50"):
        started(tmp_path / "x.pth")


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    what = SOURCES["lightly"](tmp_path)
    with pytest.raises(
        UsageError,
        match=r"does not fit this backbone: .* tensors .*; leave --backbone out",
    ):
        started(what, backbone="vit_tiny_patch16_224(depth=1)", image_size=32)


def test_a_network_that_cannot_be_built_here_is_refused_in_one_line(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4, "patch_size": 2}
    transformers.SwinModel(transformers.SwinConfig(image_size=32, **small)).save_pretrained(tmp_path)
    with pytest.raises(
        UsageError, match="is none that can be built here: name one that is like it with --backbone"
    ):
        started(tmp_path)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("resnet18.a1_in1k", "--download"),
        ("nowhere/x.pth", "does not exist"),
        ("resnet81", "unknown model 'resnet81'; did you mean"),
    ],
)
def test_nothing_is_fetched_and_nothing_written_for_weights_that_are_not_here(
    what: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UsageError, match=says):
        fullrank.train("simsiam", init=what, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "follows"),
    [
        ({"teacher": "ema"}, True),
        ({"teacher": "copied"}, True),
        ({"teacher": "frozen"}, False),
        ({"teacher": "frozen", "independent_init": False}, True),
        ({"teacher": "trained"}, False),
    ],
)
def test_a_teacher_that_follows_the_student_starts_as_it_does(
    options: dict[str, Any], follows: bool, tmp_path: Path
) -> None:
    s = started(exported("", "resnet8-w16")(tmp_path), method="teacher_student", options=options)
    target: Any = s.method.target
    same = [
        torch.equal(a, b)
        for a, b in zip(s.method.backbone.parameters(), target["backbone"].parameters(), strict=True)
    ]
    assert all(same) is follows
    assert any(p.requires_grad for p in target.parameters()) is (options["teacher"] == "trained")


def test_a_random_target_stays_random(tmp_path: Path) -> None:
    s = started(exported("", "resnet8-w16")(tmp_path), method="distill", options={})
    target: Any = s.method.target
    assert not torch.equal(s.method.backbone.state_dict()["conv1.weight"], target["backbone"].conv1.weight)
