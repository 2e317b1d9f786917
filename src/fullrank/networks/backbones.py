"""Backbones: any timm name, the CIFAR stem, narrow CIFAR ResNets, a small ViT."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.registry import Registry

Stem = Literal["auto", "imagenet", "cifar", "cifar-pad2"]
NARROW = re.compile(r"resnet([0-9]{1,4})-w([0-9]{1,4})")  # our CIFAR ResNets: depth and width
LAYER_NORM_MODULES = (  # of timm
    "vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam",
    "beit", "cait", "convnext", "deit", "eva", "hiera", "mlp_mixer", "naflexvit", "pvt_v2",
    "swin_transformer", "swin_transformer_v2", "tnt", "twins", "xcit",
)  # fmt: skip
SMALL_STEM_SIZE = 64  # pixels up to which a 3x3 stem at full resolution pays
OWN_BACKBONES: Registry[Callable[[int, bool], nn.Module]] = Registry("backbone")
"""Makers of what timm has not, of an image size and whether residual blocks start as their shortcuts."""


@dataclass(frozen=True)
class Backbone:
    """A network that maps images [n, 3, S, S] to pooled features [n, feature_dim]."""

    name: str
    network: nn.Module
    feature_dim: int
    stem: Stem


class CifarResNet(nn.Module):
    """The ResNet of depth 6m+2 for small images (He et al. 1512.03385, section 4.2).

    Three stages of m basic blocks each, at full, half and quarter resolution, with widths w, 2w and 4w;
    a 3x3 stem; global average pooling. Features [n, 4w]. With a large stem, 7x7 at stride 2 and
    max-pooling, the stages work at a quarter of that resolution.

    Args:
        depth: 8, 14, 20, 32, ... (6m + 2).
        width: channels of the first stage; 16 in the paper.
        zero_init_residual: last BN gain of every block starts at 0.
        large_stem: begin as ResNets for large images do.

    Example:
        >>> CifarResNet(8, 16)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self, depth: int, width: int, zero_init_residual: bool = False, large_stem: bool = False
    ) -> None:
        super().__init__()
        from timm.models.resnet import BasicBlock

        blocks, remainder = divmod(depth - 2, 6)
        if remainder or blocks < 1 or width < 1:
            raise UsageError(
                f"a CIFAR ResNet has depth 6m + 2 (8, 14, 20, ...), not {depth}, and a width, not {width}"
            )
        kernel, stride = (7, 2) if large_stem else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if large_stem else nn.Identity()
        stages: list[nn.Module] = []
        channels = width
        for stage in range(3):
            out = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = None
                if stride != 1 or channels != out:
                    projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(out))
                stages.append(BasicBlock(channels, out, stride=stride, downsample=shortcut))
                channels = out
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in stages:
                nn.init.zeros_(module.bn2.weight)  # type: ignore[union-attr, arg-type]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Patterns of the names of parameters by depth, as timm's networks have them."""
        return {"stem": r"^conv1|bn1", "blocks": r"^blocks\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] to features [n, 4w]."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        features: Tensor = self.blocks(x).mean(dim=(2, 3))
        return features


def _register_cifar_resnet(depth: int, width: int) -> None:
    @OWN_BACKBONES.register(f"resnet{depth}-w{width}")
    def make(_: int, zero_init_residual: bool) -> nn.Module:
        return CifarResNet(depth, width, zero_init_residual)


for _depth, _width in product((8, 14, 20), (4, 8, 16, 32, 64)):
    _register_cifar_resnet(_depth, _width)


@OWN_BACKBONES.register("vit-tutorial")
def tutorial_vit(image_size: int, zero_init_residual: bool = False) -> nn.Module:
    """The vision transformer of the SSL collapse tutorial (2025), features [n, 256].

    LayerNorm before every part and at the end, dropout after the positions, in attention and MLP. The class
    token and the learned positions start as N(0, 1), everything else as PyTorch has it. Features are the mean
    of the patch tokens. Positions are interpolated for images of another size.

    Args:
        image_size: side of the square input in pixels, a multiple of 4.
        zero_init_residual: must be off.

    Example:
        >>> tutorial_vit(8)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 256])
    """
    from timm.models.vision_transformer import VisionTransformer

    if zero_init_residual:
        raise UsageError("zero_init_residual is for ResNets; vit-tutorial has no such blocks")
    network: Any = VisionTransformer(
        img_size=image_size, patch_size=4, num_classes=0, global_pool="avg", fc_norm=False, embed_dim=256,
        depth=6, num_heads=4, mlp_ratio=4.0, pos_drop_rate=0.1, proj_drop_rate=0.1, attn_drop_rate=0.1,
        dynamic_img_size=True, weight_init="skip",
    )  # fmt: skip
    nn.init.normal_(network.cls_token)
    nn.init.normal_(network.pos_embed)
    transformer: nn.Module = network
    return transformer


def split_options(name: str) -> tuple[str, dict[str, Any]]:
    """Split the name of a timm model and its own options.

    Example:
        >>> split_options("vit_tiny_patch16_224(depth=2, num_heads=4)")
        ('vit_tiny_patch16_224', {'depth': 2, 'num_heads': 4})
    """
    base, bracket, rest = name.partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return base, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UsageError(
            f"{name} is no backbone with options: they are written as in vit_tiny_patch16_224(depth=6)"
        ) from None


def join_options(base: str, options: Mapping[str, Any]) -> str:
    """The name of a timm model with options, as `split_options` reads it.

    Example:
        >>> join_options("resnet18", {"layers": (1, 1, 1, 1)}), join_options("resnet18", {})
        ('resnet18(layers=(1, 1, 1, 1))', 'resnet18')
    """
    words = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{base}({words})" if words else base


def default_backbone(image_size: int) -> str:
    """The backbone where none is named: ResNet-8 for tiny images, else ResNet-18.

    Example:
        >>> default_backbone(16), default_backbone(32)
        ('resnet8-w32', 'resnet18')
    """
    return "resnet8-w32" if image_size <= 24 else "resnet18"


def is_transformer(name: str) -> bool:
    """Whether a backbone is trained as transformers are: with LayerNorm, and AdamW.

    Example:
        >>> [is_transformer(name) for name in ("vit_tiny_patch16_224", "convnext_tiny", "resnet18", "auto")]
        [True, True, False, False]
    """
    if name in OWN_BACKBONES or name == "auto":
        return name.startswith("vit")
    import timm

    return timm.is_model(name) and timm.models.is_model_in_modules(name, LAYER_NORM_MODULES)


def backbone_names() -> list[str]:
    """Every name that `build_backbone` takes: ours first, then timm's."""
    import timm

    return [*OWN_BACKBONES, *timm.list_models()]


def _has_large_stem(name: str, image_size: int, stem: Stem) -> bool:
    if stem == "cifar-pad2":
        raise UsageError(f"{name} has no stem of padding 2; take --stem cifar or a timm ResNet")
    return stem == "imagenet" or (stem == "auto" and image_size > SMALL_STEM_SIZE)


def build_backbone(
    name: str,
    image_size: int,
    *,
    stem: Stem = "auto",
    zero_init_residual: bool = False,
    sides: Collection[int] = (),
) -> Backbone:
    """Build a randomly initialised backbone without its classifier.

    Args:
        name: one of `OWN_BACKBONES` or any timm model name, with options of its own in brackets
            (and `layer_norm_eps`, in which libraries differ).
        image_size: side of the square input in pixels.
        stem: what a ResNet begins with. `imagenet`: 7x7 stride 2 and max-pooling. `cifar`: 3x3 stride 1,
            padding 1, no pooling. `cifar-pad2`: the same with padding 2, which solo-learn and its forks use
            (32 pixels become 34, 26 % more arithmetic; for parity with their numbers). `auto`: `cifar` up to
            48 pixels, narrow CIFAR ResNets up to 64, else `imagenet`.
        zero_init_residual: last BN gain of every residual block starts at 0 (SimSiam's reference: on).
        sides: other sides that it is to take too, as those of small crops: transformers then interpolate
            their positions.

    Raises:
        UnknownNameError: no such backbone.
        UsageError: the backbone cannot take such images or such a stem.

    Example:
        >>> build_backbone("resnet8-w16", 32).feature_dim
        64
    """
    if match := NARROW.fullmatch(name):
        large = _has_large_stem(name, image_size, stem)
        narrow = CifarResNet(int(match[1]), int(match[2]), zero_init_residual, large)
        return _finished(name, narrow, image_size, "imagenet" if large else "cifar")
    if name in OWN_BACKBONES:
        return _finished(name, OWN_BACKBONES[name](image_size, zero_init_residual), image_size, stem)
    network = _timm_network(name, image_size, zero_init_residual, {*sides} - {image_size})
    for side in {*sides}:
        _require_whole_patches(name, network, side, "take --views without such small ones, or larger images")
    return _finished(name, network, image_size, stem)


def require_backbone(name: str) -> None:
    """Raise UnknownNameError where no backbone has that name, brackets aside."""
    import timm

    base = split_options(name)[0]
    if not (NARROW.fullmatch(name) or name in OWN_BACKBONES or timm.is_model(base)):
        known = "`fullrank list backbones` names all of them"
        raise UnknownNameError("backbone", base, backbone_names(), known)


def _timm_network(name: str, image_size: int, zero_init_residual: bool, other: set[int]) -> nn.Module:
    import timm

    require_backbone(name)
    base, options = split_options(name)
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        options["zero_init_last"] = zero_init_residual
    elif zero_init_residual:
        raise UsageError(f"zero_init_residual is for ResNets; {name} has no such blocks")
    if has_fixed_size(base):
        options = {"dynamic_img_size": True} | options if other else options
        options["img_size"] = image_size
    eps = options.pop("layer_norm_eps", None)
    try:
        network = timm.create_model(base, pretrained=False, num_classes=0, **options)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        if "dynamic_img_size" in str(error) and other:
            raise UsageError(
                f"{name} takes images of one size, and the views have {len(other) + 1}: take --views of one"
            ) from error
        raise UsageError(f"timm cannot build {name} for {image_size}-pixel images: {error}") from error
    for module in network.modules() if eps is not None else ():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    made: nn.Module = network
    return made


def _require_whole_patches(name: str, network: nn.Module, side: int, remedy: str = "") -> None:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None) or (1,)
    if any(side % length for length in patch):
        remedy = remedy or f"take --image-size {max(side // patch[0], 1) * patch[0]}"
        raise UsageError(f"{name} cuts patches of {patch[0]} pixels: {side} is no multiple; {remedy}")


def _finished(name: str, network: nn.Module, image_size: int, stem: Stem) -> Backbone:
    _require_whole_patches(name, network, image_size)
    if not isinstance(network, CifarResNet):
        if stem == "auto":
            stem = "cifar" if image_size <= 48 and _has_imagenet_stem(network) else "imagenet"
        if stem != "imagenet" and not _has_imagenet_stem(network):
            raise UsageError(f"the CIFAR stem is for ResNets with a 7x7 stem; {name} has none: drop --stem")
        if stem != "imagenet":
            use_cifar_stem(network, padding=2 if stem == "cifar-pad2" else 1)
    return Backbone(name, network, _feature_dim(network, image_size, name), stem)


def has_fixed_size(name: str) -> bool:
    """Whether a timm model is made for images of one size."""
    import timm

    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(config and config.fixed_input_size)


def _has_imagenet_stem(network: nn.Module) -> bool:
    first = getattr(network, "conv1", None)
    return isinstance(first, nn.Conv2d) and first.kernel_size == (7, 7) and hasattr(network, "maxpool")


def use_cifar_stem(network: nn.Module, padding: int) -> None:
    """Replace a 7x7 stem with pooling by a fresh 3x3 one, as the references do."""
    old = network.conv1
    assert isinstance(old, nn.Conv2d)
    network.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=padding, bias=False)
    network.maxpool = nn.Identity()


@torch.no_grad()
def _feature_dim(network: nn.Module, image_size: int, name: str) -> int:
    was_training = network.training
    try:
        features = network.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(f"{name} cannot take {image_size}-pixel images: {error}") from error
    finally:
        network.train(was_training)
    if features.ndim != 2:
        raise UsageError(f"{name} returns features of shape {tuple(features.shape)}, not [n, d]")
    return int(features.shape[1])


def has_tokens(network: nn.Module) -> bool:
    """Whether a network has patches or positions that it pools, as all of timm's have."""
    return hasattr(network, "forward_head")


def features_and_tokens(network: nn.Module, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Images [n, 3, S, S] to features [n, dim] and their tokens [n, t, dim].

    Tokens are the patches of a timm transformer, behind its last normalisation and without class and register
    tokens, or the positions of a convolutional map. A network that has none of that width gives one token,
    its features.

    Example:
        >>> features, tokens = features_and_tokens(tutorial_vit(8), torch.zeros(2, 3, 8, 8), 256)
        >>> features.shape, tokens.shape
        (torch.Size([2, 256]), torch.Size([2, 4, 256]))
    """
    if not has_tokens(network):
        features: Tensor = network(x)
        return features, features.unsqueeze(1)
    whole: Any = network
    unpooled: Tensor = whole.forward_features(x)
    features = whole.forward_head(unpooled)
    if unpooled.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NCHW":
        unpooled = unpooled.movedim(1, -1)
    if unpooled.ndim < 3 or unpooled.shape[-1] != dim:
        return features, features.unsqueeze(1)
    tokens = unpooled.flatten(1, -2)[:, getattr(network, "num_prefix_tokens", 0) :]
    return features, getattr(network, "fc_norm", nn.Identity())(tokens)


@torch.no_grad()
def reinitialized(network: nn.Module) -> nn.Module:
    """Copy a randomly initialised network with other random weights.

    The entries of a freshly initialised tensor are independent and of one distribution, so a permutation of
    them is another sample: what starts at a constant stays there. Buffers and parameters that are not trained
    are copied.

    Example:
        >>> first = nn.Linear(3, 2)
        >>> second = reinitialized(first)
        >>> torch.equal(first.weight, second.weight)
        False
        >>> torch.equal(first.weight.flatten().sort().values, second.weight.flatten().sort().values)
        True
    """
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        if parameter.requires_grad:
            order = torch.randperm(parameter.numel(), device=parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
