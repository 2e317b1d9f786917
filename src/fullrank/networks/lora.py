"""Low-rank adaptation (LoRA, Hu et al. 2106.09685) of a backbone, by `peft`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from fullrank.errors import UsageError

LOW_RANK = re.compile(r"(.*)\.lora_([AB])\.default\.weight")


def add_lora(network: nn.Module, rank: int, frozen: Collection[str] = ()) -> None:
    """Freeze a network, and add trained low-rank updates W + B A, in place.

    To its linear layers, or where it has none to its ungrouped convolutions. B starts at zero, so that the
    features stay what they were.

    Args:
        network: the backbone.
        rank: r, rows of A.
        frozen: parameters whose layers get no update.

    Raises:
        UsageError: `peft` is not installed, nothing is left to adapt, or the rank is beyond all layers'.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError("--lora needs its package: pip install 'fullrank[lora]'") from None
    kinds: dict[type[nn.Module], list[str]] = {nn.Linear: [], nn.Conv2d: []}
    for name, module in network.named_modules():
        if type(module) in kinds and getattr(module, "groups", 1) == 1:
            kinds[type(module)].append(name)
    layers = [name for name in kinds[nn.Linear] or kinds[nn.Conv2d] if f"{name}.weight" not in frozen]
    if not layers:
        raise UsageError("--lora finds no layer to adapt that is not frozen: drop --freeze, or --lora")
    most = max(
        min(len(w), w[0].numel()) for w in (network.get_parameter(f"{name}.weight") for name in layers)
    )
    if rank > most:
        raise UsageError(
            f"--lora {rank:,} is above {most:,}, the rank of the widest layer itself: take far less, as 8"
        )
    whole = "|".join(map(re.escape, layers))  # a list of names would match their ends, frozen ones too
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=f"^({whole})$"), network)


@torch.no_grad()
def merge_lora(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network with LoRA as those of the plain one: W + B A.

    Others come back as they are.

    Example:
        >>> one, x = torch.ones(1, 1), "layer"
        >>> low = {f"{x}.lora_A.default.weight": one, f"{x}.lora_B.default.weight": 2 * one}
        >>> merge_lora({f"{x}.base_layer.weight": one, f"{x}.base_layer.bias": one[0]} | low)
        {'layer.weight': tensor([[3.]]), 'layer.bias': tensor([1.])}
    """
    merged = {
        key.replace(".base_layer.", "."): value
        for key, value in weights.items()
        if not LOW_RANK.fullmatch(key)
    }
    for key, a in weights.items():
        if (found := LOW_RANK.fullmatch(key)) and found[2] == "A":
            b, name = weights[f"{found[1]}.lora_B.default.weight"], f"{found[1]}.weight"
            update = (b.flatten(1).double() @ a.flatten(1).double()).view_as(merged[name])
            merged[name] = (merged[name].double() + update).to(merged[name].dtype)
    return merged
