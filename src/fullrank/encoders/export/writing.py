"""An encoder exported to a folder: its weights, what it is, and how to use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

import fullrank
from fullrank.atomic import draft_of, sweep_drafts
from fullrank.collapse.verdict import as_verdict
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.export.onnx_file import write_onnx
from fullrank.encoders.export.rebuilt import Rebuilt, difference, in_timm, in_torchvision
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import encoder_header, own_run
from fullrank.encoders.torch_files import write_torch_file
from fullrank.errors import UnknownNameError, UsageError
from fullrank.networks.backbones import OWN_BACKBONES
from fullrank.networks.safetensors_bytes import safetensors_bytes
from fullrank.options import new_folder

Format: TypeAlias = Literal["timm", "torchvision", "torch", "onnx"]
FORMATS: tuple[Format, ...] = ("timm", "torchvision", "torch", "onnx")


@dataclass(frozen=True)
class Exported:
    """The files of an exported encoder.

    Attributes:
        files: names in the folder, the weights first.
        said: contents of `fullrank.json`: architecture, sizes, normalisation, origin, verdict.
        difference: between the features of what was written, opened anew, and the encoder's, as a share of
            the largest feature.
        caution: one line where the run was judged collapsed, else "".
    """

    folder: Path
    files: tuple[str, ...]
    said: dict[str, Any]
    difference: float
    caution: str = ""


def export_encoder(what: str | Path, to: Format, folder: Path, **opening: Any) -> Exported:
    """Write an encoder for another library, and open it again to compare.

    Args:
        what: a run of ours, or an encoder as `open_encoder` takes it.
        to: `timm`: config.json and model.safetensors as on the Hub. `torchvision`: a state dict that loads
            into torchvision's network, all but its classifier. `torch`: the state dict as it is. `onnx`: a
            graph that takes batches of any size.
        folder: to be made.
        opening: options of `open_encoder`.

    Raises:
        UsageError: the folder exists, or the format's library has no such network; one line says which
            formats take it.
        FullrankError: what was written does not give the same features.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     exported = export_encoder("timm:resnet18", "torchvision", Path(place, "F"), pretrained=False)
        ...     exported.files, sorted(path.name for path in exported.folder.iterdir())
        (('model.pth', 'fullrank.json', 'README.md'), ['README.md', 'fullrank.json', 'model.pth'])
    """
    if to not in FORMATS:
        raise UnknownNameError("format", str(to), FORMATS)
    new_folder(folder)
    model = open_encoder(what, **opening)
    rebuilt = _rebuilt(model, to)
    said = _said(what, model, rebuilt)
    sweep_drafts(folder.absolute().parent, folder.name)
    draft = draft_of(folder.absolute())
    draft.mkdir(parents=True)
    try:
        files, apart = _write(to, model, rebuilt, draft, said)
        (draft / "fullrank.json").write_text(json.dumps(said, indent=2, ensure_ascii=False))
        (draft / "README.md").write_text(_readme(to, said))
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    verdict, caution = as_verdict(said.get("verdict") or {}), ""
    if verdict.collapsed:
        caution = f"this encoder's run was judged to have collapsed after epoch {said.get('epoch', '?')}: "
        caution += verdict.phrase
    return Exported(folder, (*files, "fullrank.json", "README.md"), said, apart, caution)


def _rebuilt(model: Encoder, to: Format) -> Rebuilt | None:
    makers: dict[str, Callable[[Encoder], Rebuilt | None]] = {
        "timm": in_timm,
        "torchvision": in_torchvision,
    }
    if to not in makers:
        return in_torchvision(model) or in_timm(model)  # for the instructions
    exported = makers[to](model)
    if exported is None:
        others = {name: found for name, maker in makers.items() if name != to and (found := maker(model))}
        *most, last = [*others, "torch", "onnx"]
        own = model.name.partition(" (")[0] in OWN_BACKBONES
        why = f"{to}'s network gives other features"
        if own:
            why = f"{to} has no such network, it is fullrank's own"
        elif any(found.cifar_padding is not None for found in others.values()):
            why = f"it begins with a 3x3 convolution for small images, --stem cifar, {to}'s with a 7x7 one"
        raise UsageError(
            f"{to} cannot rebuild {model.name} ({why}): export it --to {', '.join(most)} or {last}"
        )
    return exported


TRAINED = ("method", "data", "init", "epoch", "step", "verdict")
"""What the header of a run's encoder says of its training."""


def _said(what: str | Path, model: Encoder, rebuilt: Rebuilt | None) -> dict[str, Any]:
    run = own_run(what)
    header = encoder_header(run) if run is not None else {}
    return {
        "architecture": rebuilt.architecture if rebuilt else model.name,
        "library": rebuilt.library if rebuilt else "",
        "options": rebuilt.options if rebuilt else {},
        "cifar_padding": rebuilt.cifar_padding if rebuilt else None,
        "backbone": header.get("backbone", ""),
        "stem": header.get("stem", ""),
        "features": model.feature_dim,
        "image_size": model.image_size,
        "mean": None if model.mean is None else list(model.mean),
        "std": None if model.std is None else list(model.std),
        "crop_ratio": model.crop_ratio,
        "interpolation": "bilinear",
        "origin": model.origin,
        "notes": list(model.notes),
        **{key: header[key] for key in TRAINED if key in header},
        "fullrank": fullrank.__version__,
    }


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _write(
    to: Format, model: Encoder, rebuilt: Rebuilt | None, folder: Path, said: Mapping[str, Any]
) -> tuple[tuple[str, ...], float]:
    """Write the weights; names of their files, and the difference of features."""
    if to == "onnx":
        apart = write_onnx(model, folder / "model.onnx", said)
        return tuple(sorted((file.name for file in folder.iterdir()), key=len)), apart
    if to == "timm":
        assert rebuilt is not None
        return ("model.safetensors", "config.json"), _write_timm(model, rebuilt, folder, said)
    network = rebuilt.network if to == "torchvision" and rebuilt is not None else model.network
    write_torch_file(_tensors(network), folder / "model.pth")
    network.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    return ("model.pth",), difference(network, model)


def _write_timm(model: Encoder, rebuilt: Rebuilt, folder: Path, said: Mapping[str, Any]) -> float:
    """`config.json` and `model.safetensors`, as timm puts them on the Hub."""
    import timm

    network: Any = rebuilt.network
    pooled = getattr(network, "global_pool", "")
    known: Any = network.pretrained_cfg
    config = {
        "architecture": rebuilt.architecture,
        "num_classes": 0,
        "num_features": network.num_features,
        **({"global_pool": pooled} if isinstance(pooled, str) and pooled else {}),
        "model_args": rebuilt.options,
        "pretrained_cfg": {
            "tag": "fullrank",
            "custom_load": False,
            "input_size": [3, model.image_size, model.image_size],
            "fixed_input_size": bool(known.get("fixed_input_size")),
            "interpolation": said["interpolation"],
            "crop_pct": model.crop_ratio,
            "crop_mode": "center",
            **{key: said[key] for key in ("mean", "std") if said[key] is not None},
            "num_classes": 0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
        "fullrank": said,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
    # `format` tells transformers and timm whose tensors these are
    header = {"format": "pt", "fullrank": json.dumps(said)}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(_tensors(network), header))
    create: Any = timm.create_model
    again = create(
        rebuilt.architecture, num_classes=0, checkpoint_path=folder / "model.safetensors", **rebuilt.options
    )
    return difference(again.eval(), model)


# the README beside the weights, with the Python that uses them

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


def _readme(to: str, said: Mapping[str, Any]) -> str:
    """The README of an exported encoder in Markdown, from what `fullrank.json` says."""
    resized = round(said["image_size"] / said["crop_ratio"])
    verdict = said.get("verdict") or {}
    judged = "Whether it has collapsed was not judged where it comes from: `fullrank audit` judges it."
    if verdict.get("kind"):
        judged = f"Judged {as_verdict(verdict).phrase} after epoch {said.get('epoch', '?')}: "
        judged = f"{judged}{verdict.get('why', '')}".strip()
    normalised = "then normalised with the mean and std of your images: nothing is on record."
    if said["mean"] is not None:
        mean, std = (", ".join(f"{value:.6g}" for value in said[key]) for key in ("mean", "std"))
        normalised = f"then minus the mean ({mean}), divided by the std ({std})."
    words = {"resized": resized, "judged": judged, "normalised": normalised}
    return PAGE.format(**{**said, **words, "code": _code(to, said)})


def _code(to: str, said: Mapping[str, Any]) -> str:
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
