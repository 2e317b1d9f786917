"""An encoder exported to a folder: its weights, what it is, and how to use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.export.onnx_file import write_onnx
from fullrank.encoders.export.rebuilt import Rebuilt, difference, in_timm, in_torchvision
from fullrank.encoders.export.usage import readme
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import encoder_header, own_run
from fullrank.errors import UsageError
from fullrank.options import new_folder

__all__ = ["FORMATS", "Exported", "Format", "export_encoder"]

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
    new_folder(folder)
    model = open_encoder(what, **opening)
    rebuilt = _rebuilt(model, to)
    said = _said(what, model, rebuilt)
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        files, apart = _write(to, model, rebuilt, draft, said)
        (draft / "fullrank.json").write_text(json.dumps(said, indent=2, ensure_ascii=False))
        (draft / "README.md").write_text(readme(to, said))
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(folder, (*files, "fullrank.json", "README.md"), said, apart, _caution(said))


def _rebuilt(model: Encoder, to: Format) -> Rebuilt | None:
    makers: dict[str, Callable[[Encoder], Rebuilt | None]] = {
        "timm": in_timm,
        "torchvision": in_torchvision,
    }
    if to not in makers:
        return in_torchvision(model) or in_timm(model)  # for the instructions
    exported = makers[to](model)
    if exported is None:
        others = [name for name, maker in makers.items() if name != to and maker(model)]
        *most, last = [*others, "torch", "onnx"]
        raise UsageError(
            f"{to} cannot rebuild {model.name} as it is here: export it --to {', '.join(most)} or {last}"
        )
    return exported


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
        **{key: header[key] for key in ("method", "data", "epoch", "step", "verdict") if key in header},
        "fullrank": version("fullrank"),
    }


def _caution(said: Mapping[str, Any]) -> str:
    verdict = said.get("verdict") or {}
    kind = verdict.get("kind", "")
    if kind in ("", "healthy", "not decidable"):
        return ""
    return f"this encoder was judged to have collapsed ({kind}) after epoch {said.get('epoch', '?')}"


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
    torch.save(_tensors(network), folder / "model.pth")
    network.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    return ("model.pth",), difference(network, model)


def _write_timm(model: Encoder, rebuilt: Rebuilt, folder: Path, said: Mapping[str, Any]) -> float:
    """`config.json` and `model.safetensors`, as timm puts them on the Hub."""
    import timm
    from safetensors.torch import save_file

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
    save_file(_tensors(network), folder / "model.safetensors", header)
    create: Any = timm.create_model
    again = create(
        rebuilt.architecture, num_classes=0, checkpoint_path=folder / "model.safetensors", **rebuilt.options
    )
    return difference(again.eval(), model)
