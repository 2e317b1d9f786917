"""Parts of a network by depth: which are frozen, and how fast each layer learns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from fullrank.errors import UnknownNameError, UsageError


def layer_depths(network: nn.Module) -> dict[str, int]:
    """Depth of each parameter: 0 in the stem, then one more per block, as timm has it.

    What follows the last block counts to it.

    Example:
        >>> from fullrank.networks.backbones import CifarResNet
        >>> depths = layer_depths(CifarResNet(8, 4))
        >>> depths["conv1.weight"], depths["blocks.0.conv1.weight"], depths["blocks.2.bn2.bias"]
        (0, 1, 3)
    """
    from timm.models import group_parameters

    matcher: Any = getattr(network, "group_matcher", None)
    if matcher is None:
        raise UsageError(f"{type(network).__name__} does not say how deep its layers are: take a timm model")
    grouped: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    return grouped


def rate_factors(network: nn.Module, factor: float, decay: float) -> dict[nn.Parameter, float]:
    """Factor of the learning rate of each trained parameter.

    It is `factor` in the last layer, and `decay` times less with each layer below (2106.08254, BEiT).

    Example:
        >>> from fullrank.networks.backbones import CifarResNet
        >>> network = CifarResNet(8, 4)
        >>> rate_factors(network, 0.5, 0.5)[network.conv1.weight]
        0.0625
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if decay == 1.0:
        return dict.fromkeys(trained.values(), factor)
    depths = layer_depths(network)
    deepest = max(depths.values())
    return {p: factor * decay ** (deepest - depths[name]) for name, p in trained.items()}


def parameters_of_stages(network: nn.Module, stages: Sequence[str]) -> list[str]:
    """Names of the parameters in stages.

    A stage is `all`, `stem`, a part as `layer1`, or a range of parts as `blocks.0-5`.

    Raises:
        UnknownNameError: the network has no such part.

    Example:
        >>> from fullrank.networks.backbones import CifarResNet
        >>> names = parameters_of_stages(CifarResNet(8, 4), ["stem", "blocks.0-1"])
        >>> names[0], names[-1]
        ('conv1.weight', 'blocks.1.downsample.1.bias')
    """
    names = [name for name, _ in network.named_parameters()]
    chosen = {name for stage in stages for name in _of_stage(network, names, stage)}
    return [name for name in names if name in chosen]


def _of_stage(network: nn.Module, names: Sequence[str], stage: str) -> Iterator[str]:
    if stage == "all":
        yield from names
        return
    if stage == "stem":
        depths = layer_depths(network)
        yield from (name for name in names if depths[name] == 0)
        return
    ranged = re.fullmatch(r"(.*\.)?(\d+)-(\d+)", stage)
    parts = [stage]
    if ranged:
        last = min(int(ranged[3]), int(ranged[2]) + len(names))  # one more than there can be is refused below
        parts = [f"{ranged[1] or ''}{k}" for k in range(int(ranged[2]), last + 1)]
    for part in parts or [stage]:
        within = [name for name in names if name == part or name.startswith(f"{part}.")]
        if not within:
            raise UnknownNameError("stage", part, ["all", "stem", *_stages(names)])
        yield from within


def _stages(names: Sequence[str]) -> list[str]:
    """Parts that can be named: children, and blocks within them."""
    parts = [name.rpartition(".")[0].split(".") for name in names]
    return list(dict.fromkeys(".".join(part[:k]) for part in parts for k in (1, 2) if part[0]))


def frozen_modules(network: nn.Module) -> list[str]:
    """Topmost modules with parameters, all of them frozen.

    These belong in evaluation mode: statistics and dropout of what does not learn stay as they are.

    Example:
        >>> frozen_modules(nn.Sequential(nn.Linear(1, 1).requires_grad_(False), nn.Linear(1, 1)))
        ['0']
    """
    found: list[str] = []
    for name, module in network.named_modules():
        parameters = list(module.parameters())
        inside = any(not top or name.startswith(f"{top}.") for top in found)
        if parameters and not inside and not any(p.requires_grad for p in parameters):
            found.append(name)
    return found
