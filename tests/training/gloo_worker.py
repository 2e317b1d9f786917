"""One process of `test_distributed`: steps of every method on its part of a batch, as tensors in a file.

Usage: gloo_worker.py RANK WORLD RENDEZVOUS-FILE OUTPUT-FILE
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fullrank.collapse import CollapseMonitor
from fullrank.methods import METHODS, Method, StepInfo, build_method
from fullrank.networks.processes import gather_rows, synchronise_batch_norm
from methods.public_losses import LOSSES, inputs
from methods.shrunk import shrunk

ROWS = 72  # by 2 and by 3
STEPS = 4


def new_method(name: str) -> Method:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    method = build_method(name, backbone, 24, shrunk(name))
    synchronise_batch_norm(method, torch.device("cpu"))
    return method


def views(step: int, rank: int, world: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(2, ROWS, 3, 6, 6, generator=generator, dtype=torch.float64)
    return list(whole.chunk(world, dim=1)[rank].to(dtype))


def mean(value: Tensor, world: int) -> Tensor:
    total = value.detach().clone()
    if world > 1:
        torch.distributed.all_reduce(total)
    return total / world


def gradients(method: Method) -> dict[str, Tensor]:
    return {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}


def four_steps(name: str, rank: int, world: int) -> dict[str, Any]:
    """Loss and gradient of each step, and what the weights are in the end."""
    method = new_method(name).double()
    wrapped = DistributedDataParallel(method) if world > 1 else method
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    losses: list[Any] = []
    first: dict[str, Any] = {}
    for step in range(STEPS):
        torch.manual_seed(100 * step + rank)  # as the loop has it: of each process its own
        info = StepInfo(step, STEPS, 2)
        method.before_step(info)
        loss = wrapped(views(step, rank, world, torch.float64)).loss
        optimizer.zero_grad()
        loss.backward()
        first = first or gradients(method)
        method.after_backward()
        optimizer.step()
        method.after_step(info)
        losses.append(mean(loss, world))
    monitor = CollapseMonitor()
    monitor.observe(method.eval().embed(views(9, rank, world, torch.float64)[0]))
    report = monitor.close()
    return {
        "losses": torch.stack(losses),
        "gradients": first,
        "weights": dict(method.named_parameters()),
        "buffers": dict(method.named_buffers()),
        "panel": {
            f"{tap}/{key}": measure.value
            for tap, panel in report.panels.items()
            for key, measure in panel.measures.items()
        }
        | (report.usage.as_dict() if report.usage else {}),
    }


def single_precision(name: str, rank: int, world: int) -> dict[str, Any]:
    """The first step in float32."""
    method = new_method(name)
    wrapped = DistributedDataParallel(method) if world > 1 else method
    torch.manual_seed(rank)
    method.before_step(StepInfo(0, STEPS, 2))
    loss = wrapped(views(0, rank, world, torch.float32)).loss
    loss.backward()
    return {"loss": mean(loss, world), "gradients": gradients(method)}


def public_loss(name: str, rank: int, world: int) -> dict[str, Any]:
    """Value, and gradient by every row, of a loss as a pure function."""
    torch.manual_seed(rank)
    own = [x.chunk(world)[rank].clone().requires_grad_(x.is_floating_point()) for x in inputs(name, ROWS)]
    value = LOSSES[name](*own)
    floating = [x for x in own if x.requires_grad]
    found = torch.autograd.grad(value, floating, allow_unused=True)
    with torch.no_grad():
        whole = [gather_rows(g / world) for g in found if g is not None]
    return {"value": mean(value, world), "gradients": whole}


def main(rank: int, world: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", f"file://{rendezvous}-{world}", rank=rank, world_size=world
        )
    results: dict[str, Any] = {
        name: four_steps(name, rank, world) | {"single": single_precision(name, rank, world)}
        for name in METHODS
    }
    results |= {f"loss:{name}": public_loss(name, rank, world) for name in LOSSES}
    torch.save(results, output)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
