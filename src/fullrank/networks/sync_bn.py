"""BatchNorm with the statistics of the global batch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fullrank.networks.processes import sum_over_processes, world


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
