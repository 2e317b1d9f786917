"""Backbones in checkpoints: the prefix of their weights, and what is a head.

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

from torch import Tensor

__all__ = ["backbone_weights", "find_prefixes", "stem_lacks_relu"]

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


def stem_lacks_relu(weights: Collection[str], prefix: str) -> bool:
    """Tell whether a ResNet's children were saved without the ReLU of its stem.

    lightly's ResNets call their first ReLU as a function, so that a sequence of their children has none.

    Example:
        >>> stem_lacks_relu(["backbone.0.weight", "backbone.2.0.conv1.weight"], "backbone.")
        True
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
