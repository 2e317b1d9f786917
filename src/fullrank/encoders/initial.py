"""Weights that a run starts from, opened as an encoder and named as its backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fullrank.encoders.checkpoints import backbone_weights, find_prefixes, read_weights
from fullrank.encoders.encoder import ASSUMED, Encoder
from fullrank.encoders.export.rebuilt import SAME, difference
from fullrank.encoders.libraries import PooledOutput
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.transformers_names import as_timm
from fullrank.errors import UsageError
from fullrank.images.sources import Data
from fullrank.networks.backbones import Stem, build_backbone, join_options
from fullrank.networks.transfer import transfer_weights
from fullrank.training.config import TrainConfig
from fullrank.training.networks import InitialWeights
from fullrank.untrusted.parsing import read_json
from fullrank.untrusted.paths import expand_user

TINY_VIT = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}  # of vit_tiny_patch16_224


def open_initial_weights(config: TrainConfig) -> InitialWeights | None:
    """Open what `config.init` names; None where it names nothing.

    It is opened as an audit opens an encoder. Where that fails for a file and a backbone is named, the file's
    tensors are taken by that backbone's names.

    Raises:
        DataError: it is not there, or not fetched yet.
        UsageError: it holds no network that is known.
    """
    if not config.init:
        return None
    try:
        encoder = open_encoder(config.init, download=config.download)
    except UsageError as error:
        if config.backbone == "auto" or not expand_user(config.init).is_file():
            if "--arch" in str(error):
                raise UsageError(str(error).replace("--arch", "--backbone")) from error
            raise
        return _by_backbone(config)
    return as_initial_weights(encoder, config.init, config.image_size)


class Sources(NamedTuple):
    """What a run reads that was opened before it begins, as far as it was."""

    data: Data | None = None
    initial: InitialWeights | None = None


def as_initial_weights(encoder: Encoder, spec: str | Path, image_size: int = 0) -> InitialWeights:
    """The weights of an encoder by the names of the backbone that is built like it.

    Args:
        encoder: as opened.
        spec: what names it.
        image_size: side in pixels of the run's images; 0: the encoder's own.
    """
    size = image_size or encoder.image_size
    weights, candidates = _renamed(encoder, spec, size)
    stem = _stem(weights, encoder.network)
    name, notes = _buildable(encoder, weights, candidates, stem, size == encoder.image_size)
    return InitialWeights(
        encoder.origin or str(spec),
        weights,
        name,
        stem,
        encoder.image_size if encoder.size_known else 0,
        encoder.mean or (),
        encoder.std or (),
        (*_notes(encoder), *notes),
    )


def _notes(encoder: Encoder) -> Iterator[str]:
    """What was assumed of an encoder, as far as it holds for a run."""
    for note in encoder.notes:
        if not note.startswith(ASSUMED):
            yield note.replace(", for --prefix:", ":").replace("--arch", "--backbone")
        elif encoder.mean is not None:
            yield "images are normalised with ImageNet's mean and std: the weights do not tell with which"


def _by_backbone(config: TrainConfig) -> InitialWeights:
    """The tensors of a file that bear the names of a backbone, under whatever prefix."""
    path = expand_user(config.init)
    network = build_backbone(config.backbone, config.image_size or 224, stem=config.stem).network
    weights, own = read_weights(path)[0], network.state_dict()
    prefix = next(iter(find_prefixes(weights, [name for name, _ in network.named_parameters()])), "")
    found = backbone_weights(weights, prefix, own)
    return InitialWeights(f"{path}[{prefix}*]" if prefix else str(path), found)


def _renamed(encoder: Encoder, spec: str | Path, size: int) -> tuple[dict[str, Tensor], list[str]]:
    """The weights by timm's names, and names of backbones that may have them."""
    network: Any = encoder.network
    if isinstance(network, PooledOutput):
        name, weights = as_timm(network.encoder, size) or ("", {})
        return weights, [name] if name else []
    return network.state_dict(), list(dict.fromkeys(_candidates(encoder, network, spec)))


def _candidates(encoder: Encoder, network: Any, spec: str | Path) -> Iterator[str]:
    from timm.models.vision_transformer import VisionTransformer

    name = encoder.name.partition(" (")[0]  # without what is said of its stem
    base = name if "(" in name else name.split(".")[0]
    yield base
    pooled = getattr(network, "global_pool", None)
    if isinstance(pooled, str) and "(" not in base:
        yield join_options(base, {"global_pool": pooled})
    with suppress(OSError, ValueError, TypeError, KeyError):
        config = read_json(Path(spec, "config.json"))  # of a directory of timm
        options = {k: v for k, v in config["model_args"].items() if k not in ("img_size", "num_classes")}
        yield join_options(base, options)
    if isinstance(network, VisionTransformer):
        yield join_options("vit_tiny_patch16_224", _vit_options(network))
    elif isinstance(getattr(network, "layer1", None), nn.Sequential):
        blocks = tuple(len(getattr(network, f"layer{k}")) for k in (1, 2, 3, 4))
        kind = "resnet50" if hasattr(network.layer1[0], "conv3") else "resnet18"
        yield join_options(kind, {"layers": blocks})


def _vit_options(network: Any) -> dict[str, Any]:
    """Options that make timm's ViT-Tiny a network like this one."""
    first = network.blocks[0]
    found = {
        "patch_size": network.patch_embed.patch_size[0],
        "embed_dim": network.embed_dim,
        "depth": len(network.blocks),
        "num_heads": first.attn.num_heads,
    }
    options = {key: value for key, value in found.items() if value != TINY_VIT[key]}
    if (ratio := first.mlp.fc1.out_features / network.embed_dim) != 4:
        options["mlp_ratio"] = ratio
    if first.attn.qkv.bias is None:
        options["qkv_bias"] = False
    if hasattr(first.ls1, "gamma"):
        options["init_values"] = 1e-5
    if network.cls_token is None:
        options["class_token"] = False
    if network.global_pool != "token":
        options |= {
            "global_pool": network.global_pool,
            "fc_norm": not isinstance(network.fc_norm, nn.Identity),
        }
    return options


def _stem(weights: Mapping[str, Tensor], network: Any) -> Stem:
    if "conv1.weight" not in weights or "layer1.0.conv1.weight" not in weights:
        return "auto"
    if weights["conv1.weight"].shape[-1] == 7 or not hasattr(network, "conv1"):
        return "imagenet"
    return "cifar-pad2" if network.conv1.padding == (2, 2) else "cifar"


@torch.no_grad()
def _buildable(
    encoder: Encoder, weights: dict[str, Tensor], candidates: list[str], stem: Stem, compared: bool
) -> tuple[str, tuple[str, ...]]:
    """The name whose network takes all the weights, with equal features if any."""
    apart: dict[str, float] = {}
    for name in candidates:
        with suppress(UsageError), torch.random.fork_rng(devices=[]):
            network = build_backbone(name, encoder.image_size, stem=stem).network
            transfer = transfer_weights(network, weights, name)
            if transfer.fresh or transfer.unused:
                continue
            apart[name] = difference(network.eval(), encoder) if compared else 0.0
            if apart[name] < SAME:
                return name, ()
    if not apart:
        return "", ()
    closest = min(apart, key=lambda name: apart[name])
    return closest, (f"features differ from the source's by {apart[closest]:.2g} of their size",)
