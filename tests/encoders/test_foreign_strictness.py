"""What does not fit is refused in one line, no code is run, and libraries open by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from encoders.foreign_layouts import (
    ShellTrap,
    assert_same_features,
    head,
    plain,
    resnet,
    shaken,
    simsiam,
    under,
)
from fullrank.encoders.opening import is_encoder, open_encoder
from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.networks.backbones import CifarResNet, build_backbone
from fullrank.training.config import TrainConfig
from fullrank.training.run_dir import RunDir

# strictness


def assert_refused(what: Any, *words: str, **options: Any) -> None:
    with pytest.raises(UsageError) as caught:
        open_encoder(what, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500, line
    for word in words:
        assert word in line, line


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    state = simsiam(resnet())
    del state["state_dict"]["module.encoder.layer3.1.conv2.weight"]
    del state["state_dict"]["module.encoder.layer3.1.bn2.running_var"]
    torch.save(state, tmp_path / "s.pth.tar")
    assert_refused(
        tmp_path / "s.pth.tar", "is no resnet18", "2 of 120 weights missing (layer3.1.conv2.weight"
    )


def test_a_weight_too_many_is_refused(tmp_path: Path) -> None:
    torch.save(plain(resnet()) | {"layer3.1.se.weight": torch.zeros(3)}, tmp_path / "s.pth")
    assert_refused(tmp_path / "s.pth", "1 left over (layer3.1.se.weight)")


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    torch.save(plain(resnet()) | {"layer4.0.conv1.weight": torch.zeros(512, 256, 1, 1)}, tmp_path / "s.pth")
    assert_refused(tmp_path / "s.pth", "layer4.0.conv1.weight [512, 256, 1, 1] for [512, 256, 3, 3]")


def test_old_files_may_lack_the_counters_of_batches(tmp_path: Path) -> None:
    network = resnet()
    state = {key: value for key, value in plain(network).items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same_features(open_encoder(tmp_path / "old.pth"), network, 64)


def test_a_wrong_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(simsiam(resnet()), tmp_path / "s.pth.tar")
    assert_refused(tmp_path / "s.pth.tar", "is no resnet50", "weights missing", arch="resnet50")
    assert_refused(tmp_path / "s.pth.tar", "did you mean 'resnet18'", arch="resnt18")


def test_what_is_not_recognised_says_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "l.pth")
    assert_refused(tmp_path / "l.pth", "no backbone is recognised among 2 weights (weight, bias", "--arch")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    assert_refused(tmp_path / "e.pth", "holds no weights")
    torch.save({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, tmp_path / "w.pth")
    assert_refused(tmp_path / "w.pth", "no backbone is recognised")


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_in_a_checkpoint_is_run(legacy: bool, tmp_path: Path) -> None:
    content = simsiam(resnet()) | {"extra": ShellTrap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "s.pth.tar", _use_new_zipfile_serialization=not legacy)
    assert_refused(tmp_path / "s.pth.tar", "to be run, which is refused")
    torch.save(resnet(), tmp_path / "whole.pth")
    assert_refused(
        tmp_path / "whole.pth", "asks for torchvision.models.resnet.ResNet to be run", "state_dict"
    )
    assert not (tmp_path / "sprung").exists()


def test_random_numbers_are_left_as_they_were(tmp_path: Path) -> None:
    torch.save(plain(resnet()), tmp_path / "s.pth")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    open_encoder(tmp_path / "s.pth")
    open_encoder("timm:resnet18", pretrained=False)
    assert torch.equal(torch.rand(3), expected)


# our own


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, nn.Module]:
    config = TrainConfig(data="shapes", backbone="resnet8-w16", image_size=16)
    directory = RunDir.create(tmp_path / "run", config)
    backbone = build_backbone("resnet8-w16", 16)
    network = shaken(backbone.network)
    header: dict[str, object] = {"backbone": "resnet8-w16", "stem": backbone.stem}
    header |= {"feature_dim": 64, "image_size": 16}
    header |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "method": "simsiam", "epoch": 3}
    directory.save_encoder(network.state_dict(), header)
    directory.checkpoints.write({"method": under("backbone.", network) | head("projector."), "progress": {}})
    return tmp_path / "run", network


def test_a_run_of_ours_opens_as_its_header_says(run: tuple[Path, nn.Module]) -> None:
    path, network = run
    for where in (path, path / "encoder.safetensors", path / "checkpoints" / "last.pt"):
        model = open_encoder(where)
        assert_same_features(model, network)
        assert (model.image_size, model.mean, model.std) == (16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert model.name == "resnet8-w16" and list(model.taps) == ["blocks.0", "blocks.1", "blocks.2"]
    assert "simsiam after 3 epochs" in open_encoder(path).origin


def test_our_narrow_resnets_are_told_by_their_shapes(tmp_path: Path) -> None:
    network = shaken(CifarResNet(14, 32))
    torch.save(network.state_dict(), tmp_path / "n.pt")
    model = open_encoder(tmp_path / "n.pt")
    assert_same_features(model, network)
    assert model.name == "resnet14-w32"


def test_a_run_without_an_encoder_is_one_line(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "run", TrainConfig())
    assert_refused(tmp_path / "run", "has no encoder.safetensors yet")


# libraries


def test_names_of_libraries_open_untrained_on_request() -> None:
    for spec, dim in (("resnet18", 512), ("timm:vit_tiny_patch16_224", 192), ("torchvision:resnet18", 512)):
        model = open_encoder(spec, pretrained=False)
        assert model.feature_dim == dim and any("untrained" in note for note in model.notes)
        assert model.mean == (0.485, 0.456, 0.406) or "vit" in spec


def test_nothing_is_fetched_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert_refused("timm:resnet18.a1_in1k", "not on this machine: fetch them with --download")
    assert_refused("torchvision:resnet18", "not on this machine")
    pytest.importorskip("transformers")
    assert_refused("hf:facebook/dinov2-small", "not on this machine")


def test_weights_in_the_caches_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = shaken(torchvision.models.resnet18())
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    network.fc = nn.Identity()
    assert_same_features(open_encoder("torchvision:resnet18"), network, 64)

    tiny: Any = shaken(timm.create_model("test_vit"))
    cached = tmp_path / "model.safetensors"
    save_file(tiny.state_dict(), cached)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name: str(cached))
    tiny.reset_classifier(0)
    model = open_encoder("timm:test_vit.r160_in1k")
    assert_same_features(model, tiny)
    assert model.image_size == 160 and not model.notes


def test_a_directory_of_timm_opens(tmp_path: Path) -> None:
    network: Any = shaken(timm.create_model("test_vit", num_classes=5, global_pool="avg"))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    given = {
        "input_size": [3, 160, 160],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "crop_pct": 0.9,
        "num_classes": 5,
    }
    config = {"architecture": "test_vit", "num_classes": 5, "global_pool": "avg", "pretrained_cfg": given}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network.reset_classifier(0)
    model = open_encoder(tmp_path)
    assert_same_features(model, network)
    assert (model.image_size, model.mean, model.crop_ratio) == (160, (0.5,) * 3, 0.9)
    broken = network.state_dict()
    del broken["norm.weight" if "norm.weight" in broken else "fc_norm.weight"]
    save_file(broken, tmp_path / "model.safetensors")
    assert_refused(tmp_path, "cannot be built", "norm.weight")


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "ResNet", "ConvNext", "Swin"])
def test_a_directory_of_transformers_opens(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    blocks = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    small: dict[str, dict[str, Any]] = {
        "ViT": {**blocks, "intermediate_size": 48, "image_size": 32},
        "Dinov2": {**blocks, "image_size": 32},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
        "Swin": {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4, "patch_size": 2},
    }
    small["Swin"]["image_size"] = 32
    config = getattr(transformers, f"{kind}Config")(**small[kind])
    encoder: Any = shaken(getattr(transformers, f"{kind}Model")(config))
    encoder.save_pretrained(tmp_path)
    seen = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(seen))
    model = open_encoder(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = encoder(pixel_values=images)
        expected = output.last_hidden_state[:, 0] if kind == "ViT" else output.pooler_output.flatten(1)
        assert torch.allclose(model.network(images), expected, atol=1e-6)
    assert model.image_size == 32 and model.mean == (0.5, 0.5, 0.5) and len(model.taps) > 1


def test_transformers_weights_that_are_missing_are_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    transformers.ResNetModel(config).save_pretrained(tmp_path)
    from safetensors.torch import load_file

    state = load_file(tmp_path / "model.safetensors")
    state.pop(next(key for key in state if key.endswith("convolution.weight")))
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    assert_refused(tmp_path, "lacks 1 weights of its architecture", "convolution.weight")


def test_names_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    assert_refused("resnt18", "unknown model 'resnt18'; did you mean 'resnet18'")
    assert_refused("timm:resnt18", "unknown timm model")
    assert_refused("timm:resnet18.no_such_tag", "unknown weights of a timm model")
    assert_refused("torchvision:resnt18", "did you mean 'resnet18'")
    (tmp_path / "last.ckpt").write_bytes(b"x")
    assert_refused(tmp_path / "lst.ckpt", f"does not exist; did you mean {tmp_path / 'last.ckpt'}?")
    assert_refused(tmp_path, "holds no model")
    assert_refused(tmp_path / "last.ckpt", "no file of torch.save")
    (tmp_path / "x.onnx").write_bytes(b"x")
    assert_refused(tmp_path / "x.onnx", "no ending of a checkpoint")
    assert_refused("timm:resnet18", "not positive", image_size=0)
    with pytest.raises(UnknownNameError):
        open_encoder("timm:nothing")
    with pytest.raises(DataError):
        open_encoder(tmp_path / "x.ckpt")


def test_models_are_told_from_embeddings(run: tuple[Path, nn.Module], tmp_path: Path) -> None:
    torch.save(plain(resnet()), tmp_path / "m.pt")
    torch.save({"z": torch.zeros(3, 2), "y": torch.zeros(3)}, tmp_path / "z.pt")
    save_file({"features": torch.zeros(3, 2)}, tmp_path / "z.safetensors")
    for model in (
        "resnet18",
        "hf:facebook/dinov2-small",
        run[0],
        run[0] / "encoder.safetensors",
        tmp_path / "m.pt",
    ):
        assert is_encoder(model), model
    for other in ("z.npy", "shards", tmp_path / "z.pt", tmp_path / "z.safetensors", tmp_path):
        assert not is_encoder(other), other
