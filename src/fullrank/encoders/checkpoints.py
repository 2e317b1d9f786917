"""Encoders from checkpoints of any library; no code in them is run.

A checkpoint holds more than an encoder: projectors, predictors, a momentum copy of it all, an optimiser. The
backbone is found by the names that its first layers have in every library:

- solo-learn `backbone.`, lightly `backbone.` (also as an `nn.Sequential` of a ResNet's children);
- SimSiam `module.encoder.`, MoCo `module.encoder_q.`, MoCo v3 `module.base_encoder.`;
- DINO `teacher` and `student`, each with `module.backbone.` or `backbone.`;
- BYOL `online_network.`, `online_encoder.net.`; and plain state dicts of torchvision and timm.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder, make_encoder
from fullrank.encoders.torch_files import StoredObject, load_torch_file, named_tensors
from fullrank.errors import DataError, UsageError
from fullrank.networks.architecture import Built, adapted, build_by_name, build_by_shapes, load_strictly
from fullrank.networks.backbones import Stem, build_backbone
from fullrank.networks.lora import merge_lora
from fullrank.untrusted.parsing import parse_json, read_json, refusing
from fullrank.untrusted.paths import require_regular

MAX_IMAGE_SIZE = 4096  # pixels; the header of a file asks for a network of that size

CHECKPOINT_SUFFIXES = (".ckpt", ".pth", ".pt", ".pth.tar", ".tar", ".bin", ".safetensors")
OWN_FORMAT = "fullrank-encoder"


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a checkpoint by name, and its other texts and numbers."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        require_regular(path)
        with refusing(f"{path} is no safetensors file, or damaged"), safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    content, _ = load_torch_file(path)
    said: dict[str, Any] = {}
    if isinstance(content, Mapping):
        said = {
            str(key): value for key, value in content.items() if isinstance(value, str | int | StoredObject)
        }
    return named_tensors(content), said


def open_run_encoder(path: Path, image_size: int | None = None) -> Encoder:
    """Open the `encoder.safetensors` of a run; its header says everything about it."""
    weights, header = read_weights(path)
    origin = f"{path}, {header.get('method', 'fullrank')} after {header.get('epoch', '?')} epochs"
    origin += f", on from {header['init']}" if header.get("init") else ""
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
        with refusing(f"{file} is damaged: its header does not describe an encoder"):
            name, size = header["backbone"], int(header["image_size"])
            if not 1 <= size <= MAX_IMAGE_SIZE:
                raise ValueError(f"image size {size}")
            stem: Stem = header["stem"]
            mean, std = (parse_json(str(header[key]), f"{key} in {file}") for key in ("mean", "std"))
            backbone = build_backbone(name, size, stem=stem)
    except DataError:
        raise
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    built = Built(name, backbone.network, size, small="cifar" in backbone.stem)
    if prefix:
        weights = backbone_weights(merge_lora(weights), prefix, built.network.state_dict())
    load_strictly(built, weights, str(path))
    size = image_size or size
    with refusing(f"{file} is damaged: its header does not describe an encoder"):
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
    """Open a checkpoint's encoder, detecting prefix and architecture.

    A solo-learn `args.json` beside the file is read. See also `open_encoder`.
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
    load_strictly(built, under if known is None else adapted(built.network, under), origin)
    if _stem_lacks_relu(weights, chosen) and hasattr(built.network, "relu"):
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


def _settings(path: Path, said: Mapping[str, Any]) -> dict[str, str]:
    records: dict[str, Any] = {"arch": said.get("arch")}
    arguments = said.get("args")
    if isinstance(arguments, StoredObject):
        records["arch"] = arguments.fields.get("arch") or records["arch"]
    beside = path.parent / "args.json"
    if path.suffix == ".ckpt" and beside.is_file():
        values = read_json(beside)
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


# where the backbone lies, and what is a head

_ANCHORS = (
    ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),  # ResNets, of torchvision, timm and their copies
    ("conv1.0.weight", "bn1.weight", "layer1.0.conv1.weight"),  # timm's ResNets with a deep stem
    ("conv1.weight", "bn1.weight", "blocks.0.conv1.weight"),  # our narrow CIFAR ResNets
    *(("0.weight", "1.running_mean", f"{k}.0.conv1.weight", f"{k + 3}.0.conv1.weight") for k in (2, 3, 4)),
    ("patch_embed.proj.weight", "blocks.0.norm1.weight"),  # transformers of timm, DINO, MoCo v3, MAE
    ("patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"),  # Swin of timm
    ("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"),  # transformers of torchvision
    ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"),  # ConvNeXt of timm
    ("features.0.0.weight", "features.1.0.block.0.weight"),  # ConvNeXt and Swin of torchvision
)
_SECOND = {"momentum", "target", "teacher", "ema", "k", "key", "copy"}
_HEADS = {
    *("fc", "head", "heads", "classifier", "linear", "linears", "last_layer", "lin", "g", "h"),
    *(
        "projector",
        "projection",
        "projection_head",
        "proj_head",
        "predictor",
        "prediction_head",
        "prototypes",
    ),
    *("mask_token", "head_drop", "norm_pre_head", "contrastive_head", "logit_scale"),
}


def find_prefixes(keys: Iterable[str], expected: Collection[str] = ()) -> list[str]:
    """Prefixes of backbones, the best first, by `expected` or usual names.

    Where a network and its momentum copy are both there, the network that is trained comes first; of DINO's
    `teacher` and `student` it is the teacher, which is what DINO evaluates.

    Example:
        >>> names = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")
        >>> find_prefixes([f"module.encoder_{which}.{name}" for which in "kq" for name in names])
        ['module.encoder_q.', 'module.encoder_k.']
        >>> find_prefixes(["net.a.weight", "net.b.weight", "ema.a.weight"], ["a.weight", "b.weight"])
        ['net.']
    """
    keys = set(keys)
    if not expected:
        found = {prefix for anchors in _ANCHORS for prefix in _under(keys, anchors[0], anchors)}
        return sorted(found, key=_rank)
    longest = max(expected, key=len)
    share = {
        prefix: sum(prefix + name in keys for name in expected) / len(expected)
        for name in (longest, next(iter(expected)))
        for prefix in _under(keys, name, (name,))
    }
    return sorted((p for p in share if share[p] > 0.5), key=lambda p: (-share[p], _rank(p)))


def _under(keys: set[str], first: str, anchors: Iterable[str]) -> list[str]:
    """Prefixes under which all anchors stand; `first` is one of them."""
    ends = [key for key in keys if key == first or key.endswith(f".{first}")]
    prefixes = [key.removesuffix(first) for key in ends]
    return [prefix for prefix in prefixes if all(prefix + anchor in keys for anchor in anchors)]


def _rank(prefix: str) -> tuple[bool, int, str]:
    words = set(re.split(r"[._]", prefix.lower()))
    dino = prefix.startswith("teacher.")
    return not dino and (bool(words & _SECOND) or prefix.startswith("student.")), prefix.count("."), prefix


def backbone_weights(
    weights: Mapping[str, Tensor], prefix: str, own: Collection[str] = ()
) -> dict[str, Tensor]:
    """The weights of a backbone under a prefix, by torchvision's names.

    An `nn.Sequential` of a ResNet's children (lightly's examples) gets a ResNet's names, and `shortcut`
    becomes `downsample`. Names of `own`, which the backbone has, are no head's.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> list(backbone_weights({"m.conv1.weight": one, "m.fc.weight": one, "epoch": one}, "m."))
        ['conv1.weight']
    """
    under = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    under = _resnet_names(under)
    return {
        key: value
        for key, value in under.items()
        if key in own or not (key.partition(".")[0] in _HEADS or key.startswith("decoder_"))
    }


def _stem_lacks_relu(weights: Collection[str], prefix: str) -> bool:
    """Tell whether a ResNet's children were saved without the ReLU of its stem.

    lightly's ResNets call their first ReLU as a function, so that a sequence of their children has none.
    """
    return f"{prefix}0.weight" in weights and f"{prefix}2.0.conv1.weight" in weights


def _resnet_names(under: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's names for a sequence of its children; `downsample` for `shortcut`."""
    start = next((k for k in (2, 3, 4) if f"{k}.0.conv1.weight" in under), None)
    names: dict[str, str] = {}
    if start is not None and "0.weight" in under and "1.running_mean" in under:
        names = {"0": "conv1", "1": "bn1"} | {str(start + k): f"layer{k + 1}" for k in range(4)}
    renamed: dict[str, Tensor] = {}
    for key, value in under.items():
        child, dot, rest = key.partition(".")
        new = names.get(child, child) + dot + rest
        renamed[new.replace(".shortcut.", ".downsample.") if new.startswith("layer") else new] = value
    return renamed
