"""Weights of transformers' vision models by the names of timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fullrank.networks.backbones import join_options

_VIT = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale(\d)\.lambda1", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.attention\.(?:o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.attention\.(?:attention\.)?(?:(q|k|v)_proj|(q|k|v)[a-z]+)\.", r".attn.\1\2."),
    (r"^layernorm\.", "norm."),
)
_RESNET = (
    (r"embedder\.embedder\.convolution", "conv1"),
    (r"embedder\.embedder\.normalization", "bn1"),
    (r"encoder\.stages\.(\d+)\.layers\.", lambda found: f"layer{int(found[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", lambda found: f".conv{int(found[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda found: f".bn{int(found[1]) + 1}."),
)
_CONVNEXT = (
    (r"embeddings\.patch_embeddings\.", "stem.0."),
    (r"embeddings\.layernorm\.", "stem.1."),
    (r"encoder\.stages\.(\d+)\.", r"stages.\1."),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"\.layers\.", ".blocks."),
    (r"\.layer_scale_parameter", ".gamma"),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^layernorm\.", "head.norm."),
)
TIMM_EPS = 1e-6  # of timm's layer norms
_LEFT_OUT = re.compile(r"pooler\.|embeddings\.mask_token")


@torch.no_grad()
def as_timm(encoder: Any, image_size: int) -> tuple[str, dict[str, Tensor]] | None:
    """Name and weights of timm's network that is like an encoder of transformers.

    None where that is none of ViT, DINOv2, ResNet and ConvNeXt. Positions are interpolated to the size in
    pixels as transformers does it.
    """
    config: Any = encoder.config
    families: dict[str, tuple[Any, Any]] = {
        "vit": (_VIT, _vit_name),
        "dinov2": (_VIT, _vit_name),
        "resnet": (_RESNET, _resnet_name),
        "convnext": (_CONVNEXT, _convnext_name),
    }
    if config.model_type not in families:
        return None
    rules, name = families[config.model_type]
    weights = {
        _renamed(key, rules): value for key, value in encoder.state_dict().items() if not _LEFT_OUT.match(key)
    }
    grid, (whole, rest) = weights.get("pos_embed"), divmod(image_size, getattr(config, "patch_size", 1))
    if grid is not None and not rest and grid.shape[1] != whole**2 + 1:
        like, embeddings = grid.new_zeros(1, whole**2 + 1, grid.shape[2]), encoder.embeddings
        weights["pos_embed"] = embeddings.interpolate_pos_encoding(like, image_size, image_size)
    return name(config), _joined(weights)


def _renamed(key: str, rules: Any) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def _joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor, as timm has them."""
    joined: dict[str, Tensor] = {}
    for key, value in weights.items():
        if ".attn.q." in key:
            parts = [value, *(weights[key.replace(".attn.q.", f".attn.{kind}.")] for kind in "kv")]
            joined[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
        elif ".attn.k." not in key and ".attn.v." not in key:
            joined[key] = value
    return joined


def _vit_name(config: Any) -> str:
    options: dict[str, Any] = {
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
    }
    ratio = getattr(config, "mlp_ratio", None) or config.intermediate_size / config.hidden_size
    if ratio != 4:
        options["mlp_ratio"] = ratio
    if not config.qkv_bias:
        options["qkv_bias"] = False
    if config.model_type == "dinov2":
        options["init_values"] = 1e-5
    if config.layer_norm_eps != TIMM_EPS:
        options["layer_norm_eps"] = config.layer_norm_eps
    return join_options("vit_tiny_patch16_224", options)


def _resnet_name(config: Any) -> str:
    kind = "resnet50" if config.layer_type == "bottleneck" else "resnet18"
    return join_options(kind, {"layers": tuple(config.depths)})


def _convnext_name(config: Any) -> str:
    return join_options("convnext_tiny", {"depths": tuple(config.depths), "dims": tuple(config.hidden_sizes)})
