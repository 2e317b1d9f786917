"""One process of `test_asymmetric_designs`: which BatchNorms saw the rows of all processes.

Usage: sync_worker.py RANK WORLD RENDEZVOUS-FILE OUTPUT-FILE
"""

import sys
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fullrank.training.config import TrainConfig
from fullrank.training.setup import _synchronise
from methods.shrunk import method, views


def statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances, in the order of the modules."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    return [moment for layer in layers for moment in (layer.running_mean, layer.running_var)]  # type: ignore[misc]


def main(rank: int, size: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=size)
    fabric = SimpleNamespace(world_size=size, device=torch.device("cpu"))
    results: dict[str, dict[str, list[Tensor]]] = {}
    for sync_bn in ("both", "source", "target", "none"):
        byol = method("byol").double()
        _synchronise(byol, TrainConfig(method="byol", sync_bn=sync_bn), fabric)  # type: ignore[arg-type]
        byol.loss([view.double() + rank for view in views(seed=rank)])
        online = nn.ModuleList([byol.backbone, byol.projector, byol.predictor])  # type: ignore[list-item]
        results[sync_bn] = {"source": statistics(online), "target": statistics(byol.target)}  # type: ignore[arg-type]
    torch.save(results, output)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
