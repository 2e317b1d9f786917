"""Encoders from checkpoints of any library; no code in them is run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fullrank.encoders.checkpoint_layouts import backbone_weights, find_prefixes, stem_lacks_relu
from fullrank.encoders.encoder import Encoder, make_encoder
from fullrank.encoders.torch_files import StoredObject, load_torch_file, named_tensors
from fullrank.errors import DataError, UsageError
from fullrank.networks.architecture import Built, build_by_name, build_by_shapes, load_strictly
from fullrank.networks.backbones import Stem, build_backbone

__all__ = ["CHECKPOINT_SUFFIXES", "open_checkpoint", "open_run_encoder", "open_solo_folder", "read_weights"]

CHECKPOINT_SUFFIXES = (".ckpt", ".pth", ".pt", ".pth.tar", ".tar", ".bin", ".safetensors")
OWN_FORMAT = "fullrank-encoder"


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a checkpoint by name, and its other texts and numbers.

    Raises:
        DataError: damaged, or not openable without running code.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is no safetensors file, or damaged: {error}") from error
    content, _ = load_torch_file(path)
    said: dict[str, Any] = {}
    if isinstance(content, Mapping):
        said = {
            str(key): value for key, value in content.items() if isinstance(value, str | int | StoredObject)
        }
    return named_tensors(content), said


def open_run_encoder(path: Path, image_size: int | None = None) -> Encoder:
    """Open the `encoder.safetensors` of a run; its header says everything about it.

    Raises:
        UsageError: the file is no run's, or does not fit its header.
    """
    weights, header = read_weights(path)
    origin = f"{path}, {header.get('method', 'fullrank')} after {header.get('epoch', '?')} epochs"
    return _from_header(path, header, weights, path, origin, image_size)


def _from_header(
    file: Path,
    header: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    path: Path,
    origin: str,
    image_size: int | None,
    prefix: str = "",
) -> Encoder:
    """The encoder that the header of `file` describes, with weights of `path`."""
    try:
        name, size = header["backbone"], int(header["image_size"])
        stem: Stem = header["stem"]
        backbone = build_backbone(name, size, stem=stem)
    except KeyError as error:
        raise UsageError(f"{file} is damaged: its header does not say {error}") from error
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    built = Built(name, backbone.network, size, small="cifar" in backbone.stem)
    if prefix:
        weights = backbone_weights(weights, prefix, built.network.state_dict())
    load_strictly(built, weights, str(path))
    mean, std = json.loads(header["mean"]), json.loads(header["std"])
    size = image_size or size
    return make_encoder(
        built, origin=origin, image_size=size, mean=mean, std=std, crop_ratio=1.0, recorded=True
    )


def open_checkpoint(
    path: Path,
    *,
    arch: str | None = None,
    prefix: str | None = None,
    stem: Stem = "auto",
    image_size: int | None = None,
) -> Encoder:
    """Open the encoder in a checkpoint, whose prefix and architecture are found.

    Args:
        path: the file; a solo-learn `args.json` beside it is read.
        arch: the architecture, where its weights do not tell it.
        prefix: of the backbone's weights, where it is not the one wanted.
        stem: of a ResNet whose first convolution is 3x3: `cifar` (padding 1) or `cifar-pad2` (solo-learn's).
        image_size: side in pixels.

    Raises:
        DataError: damaged, or not openable without running code.
        UsageError: no backbone is recognised, or the weights do not fit it exactly.
    """
    weights, said = read_weights(path)
    if said.get("format") == OWN_FORMAT:
        return open_run_encoder(path, image_size)
    if not weights:
        raise DataError(f"{path} holds no weights")
    if "method.backbone" in {".".join(key.split(".")[:2]) for key in weights}:
        encoder = path.parent.parent / "encoder.safetensors"  # of the run whose checkpoint this is
        if encoder.is_file():
            header = read_weights(encoder)[1]
            return _from_header(encoder, header, weights, path, str(path), image_size, "method.backbone.")
    settings = _settings(path, said)
    named = arch or settings.get("arch")
    known = None if arch is None else build_by_name(arch, _bare(weights), image_size)
    expected = () if known is None else [key for key, _ in known.network.named_parameters()]
    prefixes = find_prefixes(weights, expected) or find_prefixes(weights)
    chosen = _chosen_prefix(path, weights, prefixes, prefix)
    padding = {"cifar": 1, "cifar-pad2": 2}.get(stem)
    if padding is None and settings.get("library") == "solo-learn":
        padding = 2

    under = backbone_weights(weights, chosen, () if known is None else known.network.state_dict())
    built = known or build_by_shapes(under, padding)
    if built is None and named:
        built = build_by_name(named, _bare(weights), image_size)
        under = backbone_weights(weights, chosen, built.network.state_dict())
    if built is None:
        raise UsageError(
            f"{path}: the architecture of {chosen or 'its'}* is not recognised: name it, as --arch resnet50"
        )
    origin = f"{path}[{chosen}*]" if chosen else str(path)
    load_strictly(built, _converted(built, under, known is not None), origin)
    if stem_lacks_relu(weights, chosen) and hasattr(built.network, "relu"):
        built.network.relu = nn.Identity()
        built.notes.append("no ReLU follows the stem: the ResNet was saved as a sequence of its children")
    if len(prefixes) > 1 and prefix is None:
        others = ", ".join(f"{other}*" for other in prefixes if other != chosen)
        built.notes.append(f"read from {chosen}*; also there, for --prefix: {others}")
    method = settings.get("method")
    return make_encoder(built, origin=f"{origin}, {method}" if method else origin, image_size=image_size)


def _bare(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by every ending of their names, whatever the prefix is."""
    return {
        ".".join(key.split(".")[k:]): value
        for key, value in weights.items()
        for k in range(key.count(".") + 1)
    }


def _chosen_prefix(path: Path, weights: Mapping[str, Tensor], prefixes: list[str], wanted: str | None) -> str:
    if wanted is not None:
        wanted = wanted.rstrip("*")
        if not any(key.startswith(wanted) for key in weights):
            there = ", ".join(f"{prefix}*" for prefix in prefixes) or ", ".join(list(weights)[:3])
            raise UsageError(f"{path} has no weights under {wanted!r}; there are {there}")
        return wanted
    if not prefixes:
        shown = ", ".join(list(weights)[:3])
        raise UsageError(
            f"{path}: no backbone is recognised among {len(weights)} weights ({shown}, ...): name it, as "
            f"--arch resnet50, and --prefix where its weights stand under one"
        )
    return prefixes[0]


def _converted(built: Built, under: dict[str, Tensor], named: bool) -> dict[str, Tensor]:
    """The weights as the network's library converts them: position grids, names."""
    import sys

    own = built.network.state_dict()
    if not named or (set(own) == set(under) and all(own[key].shape == under[key].shape for key in own)):
        return under
    convert = getattr(sys.modules.get(type(built.network).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return under
    try:
        converted = convert(dict(under), built.network)
    except Exception:  # made for other weights: what does not fit is said of the weights as they are
        return under
    return {key: value for key, value in converted.items() if key in own or key in under}


def _settings(path: Path, said: Mapping[str, Any]) -> dict[str, str]:
    """Records of the training script: `arch`, `method`, `library`."""
    records: dict[str, Any] = {"arch": said.get("arch")}
    arguments = said.get("args")
    if isinstance(arguments, StoredObject):
        records["arch"] = arguments.fields.get("arch") or records["arch"]
    beside = path.parent / "args.json"
    if path.suffix == ".ckpt" and beside.is_file():
        try:
            values = json.loads(beside.read_text())
        except ValueError:
            values = None
        if isinstance(values, dict):
            backbone = values.get("backbone", values.get("encoder"))
            records["arch"] = backbone.get("name") if isinstance(backbone, dict) else backbone
            records["method"], records["library"] = values.get("method"), "solo-learn"
    return {key: value for key, value in records.items() if isinstance(value, str)}


def open_solo_folder(folder: Path, **options: Any) -> Encoder:
    """Open the last `.ckpt` file in a folder of solo-learn."""
    files = sorted(
        folder.glob("*.ckpt"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)][-1:]
    )
    if not files:
        raise DataError(f"{folder} holds no .ckpt file beside its args.json")
    return open_checkpoint(files[-1], **options)
