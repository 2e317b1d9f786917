"""The README beside an exported encoder, with the Python that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["readme"]


PAGE = """\
# {architecture}, {features:,} features

Weights from {origin}.
{judged}

## What it takes

Images of {image_size} by {image_size} pixels: resized (bilinear, antialiased) so that the short side is \
{resized} pixels, the centre cropped, pixels scaled to [0, 1], {normalised}

## How to use it

```python
{code}
```

`fullrank.json` says all of this to a program.
"""

TIMM = """\
import timm

net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
# a timm that does not know local-dir yet:
net = timm.create_model("{architecture}", num_classes=0, \
checkpoint_path="FOLDER/model.safetensors"{made_with}).eval()"""

TORCHVISION = """\
import torch, torchvision
from torch import nn

net = torchvision.models.get_model("{architecture}", weights=None)
{stem}net.fc = nn.Identity()  # or keep it, load with strict=False, and train it
{load}"""

OWN = """\
import torch
from fullrank.networks.backbones import build_backbone

net = build_backbone("{backbone}", {image_size}{stem}).network
{load}"""

STATE_OF_TIMM = """\
import timm, torch

net = timm.create_model("{architecture}", num_classes=0{made_with})
{load}"""

STATE = """\
import torch

# names of parameters and buffers of {architecture} to tensors
weights = torch.load("FOLDER/model.pth", weights_only=True)"""

ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
(features,) = session.run(["features"], {{"images": images}})  \
# float32 [n, 3, {image_size}, {image_size}] to [n, {features}]"""

LOAD = 'net.load_state_dict(torch.load("FOLDER/model.pth", weights_only=True))'


def readme(to: str, said: Mapping[str, Any]) -> str:
    """The README of an exported encoder, in Markdown.

    Args:
        to: the format.
        said: contents of `fullrank.json`.

    Example:
        >>> said = {"architecture": "resnet18", "features": 512, "image_size": 224, "origin": "runs/first"}
        >>> said |= {"mean": [0.5] * 3, "std": [0.2] * 3, "crop_ratio": 1.0, "options": {}}
        >>> readme("onnx", said).splitlines()[0]
        '# resnet18, 512 features'
    """
    resized = round(said["image_size"] / said["crop_ratio"])
    words = {"resized": resized, "judged": _judged(said), "normalised": _normalised(said)}
    return PAGE.format(**{**said, **words, "code": _code(to, said)})


def _code(to: str, said: Mapping[str, Any]) -> str:
    """The lines of Python that use the encoder."""
    template, stem = {"timm": TIMM, "torchvision": TORCHVISION, "onnx": ONNX}.get(to, STATE), ""
    if to == "torch" and said.get("backbone"):
        template, stem = OWN, f', stem="{said["stem"]}"' if said["stem"] else ""
    elif to == "torch":
        template = {"torchvision": TORCHVISION, "timm": STATE_OF_TIMM}.get(str(said.get("library")), STATE)
    if template is TORCHVISION and (padding := said.get("cifar_padding")) is not None:
        stem = (
            f"net.conv1 = nn.Conv2d(3, 64, 3, padding={padding}, bias=False)\nnet.maxpool = nn.Identity()\n"
        )
    made_with = "".join(f", {key}={value!r}" for key, value in said["options"].items())
    return template.format(**{**said, "stem": stem, "made_with": made_with, "load": LOAD})


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
