"""Networks from a name, or from the names and shapes of their weights."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.networks.backbones import OWN_BACKBONES, CifarResNet, has_fixed_size, use_cifar_stem

RESNETS: dict[tuple[int, ...], str] = {  # bottleneck or not, and blocks per stage
    (False, 2, 2, 2, 2): "resnet18",
    (False, 3, 4, 6, 3): "resnet34",
    (True, 3, 4, 6, 3): "resnet50",
    (True, 3, 4, 23, 3): "resnet101",
    (True, 3, 8, 36, 3): "resnet152",
}


@dataclass
class Built:
    """A network without its head, and its properties.

    Attributes:
        name: of the architecture.
        network: images [n, 3, S, S] to features [n, d].
        image_size: side in pixels that it is made for, or None where it takes any.
        small: whether it begins as networks for images of about 32 pixels do.
        notes: what the weights did not tell.
    """

    name: str
    network: nn.Module
    image_size: int | None = None
    small: bool = False
    notes: list[str] = field(default_factory=list)


def build_by_shapes(weights: Mapping[str, Tensor], stem_padding: int | None = None) -> Built | None:
    """Build the network with weights of these names and shapes, if it is known.

    Known are the ResNets of torchvision (also wide, grouped, and with the CIFAR stem), our narrow CIFAR
    ResNets, and transformers as timm, DINO, MoCo v3 and MAE name their parts.

    Args:
        weights: of the backbone, without prefix and head.
        stem_padding: of a 3x3 stem, which weights do not tell; None is 1.

    Example:
        >>> import torchvision
        >>> state = torchvision.models.resnet34().state_dict()
        >>> build_by_shapes({key: value for key, value in state.items() if "fc." not in key}).name
        'resnet34'
    """
    if "layer1.0.conv1.weight" in weights and "conv1.weight" in weights:
        return _resnet(weights, stem_padding)
    if "blocks.0.conv1.weight" in weights and "conv1.weight" in weights:
        depth = 2 + 2 * _count(weights, r"blocks\.(\d+)\.")
        width, large = len(weights["conv1.weight"]), weights["conv1.weight"].shape[-1] == 7
        network = CifarResNet(depth, width, large_stem=large)
        return Built(f"resnet{depth}-w{width}", network, small=not large)
    if "patch_embed.proj.weight" in weights and "blocks.0.attn.qkv.weight" in weights:
        return _transformer(weights)
    return None


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in weights if (match := re.match(pattern, key))})


def _resnet(weights: Mapping[str, Tensor], stem_padding: int | None) -> Built | None:
    from torchvision.models import resnet

    layers = [_count(weights, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    stem = weights["conv1.weight"].shape
    if not all(layers) or stem[:2] != (64, 3) or stem[-1] not in (3, 7):
        return None
    bottleneck = "layer1.0.conv3.weight" in weights
    inner = weights["layer1.0.conv2.weight"].shape if bottleneck else (64, 64)
    groups = inner[0] // inner[1]
    base = inner[0] // groups  # channels of a group in the first stage: 64, or 128 where it is wide
    block = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    network = resnet.ResNet(block, layers, groups=groups, width_per_group=base)
    network.fc = nn.Identity()
    name = RESNETS.get((bottleneck, *layers), f"resnet with {layers} blocks")
    if groups > 1:
        name = f"{name.replace('resnet', 'resnext')}_{groups}x{base}d"
    elif base != 64:
        name = f"wide_{name}_{base // 64}"
    if stem[-1] == 7:
        return Built(name, network)
    padding = 1 if stem_padding is None else stem_padding
    use_cifar_stem(network, padding)
    notes = [
        f"the 3x3 stem is taken to have stride 1, padding {padding} and no pooling, which weights do not tell"
    ]
    return Built(f"{name} (CIFAR stem)", network, small=True, notes=notes if stem_padding is None else [])


def _transformer(weights: Mapping[str, Tensor]) -> Built | None:
    from timm.models.vision_transformer import VisionTransformer

    dim, channels, patch = weights["patch_embed.proj.weight"].shape[:3]
    positions = weights.get("pos_embed")
    class_token = "cls_token" in weights
    if positions is None or positions.ndim != 3 or channels != 3 or "blocks.0.mlp.fc1.weight" not in weights:
        return None
    if any(name in weights for name in ("dist_token", "reg_token", "register_tokens", "norm_pre.weight")):
        return None
    grid = math.isqrt(positions.shape[1] - class_token)
    if grid * grid != positions.shape[1] - class_token:
        return None
    fixed = class_token and not positions[0, 0].any()  # sine and cosine positions: MoCo v3, MAE
    heads = (12 if dim <= 768 else 16) if fixed else max(1, dim // 64)
    if dim % heads:
        return None
    averaged = not class_token or "fc_norm.weight" in weights
    network = VisionTransformer(
        img_size=grid * patch,
        patch_size=patch,
        embed_dim=dim,
        depth=_count(weights, r"blocks\.(\d+)\."),
        num_heads=heads,
        mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        qkv_bias="blocks.0.attn.qkv.bias" in weights,
        init_values=1.0 if "blocks.0.ls1.gamma" in weights else None,
        class_token=class_token,
        global_pool="avg" if averaged else "token",
        fc_norm="fc_norm.weight" in weights,
        num_classes=0,
        weight_init="skip",
    )
    names = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
    name = f"vit_{names.get(dim, f'w{dim}')}_patch{patch}_{grid * patch}"
    pooled = "the mean of the patches" if averaged else "the class token"
    note = f"{heads} heads ({'as MoCo v3 has them' if fixed else '64 channels each'}) and {pooled}"
    notes = [f"{note} are taken, which weights do not tell; else --arch"]
    return Built(name, network, grid * patch, notes=notes)


def build_by_name(
    arch: str, weights: Mapping[str, Tensor] | None = None, image_size: int | None = None
) -> Built:
    """Build the network of a name, untrained and without its head.

    Args:
        arch: a name of timm or torchvision, perhaps as `torchvision:vit_b_16`, or one of ours.
        weights: their names decide between timm and torchvision where both have the name.
        image_size: side in pixels, for those that are made for one.

    Raises:
        UnknownNameError: neither library has it.

    Example:
        >>> build_by_name("torchvision:resnet18").network(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 512])
    """
    import timm
    import torchvision

    create: Any = timm.create_model
    library, _, name = arch.rpartition(":")
    if name in OWN_BACKBONES and not library:
        return Built(name, OWN_BACKBONES[name](image_size or 32, False), small=True)
    theirs = torchvision.models.list_models(module=torchvision.models)
    candidates: list[nn.Module] = []
    if library in ("", "timm") and timm.is_model(name):
        sized = {"img_size": image_size} if image_size and has_fixed_size(name) else {}
        candidates.append(create(name, num_classes=0, **sized))
    if library in ("", "torchvision") and name in theirs and (weights is not None or not candidates):
        candidates.append(without_head(torchvision.models.get_model(name, weights=None), name))
    if not candidates:
        raise UnknownNameError("architecture", arch, [*OWN_BACKBONES, *timm.list_models(), *theirs])
    names = set(weights or {})
    best = max(candidates, key=lambda network: len(names & set(network.state_dict())))
    config: Any = getattr(best, "pretrained_cfg", None) or {}
    size = image_size or (config["input_size"][1] if config.get("fixed_input_size") else None)
    if name.startswith("vit_") and not config:
        size = 224
    return Built(name, best, size)


def adapted(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as a network's library converts them: position grids, names."""
    own, weights = network.state_dict(), dict(weights)
    if set(own) == set(weights) and all(own[key].shape == weights[key].shape for key in own):
        return weights
    convert = getattr(sys.modules.get(type(network).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        converted = convert(dict(weights), network)
    except Exception:  # made for other weights: what does not fit is said of the weights as they are
        return weights
    return {key: value for key, value in converted.items() if key in own or key in weights}


def without_head(network: Any, name: str) -> nn.Module:
    """Take the last linear layer off a torchvision classifier, in place."""
    for head in ("fc", "heads", "head", "classifier"):
        if module := getattr(network, head, None):
            linear = [key for key, part in module.named_modules(prefix=head) if isinstance(part, nn.Linear)]
            if linear:
                parent, _, last = linear[-1].rpartition(".")
                setattr(network.get_submodule(parent), last, nn.Identity())
                return network  # type: ignore[no-any-return]
    raise UsageError(f"torchvision's {name} has no linear classifier to take off; take another model")


@torch.no_grad()
def load_strictly(built: Built, weights: Mapping[str, Tensor], where: str) -> None:
    """Load all of a network's weights and none besides.

    Only counters of batches (`num_batches_tracked`), which nothing reads, may be missing.

    Raises:
        UsageError: weights are missing, left over, or of another shape; one line names the first.

    Example:
        >>> built = Built("a line", nn.Linear(2, 3))
        >>> load_strictly(built, {"weight": torch.ones(3, 2), "fc.bias": torch.ones(3)}, "line.pt")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: line.pt is no a line: 1 of 2 weights missing (bias); 1 left over (fc.bias)
    """
    own = built.network.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    left_over = [key for key in weights if key not in own]
    shapes = {key: (list(weights[key].shape), list(own[key].shape)) for key in own if key in weights}
    unlike = [f"{key} {given} for {wanted}" for key, (given, wanted) in shapes.items() if given != wanted]
    problems = {f"of {len(own)} weights missing": missing, "left over": left_over, "of another shape": unlike}
    wrong = []
    for what, keys in problems.items():
        some = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        wrong += [f"{len(keys)} {what} ({some})"] if keys else []
    if wrong:
        raise UsageError(f"{where} is no {built.name}: {'; '.join(wrong)}")
    for key, value in own.items():
        if key in weights:
            value.copy_(weights[key])
