"""One process of `test_distributed`: a step of every method on its part of a batch, as tensors in a file.

Usage: gloo_worker.py RANK WORLD RENDEZVOUS-FILE OUTPUT-FILE
"""

import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fullrank.collapse import CollapseMonitor
from fullrank.methods import METHODS, StepInfo, build_method
from fullrank.networks.processes import synchronise_batch_norm
from methods.shrunk import shrunk


def main(rank: int, world: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    results: dict[str, object] = {}
    for name in METHODS:
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        method = build_method(name, backbone, 24, shrunk(name)).double()
        synchronise_batch_norm(method, torch.device("cpu"))
        generator = torch.Generator().manual_seed(1)
        whole = torch.randn(2, 64, 3, 6, 6, generator=generator, dtype=torch.float64)
        mine = whole.chunk(world, dim=1)[rank]
        wrapped = DistributedDataParallel(method) if world > 1 else method
        loss = wrapped(list(mine)).loss
        loss.backward()
        method.after_step(StepInfo(1, 2))
        total = loss.detach().clone()
        if world > 1:
            torch.distributed.all_reduce(total)
        monitor = CollapseMonitor()
        monitor.observe(method.eval().embed(mine[0]))
        report = monitor.close()
        results[name] = {
            "loss": total / world,
            "gradients": {key: p.grad for key, p in method.named_parameters() if p.grad is not None},
            "buffers": dict(method.named_buffers()),
            "panel": {
                f"{tap}/{key}": measure.value
                for tap, panel in report.panels.items()
                for key, measure in panel.measures.items()
            }
            | (report.usage.as_dict() if report.usage else {}),
        }
    torch.save(results, output)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
