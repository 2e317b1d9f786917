"""Opening an encoder by a library's name, from a run, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fullrank.coercion import as_name
from fullrank.encoders.checkpoints import (
    CHECKPOINT_SUFFIXES,
    open_checkpoint,
    open_run_encoder,
    open_solo_folder,
    read_weights,
)
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.libraries import (
    from_hugging_face,
    from_timm,
    from_timm_folder,
    from_torchvision,
    torchvision_names,
)
from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.networks.backbones import OWN_BACKBONES, Stem
from fullrank.untrusted.parsing import read_json
from fullrank.untrusted.paths import did_you_mean, expand_user


def open_encoder(
    spec: str | Path,
    *,
    arch: str | None = None,
    prefix: str | None = None,
    stem: Stem = "auto",
    image_size: int | None = None,
    pretrained: bool = True,
    download: bool = False,
) -> Encoder:
    """Open an encoder; every weight of its backbone is loaded, none left over.

    Args:
        spec: one of

            - `timm:NAME`, `torchvision:NAME`, `hf:NAME`, or a bare name of timm or else torchvision;
            - a run directory of ours, or its `encoder.safetensors`, or one of its checkpoints;
            - a directory of transformers or timm (`config.json` and weights) or solo-learn (`args.json`);
            - a checkpoint or state dict of any library (`CHECKPOINT_SUFFIXES`): its prefix and, for ResNets
              and vision transformers, its architecture are found.
        arch: the architecture of a checkpoint, as `build_by_name` takes it; None finds it.
        prefix: of the backbone's weights in a checkpoint; None finds it.
        stem: of a ResNet whose first convolution is 3x3, which a checkpoint does not tell fully.
        image_size: side in pixels that it is fed with; None is what is on record, or usual.
        pretrained: with trained weights, for a name; False is the untrained network.
        download: fetch weights that are not in the libraries' caches.

    Returns:
        The encoder in eval mode. Torch's random numbers are left as they were.

    Raises:
        DataError: not there, damaged, not fetched yet, or not openable without running code.
        UnknownNameError: no such name.
        UsageError: the weights do not fit the architecture exactly, or it is not recognised.

    Example:
        >>> model = open_encoder("timm:resnet18", pretrained=False)
        >>> model.feature_dim, model.image_size, list(model.taps)
        (512, 224, ['act1', 'layer1', 'layer2', 'layer3', 'layer4'])
    """
    spec = as_name(spec, "an encoder is a run, a checkpoint or a name")
    if image_size is not None and image_size < 1:
        raise UsageError(f"image size {image_size} is not positive; pixels are meant, as in 224")
    with torch.random.fork_rng(devices=[]):
        library, _, name = str(spec).partition(":")
        if library == "timm":
            return from_timm(name, pretrained, download, image_size)
        if library == "torchvision":
            return from_torchvision(name, pretrained, download, image_size)
        if library == "hf":
            return from_hugging_face(name, download, image_size)
        path = expand_user(spec)
        if path.is_dir():
            return _from_folder(path, image_size, arch=arch, prefix=prefix, stem=stem)
        if path.is_file():
            if not path.name.endswith(CHECKPOINT_SUFFIXES):
                raise UsageError(f"{path} has no ending of a checkpoint: {', '.join(CHECKPOINT_SUFFIXES)}")
            return open_checkpoint(path, arch=arch, prefix=prefix, stem=stem, image_size=image_size)
        return _by_name(str(spec), pretrained, download, image_size)


def is_encoder(spec: str | Path) -> bool:
    """Tell whether an encoder is named, and not a file of embeddings.

    A name, a directory with a model in it, or a file that holds weights: one whose ending no embedding has,
    or whose tensors are in their majority named as weights are.

    Example:
        >>> is_encoder("timm:resnet18"), is_encoder("features.npy")
        (True, False)
    """
    if str(spec).partition(":")[0] in ("timm", "torchvision", "hf"):
        return True
    path = expand_user(spec)
    if path.is_dir():
        return _kind_of_folder(path) != ""
    if path.is_file():
        if path.name.endswith((".ckpt", ".tar", ".bin")):
            return True
        if not path.name.endswith(CHECKPOINT_SUFFIXES):
            return False
        weights, said = read_weights(path)
        if said.get("format") == "fullrank-encoder":
            return True
        named = [key for key in weights if key.rpartition(".")[2] in ("weight", "bias", "running_mean")]
        return len(named) > len(weights) / 2
    import timm

    return timm.is_model(str(spec)) or spec in torchvision_names() or spec in OWN_BACKBONES


def _kind_of_folder(folder: Path) -> str:
    """`run`, `config`, `solo-learn`, or "" where no model is in a directory."""
    if (folder / "encoder.safetensors").is_file() or (folder / "config.yaml").is_file():
        return "run"
    if (folder / "config.json").is_file():
        return "config"
    return "solo-learn" if (folder / "args.json").is_file() else ""


def _from_folder(folder: Path, image_size: int | None, **layout: Any) -> Encoder:
    kind = _kind_of_folder(folder)
    if kind == "run":
        if not (folder / "encoder.safetensors").is_file():
            raise DataError(f"{folder} has no encoder.safetensors yet: its first checkpoint writes one")
        return open_run_encoder(folder / "encoder.safetensors", image_size)
    if kind == "solo-learn":
        return open_solo_folder(folder, image_size=image_size, **layout)
    if kind == "config":
        if "architecture" in read_json(folder / "config.json"):
            return from_timm_folder(folder, image_size)
        return from_hugging_face(str(folder), download=False, image_size=image_size)
    files = sorted(
        path for path in folder.glob("*") if path.suffix in (".pth", ".pt", ".ckpt", ".safetensors")
    )
    hint = f"; name the file, as in {files[0]}" if files else ""
    raise DataError(
        f"{folder} holds no model: encoder.safetensors (a run of ours), config.json (transformers, timm) or "
        f"args.json (solo-learn) would be there{hint}"
    )


def _by_name(spec: str, pretrained: bool, download: bool, image_size: int | None) -> Encoder:
    import timm

    if timm.is_model(spec):
        return from_timm(spec, pretrained, download, image_size)
    if spec in torchvision_names():
        return from_torchvision(spec, pretrained, download, image_size)
    path = expand_user(spec)
    if "/" in spec or spec.endswith(CHECKPOINT_SUFFIXES):
        hint = did_you_mean(path) or f"; hf:{spec} is the model of that name on the Hub"
        raise DataError(f"{path} does not exist{hint}")
    names = [*timm.list_models(), *torchvision_names()]
    raise UnknownNameError(
        "model",
        spec,
        names,
        "it does not exist as a file either; or pass timm:, torchvision: or hf: and a name",
    )
