"""Sums, rows and BatchNorm over all processes, with the gradients of one process.

Distributed wrappers average gradients over processes. A loss that is the same function of the global batch on
every process therefore needs collectives whose backward pass sums over processes: then the average of all is
the gradient of one. Without a process group everything here is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world() -> tuple[int, int]:
    """This process's rank and the number of processes.

    Example:
        >>> world()
        (0, 1)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


class _Sum(torch.autograd.Function):
    """All-reduce forward and backward: all losses depend on all rows."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of `value`, of one shape everywhere, over processes; differentiable.

    Example:
        >>> sum_over_processes(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    if world()[1] == 1:
        return value
    total: Tensor = _Sum.apply(value)
    return total


class _Gather(torch.autograd.Function):
    """All-gather forward, reduce-scatter backward: all losses depend on all rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        whole = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(whole, rows.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if gradient.device.type == "cpu":  # older versions of gloo have no reduce-scatter
            total = gradient.contiguous().clone()
            dist.all_reduce(total)
            return own_rows(total)
        own = gradient.new_empty(len(gradient) // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of `value`, of one shape everywhere, over processes; differentiable."""
    return sum_over_processes(value) / world()[1]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes by rank, [b, ...] to [world * b, ...]; differentiable.

    Every process must hold as many rows. The gradient of each row is summed over the losses of all processes.

    Example:
        >>> gather_rows(torch.zeros(4, 2)).shape
        torch.Size([4, 2])
    """
    if world()[1] == 1:
        return rows
    whole: Tensor = _Gather.apply(rows)
    return whole


@torch.no_grad()
def gather_uneven_rows(rows: Tensor) -> Tensor:
    """Rows of all processes by rank, of which each may hold another number.

    Example:
        >>> gather_uneven_rows(torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """
    size = world()[1]
    if size == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [int(each) for each in gather_rows(count)]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    whole = gather_rows(padded).unflatten(0, (size, max(counts)))
    return torch.cat([part[:each] for part, each in zip(whole, counts, strict=True)])


def own_rows(rows: Tensor) -> Tensor:
    """This process's part [b, ...] of gathered rows [world * b, ...]."""
    rank, size = world()
    return rows.chunk(size)[rank]


@torch.no_grad()
def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value` on all of them: random numbers that all share."""
    if world()[1] == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value


class CpuSyncBatchNorm(_BatchNorm):
    """Batch normalisation over all processes, for gloo on CPUs.

    PyTorch's own `SyncBatchNorm`, which needs a GPU, serves there. Every process must hold as many rows.

    Example:
        >>> CpuSyncBatchNorm(4)(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """

    after: tuple[nn.Module, ...] = ()  # dropout and activation, which timm's BatchNormAct2d carries along

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [n, c, ...] per channel c over rows, positions and processes."""
        synchronised = self.training and world()[1] > 1
        output: Tensor = self._normalise(input) if synchronised else super().forward(input)
        for after in self.after:
            output = after(output)
        return output

    def _normalise(self, input: Tensor) -> Tensor:
        axes = [0, *range(2, input.dim())]
        count = input.numel() // input.shape[1] * world()[1]
        mean = sum_over_processes(input.sum(axes)) / count
        shape = [1, -1, *[1] * (input.dim() - 2)]
        centred = input - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm in `network` by one that is synchronised over processes.

    Args:
        network: changed in place where it is not itself a BatchNorm; parameters and buffers are kept.
        device: where it will train; decides between PyTorch's implementation and ours for CPUs.

    Example:
        >>> type(synchronise_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), torch.device("cpu"))[0]).__name__
        'CpuSyncBatchNorm'
    """
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for name, child in network.named_children():
        setattr(network, name, synchronise_batch_norm(child, device))
    if not isinstance(network, _BatchNorm) or isinstance(network, CpuSyncBatchNorm):
        return network
    ours = CpuSyncBatchNorm(
        network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
    )
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(ours, name, getattr(network, name))
    for layer in ("drop", "act"):
        if hasattr(network, layer):
            setattr(ours, layer, getattr(network, layer))
            ours.after = (*ours.after, getattr(network, layer))
    return ours.train(network.training)
