"""The README beside an exported encoder: what it is, and the lines of Python that use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["readme"]


def readme(to: str, said: Mapping[str, Any]) -> str:
    """A page in Markdown.

    Args:
        to: the format.
        said: what `fullrank.json` holds.

    Example:
        >>> said = {"architecture": "resnet18", "features": 512, "image_size": 224, "origin": "runs/first"}
        >>> said |= {"mean": [0.5] * 3, "std": [0.2] * 3, "crop_ratio": 1.0, "options": {}}
        >>> readme("onnx", said).splitlines()[0]
        '# resnet18, 512 features'
    """
    size = said["image_size"]
    lines = [
        f"# {said['architecture']}, {said['features']:,} features",
        "",
        f"Weights from {said['origin']}.",
        _judged(said),
        "",
        "## What it takes",
        "",
        f"Images of {size} by {size} pixels: resized (bilinear, antialiased) so that the short side is "
        f"{round(size / said['crop_ratio'])} pixels, the centre cropped, pixels scaled to [0, 1], "
        + _normalised(said),
        "",
        "## How to use it",
        "",
        "```python",
        *_CODE[to](said),
        "```",
        "",
        "`fullrank.json` says all of this to a program.",
    ]
    return "\n".join(lines) + "\n"


def _judged(said: Mapping[str, Any]) -> str:
    verdict = said.get("verdict") or {}
    if not verdict.get("kind"):
        return "Whether it has collapsed was not judged where it comes from: `fullrank audit` judges it."
    return f"Judged {verdict['kind']} after epoch {said.get('epoch', '?')}: {verdict.get('why', '')}".strip()


def _normalised(said: Mapping[str, Any]) -> str:
    if said["mean"] is None:
        return "then normalised with the mean and std of your images: nothing is on record."
    mean, std = (", ".join(f"{value:.6g}" for value in said[key]) for key in ("mean", "std"))
    return f"then minus the mean ({mean}), divided by the std ({std})."


def _options(said: Mapping[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in said["options"].items())


def _timm(said: Mapping[str, Any]) -> list[str]:
    return [
        "import timm",
        "",
        'net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))",
        "# a timm that does not know local-dir yet:",
        f'net = timm.create_model("{said["architecture"]}", num_classes=0, '
        f'checkpoint_path="FOLDER/model.safetensors"{_options(said)}).eval()',
    ]


def _torchvision(said: Mapping[str, Any]) -> list[str]:
    lines = [
        "import torch, torchvision",
        "from torch import nn",
        "",
        f'net = torchvision.models.get_model("{said["architecture"]}", weights=None)',
    ]
    if said.get("cifar_padding") is not None:
        lines += [
            f"net.conv1 = nn.Conv2d(3, 64, 3, padding={said['cifar_padding']}, bias=False)",
            "net.maxpool = nn.Identity()",
        ]
    return [
        *lines,
        "net.fc = nn.Identity()  # or keep it, load with strict=False, and train it",
        'net.load_state_dict(torch.load("FOLDER/model.pth", weights_only=True))',
    ]


def _torch(said: Mapping[str, Any]) -> list[str]:
    load = 'net.load_state_dict(torch.load("FOLDER/model.pth", weights_only=True))'
    if said.get("backbone"):
        stem = f', stem="{said["stem"]}"' if said["stem"] else ""
        return [
            "import torch",
            "from fullrank.networks.backbones import build_backbone",
            "",
            f'net = build_backbone("{said["backbone"]}", {said["image_size"]}{stem}).network',
            load,
        ]
    if said.get("library") == "torchvision":
        return _torchvision(said)
    if said.get("library") == "timm":
        made = f'net = timm.create_model("{said["architecture"]}", num_classes=0{_options(said)})'
        return ["import timm, torch", "", made, load]
    return [
        "import torch",
        "",
        f"# names of parameters and buffers of {said['architecture']} to tensors",
        'weights = torch.load("FOLDER/model.pth", weights_only=True)',
    ]


def _onnx(said: Mapping[str, Any]) -> list[str]:
    return [
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("FOLDER/model.onnx")',
        '(features,) = session.run(["features"], {"images": images})  '
        f"# float32 [n, 3, {said['image_size']}, {said['image_size']}] to [n, {said['features']}]",
    ]


_CODE = {"timm": _timm, "torchvision": _torchvision, "torch": _torch, "onnx": _onnx}
