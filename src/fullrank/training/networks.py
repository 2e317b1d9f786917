"""Backbone and method of a run, perhaps from weights that exist, or frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods import Method, build_method
from fullrank.networks.backbones import Backbone, Stem, build_backbone, join_options, split_options
from fullrank.networks.depth import parameters_of_stages
from fullrank.networks.lora import add_lora
from fullrank.networks.transfer import transfer_weights
from fullrank.options import split_names
from fullrank.training.config import TrainConfig
from fullrank.training.thawing import keep_in_eval_mode
from fullrank.views import VIEWS


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a run starts from, and what is known of the network that had them.

    Attributes:
        origin: where they are from, for messages.
        weights: of a backbone, by the names that ours and timm's have.
        backbone: the name that `build_backbone` builds it by; empty: it is not known to.
        stem: of a ResNet; auto where it has none to choose.
        image_size: side in pixels that it was made for; 0: not on record.
        mean: per channel, that its images were normalised with; empty: not on record.
        std: likewise.
        notes: one line each, for the reader of the run.
    """

    origin: str
    weights: Mapping[str, Tensor]
    backbone: str = ""
    stem: Stem = "auto"
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def follow(self, config: TrainConfig) -> TrainConfig:
        """The configuration with all that it leaves open as the source has it.

        Raises:
            UsageError: the backbone is left open, and the source's is not known.
        """
        changes: dict[str, Any] = {}
        if config.backbone == "auto":
            if not self.backbone:
                raise UsageError(
                    f"--init: the network of {self.origin} is none that can be built here: name one that is "
                    f"like it with --backbone"
                )
            changes["backbone"] = self.backbone
        same = split_options(self.backbone)[0] == split_options(changes.get("backbone", config.backbone))[0]
        if config.stem == "auto" and same:
            changes["stem"] = self.stem
        changes |= {
            key: getattr(self, key) for key in ("image_size", "mean", "std") if not getattr(config, key)
        }
        return replace(config, **changes)


FEW_ACROSS = 4  # patches along a side, below which a transformer sees hardly any places
SOUND_ACROSS = 8  # as small images are cut in published runs: 32 pixels into patches of 4

OpenInitial: TypeAlias = Callable[[TrainConfig], InitialWeights | None]
"""Opens the weights that a configuration starts from; None where it names none."""


def build_networks(
    config: TrainConfig, initial: InitialWeights | None = None
) -> tuple[Backbone, Method, tuple[str, ...]]:
    """Build backbone and method of a resolved configuration, with notes.

    Without `initial` the weights are random: those of a run that is taken up come from its checkpoint.

    Raises:
        UsageError: the weights are another network's, or a stage is not there, or nothing is left to train.
    """
    backbone = build_backbone(
        config.backbone,
        config.image_size,
        stem=config.stem,
        zero_init_residual=config.zero_init_residual,
        sides=VIEWS[config.views].sides(config.image_size) if config.views in VIEWS else (),
    )
    method = build_method(config.method, backbone.network, backbone.feature_dim, config.options)
    notes = few_tokens_note(backbone.network, backbone.name, config.image_size, initial is not None)
    if initial is not None:
        transfer = transfer_weights(backbone.network, initial.weights, initial.origin, initial.backbone)
        notes = (f"backbone from {initial.origin}: {transfer}", *initial.notes, *notes)
    if config.freeze and not split_names(config.freeze):
        raise UsageError(f"--freeze {config.freeze!r} names nothing: stages, with commas between, or all")
    frozen = parameters_of_stages(backbone.network, split_names(config.freeze))
    for name, parameter in backbone.network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    if config.lora:
        add_lora(backbone.network, config.lora, frozen)
    if initial is not None or frozen or config.lora:
        _start_target(method)
    if not any(parameter.requires_grad for parameter in method.parameters()):
        raise UsageError(f"--freeze {config.freeze} leaves nothing to train: {config.method} has no head")
    return backbone, method, notes


def few_tokens_note(network: nn.Module, name: str, image_size: int, loaded: bool) -> tuple[str, ...]:
    """Note that a transformer cuts images into very few patches, if it does.

    Args:
        network: the backbone.
        name: as `build_backbone` takes it.
        image_size: side of the images in pixels.
        loaded: whether it has weights already, which are of patches of that size.

    Example:
        >>> backbone = build_backbone("vit_tiny_patch16_224(depth=1)", 32)
        >>> few_tokens_note(backbone.network, "vit", 32, loaded=True)[0][:71]
        'vit cuts 32 pixels into 2 x 2 patches of 16: so few tokens (4) hardly s'
    """
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None) or (1,)
    across = image_size // patch[0]
    if patch[0] == 1 or across >= FEW_ACROSS:
        return ()
    better = [f"--image-size {SOUND_ACROSS * patch[0]}"]
    base, options = split_options(name)
    if not loaded and not image_size % SOUND_ACROSS and base.startswith("vit_"):
        smaller = join_options(base, options | {"patch_size": image_size // SOUND_ACROSS})
        better = [f"--backbone '{smaller}'", *better]
    return (
        f"{name} cuts {image_size} pixels into {across} x {across} patches of {patch[0]}: so few tokens "
        f"({across**2}) hardly say where in the image something is; better {', or '.join(better)}",
    )


def _start_target(method: Method) -> None:
    """Start a target that follows the backbone; keep frozen parts in eval mode."""
    method.copy_backbone_to_target()
    keep_in_eval_mode(method, method.eval_parts)
