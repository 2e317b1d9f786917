"""An exported encoder gives the same features in the other library, or is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.data.config import resolve_model_data_config
from torch import nn
from torch.torch_version import TorchVersion

from encoders.foreign_layouts import resnet, shaken, simsiam, vit
from fullrank.encoders.export.rebuilt import difference, in_timm, in_torchvision, probe_images
from fullrank.encoders.export.writing import FORMATS, export_encoder
from fullrank.encoders.opening import open_encoder
from fullrank.errors import UsageError
from fullrank.networks.backbones import build_backbone
from fullrank.training.config import make_train_config
from fullrank.training.run_dir import RunDir

VERDICT = {"kind": "dimensional", "tap": "projector", "why": "RankMe is 2.1 of 32", "evidence": []}


def run_with(folder: Path, backbone: str, size: int, verdict: dict[str, Any] | None = None) -> Path:
    """A run directory with an encoder of random weights and statistics."""
    config = make_train_config("simsiam", {"data": "shapes", "backbone": backbone, "image_size": size})
    run = RunDir.create(folder, config)
    torch.manual_seed(0)
    built = build_backbone(backbone, size)
    header = {
        "backbone": built.name, "stem": built.stem, "feature_dim": built.feature_dim, "image_size": size,
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "method": "simsiam", "data": "shapes", "epoch": 7,
        "step": 70, "verdict": verdict or {},
    }  # fmt: skip
    run.save_encoder(shaken(built.network).state_dict(), header)
    return folder


@pytest.fixture(scope="module")
def imagenet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with(tmp_path_factory.mktemp("run") / "imagenet", "resnet18", 64, VERDICT)


@pytest.fixture(scope="module")
def cifar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with(tmp_path_factory.mktemp("run") / "cifar", "resnet18", 32)


def test_timm_makes_the_same_network_of_the_folder(imagenet_run: Path, tmp_path: Path) -> None:
    found = export_encoder(imagenet_run, "timm", tmp_path / "F")
    model = open_encoder(imagenet_run)
    create: Any = timm.create_model
    net = create(f"local-dir:{tmp_path / 'F'}", pretrained=True).eval()
    assert difference(net, model) <= 1e-6 and found.difference <= 1e-6
    config = resolve_model_data_config(net)
    assert [*config["mean"], *config["std"]] == [0.4, 0.5, 0.6, 0.2, 0.3, 0.25]
    assert [*config["input_size"], config["crop_pct"]] == [3, 64, 64, 1.0]
    older = create("resnet18", num_classes=0, checkpoint_path=tmp_path / "F" / "model.safetensors").eval()
    assert difference(older, model) <= 1e-6
    tuned = create(f"local-dir:{tmp_path / 'F'}", pretrained=True, num_classes=5)
    assert tuned(probe_images(model)).shape == (3, 5), "a new classifier goes on top"
    again = open_encoder(tmp_path / "F")
    assert difference(again.network, model) <= 1e-6 and (again.mean, again.image_size) == (
        (0.4, 0.5, 0.6),
        64,
    )


def test_a_transformer_goes_to_timm_too(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", "vit_tiny_patch16_224", 32)
    export_encoder(run, "timm", tmp_path / "F")
    create: Any = timm.create_model
    net = create(f"local-dir:{tmp_path / 'F'}", pretrained=True).eval()
    assert difference(net, open_encoder(run)) <= 1e-6


def test_torchvision_loads_all_but_its_classifier(imagenet_run: Path, tmp_path: Path) -> None:
    export_encoder(imagenet_run, "torchvision", tmp_path / "F")
    weights = torch.load(tmp_path / "F" / "model.pth", weights_only=True)
    net = torchvision.models.resnet18(weights=None)
    loaded = net.load_state_dict(weights, strict=False)
    assert loaded.missing_keys == ["fc.weight", "fc.bias"] and not loaded.unexpected_keys
    net.fc = nn.Identity()
    net.load_state_dict(weights, strict=True)
    assert difference(net.eval(), open_encoder(imagenet_run)) <= 1e-6


@pytest.mark.parametrize("to", ["torchvision", "torch"])
def test_the_readme_beside_a_cifar_stem_gives_the_same_network(
    to: Any, cifar_run: Path, tmp_path: Path
) -> None:
    export_encoder(cifar_run, to, tmp_path / "F")
    assert difference(by_its_readme(tmp_path / "F"), open_encoder(cifar_run)) <= 1e-6


def by_its_readme(folder: Path) -> nn.Module:
    """The network that the lines of Python in a README build."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(folder)), names)
    net: nn.Module = names["net"]
    return net.eval()


@pytest.mark.parametrize("to", ["timm", "torchvision", "torch"])
def test_a_simsiam_checkpoint_of_others_is_handed_on(to: Any, tmp_path: Path) -> None:
    torch.save(simsiam(resnet()), tmp_path / "simsiam.pth.tar")
    found = export_encoder(tmp_path / "simsiam.pth.tar", to, tmp_path / "F", image_size=64)
    assert found.difference <= 1e-6 and found.said["architecture"] == "resnet18"
    model = open_encoder(tmp_path / "simsiam.pth.tar", image_size=64)
    assert difference(by_its_readme(tmp_path / "F"), model) <= 1e-6


def test_a_pytorch_that_cannot_write_onnx_is_said(
    imagenet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cpu"))
    with pytest.raises(UsageError, match=r"PyTorch 2\.7 or newer, not 2\.6\.0\+cpu; pip install"):
        export_encoder(imagenet_run, "onnx", tmp_path / "F")
    assert not (tmp_path / "F").exists()


def test_onnxruntime_gives_the_same_features_for_batches_of_any_size(
    imagenet_run: Path, tmp_path: Path
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    found = export_encoder(imagenet_run, "onnx", tmp_path / "F")
    assert found.files[0] == "model.onnx" and 0 < found.difference <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "F" / "model.onnx"))
    model = open_encoder(imagenet_run)
    for n in (1, 7):
        images = probe_images(model, n)
        (features,) = session.run(["features"], {"images": images.numpy()})
        expected = model.network(images)
        assert (torch.from_numpy(features) - expected).abs().max() <= 1e-4 * expected.abs().max()
    said = {pair.key: json.loads(pair.value) for pair in onnx.load(tmp_path / "F/model.onnx").metadata_props}
    assert said["mean"] == [0.4, 0.5, 0.6] and said["verdict"] == VERDICT


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_handed_on_says_how_it_was_judged(to: Any, imagenet_run: Path, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    found = export_encoder(imagenet_run, to, tmp_path / "F")
    said = json.loads((tmp_path / "F" / "fullrank.json").read_text())
    assert said["verdict"] == VERDICT and said["epoch"] == 7
    assert (
        "Judged dimensional (projector) after epoch 7: RankMe is 2.1 of 32"
        in (tmp_path / "F/README.md").read_text()
    )
    assert (
        found.caution
        == "this encoder's run was judged to have collapsed after epoch 7: dimensional (projector)"
    )
    if to == "timm":
        from safetensors import safe_open

        with safe_open(tmp_path / "F" / "model.safetensors", framework="np") as file:
            assert json.loads(file.metadata()["fullrank"])["verdict"] == VERDICT
        assert json.loads((tmp_path / "F" / "config.json").read_text())["fullrank"]["verdict"] == VERDICT


def test_nothing_is_cautioned_where_nothing_collapsed(cifar_run: Path, tmp_path: Path) -> None:
    assert export_encoder(cifar_run, "torch", tmp_path / "F").caution == ""
    assert "`fullrank audit` judges it" in (tmp_path / "F" / "README.md").read_text()


def test_what_a_library_cannot_rebuild_is_one_line_with_the_formats_that_can(
    cifar_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"3x3 .*--stem cifar, .*--to torchvision, torch or onnx"):
        export_encoder(cifar_run, "timm", tmp_path / "F")
    own = run_with(tmp_path / "own", "resnet8-w16", 16)
    for to in ("timm", "torchvision"):
        with pytest.raises(
            UsageError,
            match=f"{to} cannot rebuild resnet8-w16 .*own.: export it --to torch or onnx",
        ):
            export_encoder(own, to, tmp_path / "F")
    assert not (tmp_path / "F").exists()
    (tmp_path / "F").mkdir()
    (tmp_path / "F" / "mine").touch()
    with pytest.raises(UsageError, match="exists already: take another --out"):
        export_encoder(own, "torch", tmp_path / "F")


def test_a_name_is_no_proof(tmp_path: Path) -> None:
    network = vit(num_heads=6)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    model = open_encoder(tmp_path / "vit.pth")  # taken to have 3 heads, which weights do not tell
    assert in_timm(model) is None and in_torchvision(model) is None, "of a depth that neither has"
