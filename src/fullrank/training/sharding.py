"""Sharded training (FSDP2): each process keeps a part of the backbone.

The backbone and that of a momentum target are sharded alike, block by block: weights, gradients and the
optimiser's buffers. A block's weights are gathered when it runs, and dropped after it. Heads are small, and
whole in every process; their gradients are averaged in one exchange a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.strategy import _BackwardSyncControl
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods import Method
from fullrank.networks.checkpointing import blocks
from fullrank.networks.sharded import is_sharded, sharded_like
from fullrank.training.config import TrainConfig


def check_sharding(config: TrainConfig) -> None:
    """See that a configuration can train sharded.

    Raises:
        UsageError: it cannot, and why.
    """
    for wrong, why in (
        (config.precision == "fp16", "--precision fp16, whose scaler sees one process: take bf16"),
        (config.compile != "none", "--compile, which fuses blocks that are to be gathered: leave it out"),
        (config.sync_bn != "both", f"--sync-bn {config.sync_bn}, whose statistics differ: take both"),
        (config.thaw_epochs, "--thaw-epochs, which releases weights later: leave it out"),
    ):
        if wrong:
            raise UsageError(f"--strategy fsdp does not go with {why}")


def shard(method: Method, fabric: Fabric, config: TrainConfig) -> None:
    """Shard the backbones of a method over all processes, in place.

    Raises:
        UsageError: see `check_sharding`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    check_sharding(config)
    # no head begins with an operation in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(fabric.device.type, (fabric.world_size,))
    reduce = torch.bfloat16 if config.reduce_precision == "bf16" else None
    common: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=reduce),
    }
    for backbone in sharded_backbones(method):
        norm = getattr(backbone, "fc_norm", None)  # which methods with tokens call by itself
        parts = [*blocks(backbone), *([norm] if norm is not None and list(norm.parameters()) else [])]
        for part in parts:
            fully_shard(part, **common)
        fully_shard(backbone, **common)
        # said, and not learned from forward passes: of evaluation each process may run another number
        order: list[Any] = [backbone, *parts]
        for before, part in zip(order, [*order[1:], backbone], strict=True):
            part.set_modules_to_backward_prefetch([before])
        _gather_for_parts_of_forward(backbone)


def _gather_for_parts_of_forward(backbone: Any) -> None:
    """Gather weights for `forward_features` and `forward_head` too.

    Not where `forward` calls them, for which all are gathered already.
    """
    from torch.distributed.fsdp import register_fsdp_forward_method

    whole, depth = backbone.forward, [0]

    def forward(*args: Any, **kwargs: Any) -> Any:
        depth[0] += 1
        try:
            return whole(*args, **kwargs)
        finally:
            depth[0] -= 1

    for name in ("forward_features", "forward_head"):
        if hasattr(backbone, name):
            plain = getattr(backbone, name)
            register_fsdp_forward_method(backbone, name)
            setattr(backbone, name, _either(plain, getattr(backbone, name), depth))
    backbone.forward = forward


def _either(within: Any, alone: Any, depth: list[int]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return (within if depth[0] else alone)(*args, **kwargs)

    return call


def sharded_backbones(method: Method) -> list[nn.Module]:
    """The networks of a method that are sharded: the backbone, and that of a target."""
    target: Any = getattr(method, "target", None)
    if isinstance(target, nn.ModuleDict) and "backbone" in target:
        return [method.backbone, target["backbone"]]
    return [method.backbone]


def shard_modules(module: nn.Module) -> list[Any]:
    """All parts of a network that gather their weights by themselves."""
    from torch.distributed.fsdp import FSDPModule

    return [part for part in module.modules() if isinstance(part, FSDPModule)]


class ShardSyncControl(_BackwardSyncControl):
    """Leaves out the exchange of gradients in all batches of a step but the last."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        """Exchange no gradients within the context where `enabled`."""
        return self._without_exchange(module, enabled)

    @contextmanager
    def _without_exchange(self, module: nn.Module, enabled: bool) -> Iterator[None]:
        parts = shard_modules(module)
        for part in parts:
            part.set_requires_gradient_sync(not enabled, recurse=False)
        yield


@contextmanager
def gathered(method: nn.Module) -> Iterator[None]:
    """Hold all weights whole while the context lasts: forward passes exchange nothing.

    Processes may then run it on different numbers of batches. Nothing without sharding.
    """
    parts = shard_modules(method) if dist.is_available() and dist.is_initialized() else []
    with ExitStack() as stack:
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
            stack.callback(part.reshard)
            stack.callback(part.set_reshard_after_forward, True, recurse=False)
        yield


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], bf16: bool = False) -> None:
    """Average the gradients that no wrapper averages, in one exchange for each type."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None and not is_sharded(p):
            by_type.setdefault(p.grad.dtype, []).append(p.grad)
    for gradients in by_type.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / dist.get_world_size()
        sent = flat.bfloat16() if bf16 else flat
        dist.all_reduce(sent)
        parts = sent.to(flat.dtype).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def load_method(method: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load whole weights into a method, sharded or not."""
    own = method.state_dict(keep_vars=True)
    placed = {
        name: sharded_like(value, own[name])
        if name in own and is_sharded(own[name]) and value.shape == own[name].shape
        else value
        for name, value in weights.items()
    }
    method.load_state_dict(placed)


def placed_buffers(optimizer: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Saved state of an optimiser, with buffers sharded as their weights are."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **saved,
        "state": {
            number: {
                name: sharded_like(value, weights[number])
                if isinstance(value, Tensor) and is_sharded(weights[number]) and value.ndim
                else value
                for name, value in buffers.items()
            }
            for number, buffers in saved["state"].items()
        },
    }
